/**
 * What the log device may not have kept, laid out again: the ring still holds every batch behind
 * the durable position, so those get other slots, under new segment sequences.
 *
 * Invariants:
 *   - Positions, generations, times and payloads stay as they were: whoever reads the stream finds
 *     the same. Only a header's segment, chain and statement of what is durable change.
 *   - Each part of the stream that had a slot gets one slot, so what fitted fits again.
 *   - The new chain begins at the durable position. What the abandoned slots hold is chained to
 *     other headers, so that a replay never goes from one to the other; and it follows the higher
 *     sequence, wherever two go on from the same place.
 */
import { assert } from '../src/base/assert.ts';
import { uuidBytes, type Uuid } from '../src/base/identity.ts';
import {
  BLOCK_BYTES,
  lsn,
  type Checksum,
  type Generation,
  type Lsn,
  type SegmentSequence,
} from '../src/base/units.ts';
import { KIND_DATA } from '../src/format/layouts.ts';
import { decodeBatch, endOf, entryOf, sealBatch, usedBytes, type Batch } from './batch.ts';
import { summaryBlocksMax } from './geometry.ts';
import type { Ring } from './ring.ts';
import type { Part, Segment, SegmentTable } from './segments.ts';
import { encodeSegmentHeader, segmentChecksum } from './summary.ts';

/** What the log knows to be durable. */
export interface Durable {
  readonly generation: Generation;
  readonly lsn: Lsn;
}

export interface ReslotOptions {
  readonly volume: Uuid;
  readonly ring: Ring;
  readonly segments: SegmentTable;
  /** Random, of this opening. */
  readonly opening: number;
  readonly durable: Durable;
  /** Checksum of the last header before the durable position. */
  readonly chain: Checksum;
}

/** A part of the stream that lies in another segment now. */
export interface Move {
  readonly from: SegmentSequence;
  readonly to: SegmentSequence;
  readonly firstLsn: Lsn;
  /** Data blocks in it: each is a version that the index counts for its segment. */
  readonly versions: number;
}

export interface Reslotted {
  readonly moves: readonly Move[];
  /** Checksum of the last header. */
  readonly chain: Checksum;
}

/** Every batch in the ring is sealed, and no write of the ring is under way. */
export function reslot(options: ReslotOptions): Reslotted {
  const { ring, segments, durable } = options;
  assert(ring.tail <= durable.lsn, 'the ring holds everything that is not durable');
  assert(segments.canMove(durable.lsn), 'there are slots for what is written again');
  const moves: Move[] = [];
  let { chain } = options;
  for (const part of segments.cut(durable.lsn)) {
    const from = lsn(Math.max(part.segment.firstLsn, durable.lsn));
    const segment = openAgain(options, part, from, chain);
    assert(segment.header !== undefined, 'a segment opens with its header');
    chain = segmentChecksum(segment.header);
    let versions = 0;
    const end = part.endLsn ?? ring.head;
    for (let at = from; at < end;) {
      const batch = batchAt(options, at);
      versions += dataEntries(batch);
      chain = sealAgain(options, segment, batch, chain);
      at = endOf(batch);
    }
    giveUpSummary(segment, segments, end);
    moves.push({ from: part.segment.sequence, to: segment.sequence, firstLsn: from, versions });
  }
  return { moves, chain };
}

function openAgain(options: ReslotOptions, part: Part, from: Lsn, chain: Checksum): Segment {
  const { volume, segments, opening, durable } = options;
  const { generation } = batchAt(options, from).header;
  const { lastGeneration } = part.segment;
  return segments.open(
    {
      firstLsn: from,
      chain,
      endLsn: part.endLsn,
      lastGeneration,
      summaryBytes: 0,
      summary: [],
      batches: 0,
    },
    (sequence, slot) =>
      encodeSegmentHeader(volume, {
        sequence,
        slot,
        chain,
        opening,
        firstLsn: from,
        generation,
        durableLsn: durable.lsn,
      }),
  );
}

function batchAt({ ring, volume }: ReslotOptions, position: Lsn): Batch {
  const batch = decodeBatch(ring.blockAt(position), uuidBytes(volume));
  assert(batch !== undefined && batch.header.lsn === position, 'the ring holds whole batches');
  return batch;
}

function sealAgain(
  { ring, volume, durable }: ReslotOptions,
  segment: Segment,
  batch: Batch,
  chain: Checksum,
): Checksum {
  const block = ring.blockAt(batch.header.lsn);
  const sealed = sealBatch(block, volume, {
    ...batch.header,
    segment: segment.sequence,
    durable: durable.generation,
    durableLsn: durable.lsn,
    chain,
  });
  const used = usedBytes(batch.header.entryCount);
  segment.batches += 1;
  segment.summaryBytes += used;
  segment.summary?.push(block.slice(0, used));
  return sealed;
}

function dataEntries(batch: Batch): number {
  let count = 0;
  for (let i = 0; i < batch.header.entryCount; i++) {
    if (entryOf(batch, i).kind === KIND_DATA) count += 1;
  }
  return count;
}

/** As the stream does: a summary that is too large, or has no room, is not written. */
function giveUpSummary(segment: Segment, { geometry }: SegmentTable, end: Lsn): void {
  const body = Math.ceil(segment.summaryBytes / BLOCK_BYTES);
  const used = (end - segment.firstLsn) / BLOCK_BYTES;
  const fits = 1 + used + body + 1 <= geometry.segmentBytes / BLOCK_BYTES;
  if (body > summaryBlocksMax(geometry) || !fits) segment.summary = undefined;
}
