/**
 * Marks of a segment of the undo device into which others are joined, and which: its first batch, and
 * its last one, written once what is between them is durable. Without the last one it counts for
 * nothing, and the others do; with it they don't.
 *
 * Invariant: decode(encode(sources)) equals sources.
 */
import { assert } from '../src/base/assert.ts';
import type { Uuid } from '../src/base/identity.ts';
import { BLOCK_BYTES, segmentSequence, type SegmentSequence } from '../src/base/units.ts';
import {
  BATCH_PREFIX_BYTES,
  ENTRIES_MAX,
  ENTRY_BYTES,
  KIND_JOINED,
} from '../src/format/layouts.ts';
import { viewOf } from '../src/format/record.ts';
import { entryOf, sealBatch, writeEntry, type Batch, type BatchHeader } from './batch.ts';

export const JOINED_MAX = ENTRIES_MAX;

/** @returns the header block; there are no payloads */
export function encodeJoined(
  sources: readonly SegmentSequence[],
  volume: Uuid,
  header: Omit<BatchHeader, 'entryCount' | 'payloadBlocks'>,
): Uint8Array {
  assert(sources.length > 0 && sources.length <= JOINED_MAX, 'the sources fit one batch');
  const target = new Uint8Array(BLOCK_BYTES);
  const view = viewOf(target);
  sources.forEach((sequence, i) => {
    writeEntry(view, BATCH_PREFIX_BYTES + i * ENTRY_BYTES, KIND_JOINED, 0, sequence, 0, 0);
  });
  sealBatch(target, volume, { ...header, entryCount: sources.length, payloadBlocks: 0 });
  return target;
}

/** @returns undefined when it is a batch of something else */
export function decodeJoined(batch: Batch): readonly SegmentSequence[] | undefined {
  const { entryCount } = batch.header;
  if (entryCount === 0) return undefined;
  const sources: SegmentSequence[] = [];
  for (let i = 0; i < entryCount; i++) {
    const { kind, block } = entryOf(batch, i);
    if (kind !== KIND_JOINED) return undefined;
    sources.push(segmentSequence(block));
  }
  return sources;
}
