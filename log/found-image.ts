/** Before-images as they are found on the undo device, and which of them counts. Pure. */
import { assert } from '../src/base/assert.ts';
import {
  BLOCK_BYTES,
  byteOffset,
  type ByteOffset,
  type SegmentSequence,
} from '../src/base/units.ts';
import { payloadOf, type BeforeImage } from './before-image.ts';

/** One that was found, and where its payload lies. */
export interface FoundImage {
  readonly image: BeforeImage;
  readonly segment: SegmentSequence;
  /** Of its payload; of its header for zeros. */
  readonly place: ByteOffset;
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
