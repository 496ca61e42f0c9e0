/**
 * Where things lie on a log device: two superblocks, two checkpoint areas, then slots.
 *
 *   block 0, block 8     superblock copies
 *   64 KiB               checkpoint area 0, checkpoint area 1
 *   after them           slots of segmentBytes each
 *
 * Invariants: the log holds at least four segments and twice the largest request, besides the slot
 * kept back for the catalogue.
 */
import { assert } from '../src/base/assert.ts';
import { VarveError } from '../src/base/errors.ts';
import {
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  gibibytes,
  kibibytes,
  mebibytes,
  type ByteCount,
  type ByteOffset,
  type Slot,
} from '../src/base/units.ts';
import { catalogueEntry, checkpointHeader } from '../src/format/layouts.ts';

export interface LogGeometry {
  /** Size of the served volume. */
  readonly size: ByteCount;
  readonly logBytes: ByteCount;
  readonly segmentBytes: ByteCount;
  readonly slotCount: number;
  readonly checkpointBytes: ByteCount;
  readonly requestBytesMax: ByteCount;
}

export const CHECKPOINT_OFFSET: ByteOffset = byteOffset(kibibytes(64));
export const REQUEST_BYTES_MAX: ByteCount = mebibytes(32);
export const SEGMENT_BYTES_MIN: ByteCount = kibibytes(32);
export const SEGMENT_BYTES_MAX: ByteCount = mebibytes(64);
export const SEGMENTS_MIN = 4;
/** Slots that clients never use: deletes and marks of the catalogue still work in a full log. */
export const SLOTS_RESERVED = 1;
/** The index holds at most 2^27 versions, which is more than such a log has blocks. */
export const LOG_BYTES_MAX: ByteCount = gibibytes(256);
/** The summary of a segment never takes more than this part of its slot. */
export const SUMMARY_SHARE = 16;

export interface GeometryRequest {
  readonly size: ByteCount;
  readonly logSize: ByteCount;
  /** Default: about a 64th of the log. */
  readonly segmentBytes?: ByteCount | undefined;
  readonly requestBytesMax?: ByteCount | undefined;
}

/** Blocks of a fresh segment that the stream is sure to get. */
export function segmentBlocksSure(geometry: LogGeometry): number {
  const blocks = geometry.segmentBytes / BLOCK_BYTES;
  return blocks - 2 - summaryBlocksMax(geometry);
}

export function summaryBlocksMax(geometry: LogGeometry): number {
  return Math.max(1, Math.floor(geometry.segmentBytes / BLOCK_BYTES / SUMMARY_SHARE));
}

/** @throws VarveError SIZE_BAD, LOG_TOO_SMALL */
export function planGeometry(request: GeometryRequest): LogGeometry {
  const { size, logSize } = request;
  if (!Number.isSafeInteger(size) || size <= 0) {
    throw new VarveError('SIZE_BAD', `got ${size} bytes`);
  }
  if (!Number.isSafeInteger(logSize) || logSize > LOG_BYTES_MAX) {
    const next = `give a log of at most ${LOG_BYTES_MAX / gibibytes(1)}G`;
    throw new VarveError('SIZE_BAD', `got a log of ${logSize} bytes`, { next });
  }
  const geometry = layOut(request);
  if (holdsEnough(geometry)) return geometry;
  let least = mebibytes(1);
  while (!holdsEnough(layOut({ ...request, logSize: least }))) {
    least = byteCount(least + mebibytes(1));
  }
  const next = `give at least ${least / mebibytes(1)}M`;
  throw new VarveError('LOG_TOO_SMALL', `got ${logSize} bytes`, { next });
}

function layOut(request: GeometryRequest): LogGeometry {
  const { size, logSize } = request;
  const requestBytesMax = request.requestBytesMax ?? REQUEST_BYTES_MAX;
  const logBytes = byteCount(Math.floor(logSize / BLOCK_BYTES) * BLOCK_BYTES);
  const ideal = 2 ** Math.floor(Math.log2(Math.max(1, logBytes / 64)));
  const segmentBytes =
    request.segmentBytes ?? byteCount(Math.min(SEGMENT_BYTES_MAX, Math.max(mebibytes(1), ideal)));
  assert(segmentBytes % BLOCK_BYTES === 0, 'a segment is whole blocks');
  assert(segmentBytes >= SEGMENT_BYTES_MIN, 'a segment holds a few batches');
  const share = Math.floor(logBytes / 64 / BLOCK_BYTES) * BLOCK_BYTES;
  const checkpointBytes = byteCount(Math.min(mebibytes(4), Math.max(kibibytes(16), share)));
  const slotCount = Math.floor((logBytes - CHECKPOINT_OFFSET - 2 * checkpointBytes) / segmentBytes);
  return { size, logBytes, segmentBytes, slotCount, checkpointBytes, requestBytesMax };
}

/** Whether these numbers, as they were read, can be those of a log: all of it lies where it may. */
export function isGeometry(geometry: LogGeometry): boolean {
  const { size, logBytes, segmentBytes, slotCount, checkpointBytes, requestBytesMax } = geometry;
  const areBlocks = [logBytes, segmentBytes, checkpointBytes].every(
    (bytes) => bytes >= BLOCK_BYTES && bytes % BLOCK_BYTES === 0,
  );
  if (!areBlocks || size < 1 || requestBytesMax < 1 || requestBytesMax > REQUEST_BYTES_MAX) {
    return false;
  }
  if (logBytes > LOG_BYTES_MAX || segmentBytes < SEGMENT_BYTES_MIN) return false;
  const end = CHECKPOINT_OFFSET + 2 * checkpointBytes + slotCount * segmentBytes;
  return end <= logBytes && holdsEnough(geometry);
}

function holdsEnough(geometry: LogGeometry): boolean {
  const slots = geometry.slotCount - SLOTS_RESERVED;
  const usable = slots * segmentBlocksSure(geometry) * BLOCK_BYTES;
  return slots >= SEGMENTS_MIN && usable >= 2 * geometry.requestBytesMax;
}

export function slotOffset(geometry: LogGeometry, slot: Slot): ByteOffset {
  assert(slot >= 0 && slot < geometry.slotCount, 'a slot lies on the log device');
  return byteOffset(
    CHECKPOINT_OFFSET + 2 * geometry.checkpointBytes + slot * geometry.segmentBytes,
  );
}

export function checkpointOffset(geometry: LogGeometry, area: 0 | 1): ByteOffset {
  return byteOffset(CHECKPOINT_OFFSET + area * geometry.checkpointBytes);
}

/** Catalogue entries that a checkpoint area holds. */
export function catalogueEntriesMax(geometry: LogGeometry): number {
  return Math.floor((geometry.checkpointBytes - checkpointHeader.size) / catalogueEntry.size);
}
