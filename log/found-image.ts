/** Before-images as they are found on the undo device, and which of them counts. Pure. */
import { assert } from '../src/base/assert.ts';
import type { VarveError } from '../src/base/errors.ts';
import {
  BLOCK_BYTES,
  byteOffset,
  type ByteOffset,
  type SegmentSequence,
} from '../src/base/units.ts';
import { endOfImage, payloadOf, type BeforeImage } from './before-image.ts';

/** One that was found, and where its payload lies. */
export interface FoundImage {
  readonly image: BeforeImage;
  readonly segment: SegmentSequence;
  /** Of its payload; of its header for zeros. */
  readonly place: ByteOffset;
}

export interface FoundImages {
  /** For each block. */
  readonly copies: readonly (readonly FoundImage[])[];
  /** DEVICE_IO or VOLUME_CORRUPT: a batch could not be read that may have had some of them. */
  readonly refusal: VarveError | undefined;
}

/** For each of `count` blocks from `first` on those that are of it. */
export function perBlock(
  found: readonly FoundImage[],
  first: number,
  count: number,
): readonly FoundImage[][] {
  const of: FoundImage[][] = Array.from({ length: count }, () => []);
  for (const one of found) {
    const to = Math.min(first + count, endOfImage(one.image));
    for (let block = Math.max(first, one.image.block); block < to; block++) {
      of[block - first]?.push(one);
    }
  }
  return of;
}

/** Those of the smallest `until`, the newest copy first. */
export function firstReplaced(copies: readonly FoundImage[]): FoundImage[] {
  const until = Math.min(...copies.map(({ image }) => image.until));
  return copies
    .filter(({ image }) => image.until === until)
    .sort((one, other) => other.segment - one.segment);
}

/** Image `i` of the batch at `place`. */
export function foundAt(
  segment: SegmentSequence,
  place: ByteOffset,
  images: readonly BeforeImage[],
  i: number,
): FoundImage {
  const image = images[i];
  assert(image !== undefined, 'an image of the batch');
  const payload = image.checksum === undefined ? 0 : payloadOf(images, i);
  return { image, segment, place: byteOffset(place + payload * BLOCK_BYTES) };
}
