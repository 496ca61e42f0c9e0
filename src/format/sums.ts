/**
 * The checksum sidecar of final storage: sectors of 31 entries, one per block. Pure.
 *
 * Invariants:
 *   - A sector is written whole, and is one device sector: a torn write leaves it old or new.
 *   - An all-zero sector says "never written" for all its blocks, if its whole page is zero; any other
 *     is checked.
 */
import { crc32c } from '../base/crc32c.ts';
import {
  BLOCK_BYTES,
  byteCount,
  checksum,
  generation,
  type Block,
  type ByteCount,
  type Checksum,
  type Generation,
} from '../base/units.ts';
import { bindChecksum } from './block-checksum.ts';
import {
  FORMAT_VERSION,
  LOST_TEXT,
  SUM_ALLOCATED,
  SUM_DATA,
  SUMS_ENTRIES,
  SUMS_ENTRY_BYTES,
  SUMS_MAGIC,
  SUMS_SECTOR_BYTES,
  sumsHeader,
} from './layouts.ts';
import { readU48, viewOf, writeU48 } from './record.ts';

export interface Sum {
  readonly kind: number;
  readonly generation: Generation;
  readonly checksum: Checksum;
}

const ZEROS = new Uint8Array(BLOCK_BYTES);
const LOST_BYTES = Buffer.from(LOST_TEXT, 'latin1');

/**
 * What goes home for a lost block: what could be read of it, never zeros.
 * @param content - one block, changed in place
 * @returns whether it was changed
 */
export function markLost(content: Uint8Array): boolean {
  const isBlank = Buffer.compare(content, ZEROS) === 0;
  if (isBlank) content.set(LOST_BYTES);
  return isBlank;
}

export function sumsBytes(blocks: number): ByteCount {
  const sectors = Math.ceil(blocks / SUMS_ENTRIES);
  return byteCount(Math.ceil((sectors * SUMS_SECTOR_BYTES) / 4096) * 4096);
}

export function sectorOf(block: Block): number {
  return Math.floor(block / SUMS_ENTRIES);
}

function entryOffset(block: Block): number {
  return sumsHeader.size + (block % SUMS_ENTRIES) * SUMS_ENTRY_BYTES;
}

/** @param bytes - one sector that `isSector` accepted */
export function readSum(bytes: Uint8Array, block: Block): Sum {
  const view = viewOf(bytes);
  const at = entryOffset(block);
  return {
    kind: view.getUint8(at),
    generation: generation(readU48(view, at + 2)),
    checksum: checksum(view.getUint32(at + 8, true)),
  };
}

/**
 * The kind alone, for whoever looks at very many.
 * @param view - one sector that `isSector` accepted
 */
export function kindAt(view: DataView, block: Block, at: Generation): number {
  const offset = entryOffset(block);
  return readU48(view, offset + 2) > at ? SUM_DATA : view.getUint8(offset);
}

export function writeSum(bytes: Uint8Array, block: Block, sum: Sum): void {
  const view = viewOf(bytes);
  const at = entryOffset(block);
  bytes.fill(0, at, at + SUMS_ENTRY_BYTES);
  view.setUint8(at, sum.kind);
  writeU48(view, at + 2, sum.generation);
  view.setUint32(at + 8, sum.checksum, true);
}

/** Of the volume and the place, so that a sector of another one is no sector here. */
function sectorSum(bytes: Uint8Array, sector: number, seed: number): Checksum {
  return bindChecksum(crc32c(bytes.subarray(8, SUMS_SECTOR_BYTES)), seed, sector, 0);
}

/**
 * Completes a sector after its entries were changed.
 * @param place - `since`: where the round ended, or ends, that wrote the page first
 */
export function sealSector(
  bytes: Uint8Array,
  place: { readonly sector: number; readonly seed: number; readonly since: Generation },
): void {
  const view = viewOf(bytes);
  bytes.set(Buffer.from(SUMS_MAGIC, 'latin1'), 0);
  writeU48(view, 8, place.since);
  view.setUint16(14, FORMAT_VERSION, true);
  view.setUint32(4, sectorSum(bytes, place.sector, place.seed), true);
}

/** @param bytes - one sector that `isSector` accepted, not blank */
export function sinceOf(bytes: Uint8Array): Generation {
  return generation(readU48(viewOf(bytes), 8));
}

/** Whether these 512 bytes are sector `sector` of this volume, or were never written. */
export function isSector(bytes: Uint8Array, sector: number, seed: number): boolean {
  const view = viewOf(bytes);
  if (view.getUint32(0, true) === 0) return bytes.every((byte) => byte === 0);
  return (
    Buffer.from(bytes.subarray(0, 4)).toString('latin1') === SUMS_MAGIC &&
    view.getUint32(4, true) === sectorSum(bytes, sector, seed) &&
    view.getUint16(14, true) === FORMAT_VERSION &&
    areEntries(view)
  );
}

/** Kinds are known, and padding is zero. */
function areEntries(view: DataView): boolean {
  for (let at = sumsHeader.size; at < SUMS_SECTOR_BYTES; at += SUMS_ENTRY_BYTES) {
    // The first two bytes are kind and padding: read as one number, padding makes it large.
    if (view.getUint16(at, true) > SUM_ALLOCATED || view.getUint32(at + 12, true) !== 0) {
      return false;
    }
  }
  return true;
}
