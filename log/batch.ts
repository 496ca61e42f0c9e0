/**
 * Batches: one header block and the payload blocks it describes. Bytes in, values out; no I/O.
 *
 * Invariants:
 *   - A header that fails magic, version, checksum, volume or limits is never returned.
 *   - The checksum covers the used part, so that the same bytes serve in a segment's summary.
 *   - decode(seal(h)) equals h.
 */
import { assert } from '../src/base/assert.ts';
import { crc32c } from '../src/base/crc32c.ts';
import { uuidBytes, uuidText, type Uuid } from '../src/base/identity.ts';
import {
  BLOCK_BYTES,
  block,
  blockCount,
  checksum,
  generation,
  lsn,
  micros,
  segmentSequence,
  type Block,
  type BlockCount,
  type Checksum,
  type Generation,
  type Lsn,
  type Micros,
  type SegmentSequence,
} from '../src/base/units.ts';
import {
  BATCH_MAGIC,
  BATCH_PREFIX_BYTES,
  COUNT_END,
  ENTRIES_MAX,
  ENTRY_BYTES,
  FLAG_END,
  FLAG_FUA,
  FLAG_START,
  FORMAT_VERSION,
  GENERATION_END,
  KIND_BEFORE_DATA,
  KIND_DATA,
  KIND_JOINED,
  KIND_RECORD,
  batchHeader as shape,
} from '../src/format/layouts.ts';
import { offsetOf, readU48, readU64, viewOf, writeU48, writeU64 } from '../src/format/record.ts';

export interface BatchHeader {
  readonly entryCount: number;
  readonly lineage: Uuid;
  readonly segment: SegmentSequence;
  readonly lsn: Lsn;
  /** Newest request that began before this batch. */
  readonly generation: Generation;
  readonly wallUs: Micros;
  readonly elapsedUs: Micros;
  readonly durable: Generation;
  readonly durableLsn: Lsn;
  readonly chain: Checksum;
  readonly payloadBlocks: number;
}

const MAGIC = Buffer.from(BATCH_MAGIC, 'latin1');
const AT = {
  checksum: offsetOf(shape, 'checksum'),
  version: offsetOf(shape, 'version'),
  entryCount: offsetOf(shape, 'entry_count'),
  volume: offsetOf(shape, 'volume'),
  lineage: offsetOf(shape, 'lineage'),
  segment: offsetOf(shape, 'segment'),
  lsn: offsetOf(shape, 'lsn'),
  generation: offsetOf(shape, 'generation'),
  wallUs: offsetOf(shape, 'wall_us'),
  elapsedUs: offsetOf(shape, 'elapsed_us'),
  durable: offsetOf(shape, 'durable'),
  durableLsn: offsetOf(shape, 'durable_lsn'),
  chain: offsetOf(shape, 'chain'),
  payloadBlocks: offsetOf(shape, 'payload_blocks'),
  reserved: offsetOf(shape, 'reserved'),
} as const;
const FLAGS_KNOWN = FLAG_START | FLAG_END | FLAG_FUA;

export function usedBytes(entryCount: number): number {
  return BATCH_PREFIX_BYTES + entryCount * ENTRY_BYTES;
}

/** Fields of one entry, written by number so that the write path allocates nothing. */
export function writeEntry(
  view: DataView,
  at: number,
  kind: number,
  flags: number,
  place: number,
  value: number,
  extra: number,
): void {
  writeU48(view, at, place);
  view.setUint8(at + 6, kind);
  view.setUint8(at + 7, flags);
  view.setUint32(at + 8, value, true);
  view.setUint32(at + 12, extra, true);
}

/**
 * Completes a header whose entries are in place already, and clears the rest of the block.
 * @param target - the header block, 4096 bytes
 * @returns its checksum: the chain of the next batch
 */
export function sealBatch(target: Uint8Array, volume: Uuid, header: BatchHeader): Checksum {
  assert(target.length === BLOCK_BYTES, 'a batch header is one block');
  assert(header.entryCount <= ENTRIES_MAX, 'the entries fit the header block');
  const used = usedBytes(header.entryCount);
  const view = viewOf(target);
  target.set(MAGIC, 0);
  view.setUint16(AT.version, FORMAT_VERSION, true);
  view.setUint16(AT.entryCount, header.entryCount, true);
  target.set(uuidBytes(volume), AT.volume);
  target.set(uuidBytes(header.lineage), AT.lineage);
  writeU64(view, AT.segment, header.segment);
  writeU64(view, AT.lsn, header.lsn);
  writeU64(view, AT.generation, header.generation);
  writeU64(view, AT.wallUs, header.wallUs);
  writeU64(view, AT.elapsedUs, header.elapsedUs);
  writeU64(view, AT.durable, header.durable);
  writeU64(view, AT.durableLsn, header.durableLsn);
  view.setUint32(AT.chain, header.chain, true);
  view.setUint16(AT.payloadBlocks, header.payloadBlocks, true);
  target.fill(0, AT.reserved, BATCH_PREFIX_BYTES);
  target.fill(0, used);
  const sum = crc32c(target.subarray(AT.version, used));
  view.setUint32(AT.checksum, sum, true);
  return sum;
}

/** @param header - a header block that was sealed */
export function batchChecksum(header: Uint8Array): Checksum {
  return checksum(viewOf(header).getUint32(AT.checksum, true));
}

