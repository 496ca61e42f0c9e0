/**
 * Before-images as entries of a batch: what a block was, and from which generation on until which.
 * Bytes in, values out; no I/O.
 *
 * Invariants:
 *   - An image is two entries: what it was, then its span. Data has one payload block.
 *   - decode(encode(images)) equals images.
 */
import { assert } from '../src/base/assert.ts';
import type { Uuid } from '../src/base/identity.ts';
import {
  BLOCK_BYTES,
  blockCount,
  generation as generationOf,
  type Block,
  type BlockCount,
  type Checksum,
  type Generation,
} from '../src/base/units.ts';
import {
  BATCH_PREFIX_BYTES,
  ENTRIES_MAX,
  ENTRY_BYTES,
  GENERATION_END,
  KIND_BEFORE_DATA,
  KIND_BEFORE_ZERO,
  KIND_SPAN,
} from '../src/format/layouts.ts';
import { viewOf } from '../src/format/record.ts';
import { entryOf, sealBatch, writeEntry, type Batch, type BatchHeader } from './batch.ts';

export const IMAGES_MAX = Math.floor(ENTRIES_MAX / 2);

/** What blocks were from `from` on until `until` replaced it. */
export interface BeforeImage {
  readonly block: Block;
  /** 1 for data. */
  readonly count: BlockCount;
  readonly from: Generation;
  readonly until: Generation;
  /** Of data, as in log and sidecar; undefined: zeros. */
  readonly checksum: Checksum | undefined;
}

/** What tells an image of one block from all others: what replaced it. */
export function factOf(block: number, until: Generation): string {
  return `${block}:${until}`;
}

/** Of each of its blocks. */
export function factsOf({ block, count, until }: BeforeImage): readonly string[] {
  return Array.from({ length: count }, (_, i) => factOf(block + i, until));
}

/** @returns the header block, without payloads */
export function encodeImages(
  images: readonly BeforeImage[],
  volume: Uuid,
  header: Omit<BatchHeader, 'entryCount' | 'payloadBlocks'>,
): Uint8Array {
  assert(images.length <= IMAGES_MAX, 'the images fit one batch');
  const target = new Uint8Array(BLOCK_BYTES);
  const view = viewOf(target);
  let at = BATCH_PREFIX_BYTES;
  let payloadBlocks = 0;
  for (const { block, count, from, until, checksum } of images) {
    assert(from < until, 'an image was replaced later than it was written');
    if (checksum === undefined) {
      writeEntry(
        view,
        at,
        KIND_BEFORE_ZERO,
        0,
        block,
        count % 2 ** 32,
        Math.floor(count / 2 ** 32),
      );
    } else {
      assert(count === 1, 'an image with data is of one block');
      writeEntry(view, at, KIND_BEFORE_DATA, 0, block, checksum, 0);
      payloadBlocks += 1;
    }
    at += ENTRY_BYTES;
    writeEntry(view, at, KIND_SPAN, 0, from, until % 2 ** 32, Math.floor(until / 2 ** 32));
    at += ENTRY_BYTES;
  }
  sealBatch(target, volume, { ...header, entryCount: images.length * 2, payloadBlocks });
  return target;
}

/** @returns undefined when the entries are not pairs that make sense */
export function decodeImages(batch: Batch): readonly BeforeImage[] | undefined {
  const { entryCount } = batch.header;
  if (entryCount % 2 !== 0) return undefined;
  const images: BeforeImage[] = [];
  for (let i = 0; i < entryCount; i += 2) {
    const image = imageOf(batch, i);
    if (image === undefined) return undefined;
    images.push(image);
  }
  return images;
}

function imageOf(batch: Batch, i: number): BeforeImage | undefined {
  const { kind, block, count, checksum } = entryOf(batch, i);
  const span = entryOf(batch, i + 1);
  if (span.kind !== KIND_SPAN) return undefined;
  const from = generationOf(span.block);
  const until = generationOf(span.count);
  if (from >= until || until >= GENERATION_END) return undefined;
  if (kind === KIND_BEFORE_DATA) return { block, count: blockCount(1), from, until, checksum };
  if (kind !== KIND_BEFORE_ZERO || count < 1) return undefined;
  return { block, count, from, until, checksum: undefined };
}

/** Where the payload of image `i` lies, in blocks behind the header. */
export function payloadOf(images: readonly BeforeImage[], i: number): number {
  let payload = 1;
  for (let before = 0; before < i; before++) {
    if (images[before]?.checksum !== undefined) payload += 1;
  }
  return payload;
}

/** The block behind it. */
export function endOfImage({ block, count }: BeforeImage): number {
  return block + count;
}