export function startsWithBatchMagic(bytes: Uint8Array, at = 0): boolean {
  for (let i = 0; i < MAGIC.length; i++) if (bytes[at + i] !== MAGIC[i]) return false;
  return true;
}

/** A decoded header with its bytes, from which entries are read one by one. */
export interface Batch {
  readonly header: BatchHeader;
  readonly checksum: Checksum;
  /** At least the used part. */
  readonly bytes: Uint8Array;
}

export interface Entry {
  readonly kind: number;
  readonly flags: number;
  /** Block, or first block of a range. */
  readonly block: Block;
  /** Of data and record entries. */
  readonly checksum: Checksum;
  /** Of range entries. */
  readonly count: BlockCount;
}

/** Kinds of entry that a device's batches have: from the first to the last. */
export interface EntryKinds {
  readonly first: number;
  readonly last: number;
}

export const LOG_KINDS: EntryKinds = { first: KIND_DATA, last: KIND_RECORD };
export const UNDO_KINDS: EntryKinds = { first: KIND_BEFORE_DATA, last: KIND_JOINED };

/**
 * @param bytes - the header block, or its used part as it stands in a summary; borrowed and kept
 * @param volume - headers of another volume are not returned
 * @param kinds - a header with an entry of another kind is not returned
 * @returns undefined when these are not the bytes of a whole batch header of this volume
 */
export function decodeBatch(
  bytes: Uint8Array,
  volume: Uint8Array,
  kinds: EntryKinds = LOG_KINDS,
): Batch | undefined {
  if (bytes.length < BATCH_PREFIX_BYTES || !startsWithBatchMagic(bytes)) return undefined;
  const view = viewOf(bytes);
  const entryCount = view.getUint16(AT.entryCount, true);
  const used = usedBytes(entryCount);
  if (entryCount > ENTRIES_MAX || bytes.length < used) return undefined;
  const stored = view.getUint32(AT.checksum, true);
  if (crc32c(bytes.subarray(AT.version, used)) !== stored) return undefined;
  if (view.getUint16(AT.version, true) !== FORMAT_VERSION) return undefined;
  if (Buffer.compare(bytes.subarray(AT.volume, AT.volume + 16), volume) !== 0) return undefined;
  const number = (at: number): number => readU64(view, at, 'batch header');
  if (!isInRange(view)) return undefined;
  for (let at: number = AT.reserved; at < BATCH_PREFIX_BYTES; at++) {
    if (bytes[at] !== 0) return undefined;
  }
  const header: BatchHeader = {
    entryCount,
    lineage: uuidText(bytes.subarray(AT.lineage, AT.lineage + 16)),
    segment: segmentSequence(number(AT.segment)),
    lsn: lsn(number(AT.lsn)),
    generation: generation(number(AT.generation)),
    wallUs: micros(number(AT.wallUs)),
    elapsedUs: micros(number(AT.elapsedUs)),
    durable: generation(number(AT.durable)),
    durableLsn: lsn(number(AT.durableLsn)),
    chain: checksum(view.getUint32(AT.chain, true)),
    payloadBlocks: view.getUint16(AT.payloadBlocks, true),
  };
  if (!entriesAgree(bytes, view, header, kinds)) return undefined;
  return { header, checksum: checksum(stored), bytes: bytes.subarray(0, used) };
}

/** Numbers that no volume reaches are not believed. */
function isInRange(view: DataView): boolean {
  const isBelow = (at: number, end: number): boolean =>
    view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true) < end;
  return (
    isBelow(AT.segment, COUNT_END) &&
    isBelow(AT.lsn, COUNT_END) &&
    isBelow(AT.generation, GENERATION_END) &&
    isBelow(AT.elapsedUs, COUNT_END) &&
    isBelow(AT.durable, GENERATION_END) &&
    isBelow(AT.durableLsn, COUNT_END) &&
    isBelow(AT.wallUs, 2 ** 53)
  );
}

/** Kinds and flags are known, and the payload count is what the entries say. */
function entriesAgree(
  bytes: Uint8Array,
  view: DataView,
  header: BatchHeader,
  { first, last }: EntryKinds,
): boolean {
  let payloads = 0;
  for (let i = 0; i < header.entryCount; i++) {
    const at = BATCH_PREFIX_BYTES + i * ENTRY_BYTES;
    const kind = bytes[at + 6] ?? 0;
    if (kind < first || kind > last) return false;
    if (((bytes[at + 7] ?? 0) & ~FLAGS_KNOWN) !== 0) return false;
    if (kind === KIND_DATA || kind === KIND_RECORD || kind === KIND_BEFORE_DATA) {
      payloads += 1;
      if (view.getUint32(at + 12, true) !== 0) return false;
    }
  }
  return payloads === header.payloadBlocks;
}

export function entryOf(batch: Batch, i: number): Entry {
  assert(i < batch.header.entryCount, 'an entry of the batch');
  const view = viewOf(batch.bytes);
  const at = BATCH_PREFIX_BYTES + i * ENTRY_BYTES;
  const value = view.getUint32(at + 8, true);
  return {
    kind: view.getUint8(at + 6),
    flags: view.getUint8(at + 7),
    block: block(readU48(view, at)),
    checksum: checksum(value),
    count: blockCount(view.getUint32(at + 12, true) * 2 ** 32 + value),
  };
}

/** Where the batch ends in the stream. */
export function endOf(batch: Batch): Lsn {
  return lsn(batch.header.lsn + (1 + batch.header.payloadBlocks) * BLOCK_BYTES);
}
