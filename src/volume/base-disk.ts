/**
 * What a volume is based on: a disk that is only read, and never changes. A block that the volume
 * never wrote is what its base has there; behind the base's end it is zeros.
 *
 * Invariants:
 *   - Blocks that can't be read are named one by one; their neighbours are read all the same.
 */
import { isVarveError, type VarveError } from '../base/errors.ts';
import {
  BLOCK_BYTES,
  block as blockOf,
  byteCount,
  byteOffset,
  type Block,
  type ByteCount,
  type ByteOffset,
} from '../base/units.ts';
import type { UnreadableCode, UnreadableRange } from '../base/unreadable.ts';
import { STATE_HOLE, STATE_ZERO, type StatusRun } from '../device/block-device.ts';
import { RANGE_ALLOCATE, RANGE_TRIM, type RangeKind } from '../../index/found.ts';

/** The port to it: a file of another format, or a moment of another volume. */
export interface BaseDisk {
  readonly size: ByteCount;
  /** What `extents` calls a hole may be damage, which only a read tells of. */
  readonly hidesDamage?: boolean;
  /**
   * Fills `target`, which lies inside the disk; any alignment.
   * @throws VarveError, also an UnreadableError
   */
  read(offset: ByteOffset, target: Uint8Array): Promise<void>;
  /**
   * What is known of a range without reading it: STATE_HOLE and STATE_ZERO, as base:allocation has
   * them. Covers at least one byte, at most `length`, at most `runsMax` runs.
   * @throws VarveError
   */
  extents(offset: ByteOffset, length: ByteCount, runsMax: number): Promise<readonly StatusRun[]>;
}

/** What a look at the base found to be wrong. */
export interface BadBase {
  readonly code: UnreadableCode;
  readonly ranges: readonly UnreadableRange[];
}

const RUNS_MAX = 1024;

function codeOf(error: VarveError): UnreadableCode {
  return error.code === 'BLOCK_CORRUPT' || error.code === 'IMAGE_CORRUPT'
    ? 'BLOCK_CORRUPT'
    : 'DEVICE_IO';
}

/** The base by blocks, as if it had no end. */
export class BaseBlocks {
  readonly #disk: BaseDisk;
  /** Its blocks are being copied to home: some may be there without a sum. */
  isCopied: boolean;

  constructor(disk: BaseDisk, isCopied: boolean) {
    this.#disk = disk;
    this.isCopied = isCopied;
  }

  /** As the disk below tells. */
  get hidesDamage(): boolean {
    return this.#disk.hidesDamage === true;
  }

  /** Of the disk below. */
  get size(): ByteCount {
    return this.#disk.size;
  }

  /**
   * Fills `target`, whole blocks from `first` on. What can't be read is left as zeros.
   * @returns what that is
   */
  async read(first: Block, target: Uint8Array): Promise<BadBase | undefined> {
    const start = first * BLOCK_BYTES;
    const length = Math.max(0, Math.min(target.length, this.size - start));
    target.fill(0, length);
    if (length === 0) return undefined;
    const error = await this.#readPart(start, target.subarray(0, length));
    if (error === undefined) return undefined;
    const ranges: UnreadableRange[] = [];
    let code: UnreadableCode = 'DEVICE_IO';
    for (let at = 0; at < length; at += BLOCK_BYTES) {
      const part = target.subarray(at, Math.min(length, at + BLOCK_BYTES));
      const bad = length <= BLOCK_BYTES ? error : await this.#readPart(start + at, part);
      if (bad === undefined) continue;
      part.fill(0);
      if (codeOf(bad) === 'BLOCK_CORRUPT') code = 'BLOCK_CORRUPT';
      const why = `block ${(start + at) / BLOCK_BYTES}, of the base: ${bad.detail}`;
      ranges.push({ offset: byteOffset(start + at), length: byteCount(BLOCK_BYTES), why });
    }
    return ranges.length === 0 ? undefined : { code, ranges };
  }

  async #readPart(offset: number, target: Uint8Array): Promise<VarveError | undefined> {
    try {
      await this.#disk.read(byteOffset(offset), target);
      return undefined;
    } catch (error) {
      if (!isVarveError(error)) throw error;
      return error;
    }
  }

  /** Whether anything but zeros may be in these blocks. */
  async mayHave(first: Block, count: number): Promise<boolean> {
    for await (const { flags } of this.#runs(first, count)) {
      if ((flags & STATE_ZERO) === 0) return true;
    }
    return false;
  }

  /** One for each block: data, or a kind of zeros. */
  async kinds(first: Block, count: number): Promise<('data' | RangeKind)[]> {
    const kinds = Array.from({ length: count }, (): 'data' | RangeKind => RANGE_TRIM);
    for await (const { from, to, flags } of this.#runs(first, count)) {
      if ((flags & STATE_ZERO) !== 0 && (flags & STATE_HOLE) !== 0) continue;
      const kind = (flags & STATE_ZERO) === 0 ? 'data' : RANGE_ALLOCATE;
      const last = Math.ceil(to / BLOCK_BYTES) - first;
      for (let i = Math.floor(from / BLOCK_BYTES) - first; i < last; i++) {
        if (kinds[i] !== 'data') kinds[i] = kind;
      }
    }
    return kinds;
  }

  /** By bytes, up to the base's end. What can't be asked counts as data: who reads it is told. */
  async *#runs(
    first: Block,
    count: number,
  ): AsyncGenerator<{ readonly from: number; readonly to: number; readonly flags: number }, void> {
    const end = Math.min(this.size, (first + count) * BLOCK_BYTES);
    for (let at = first * BLOCK_BYTES; at < end;) {
      let runs: readonly StatusRun[];
      try {
        runs = await this.#disk.extents(byteOffset(at), byteCount(end - at), RUNS_MAX);
      } catch (error) {
        if (!isVarveError(error)) throw error;
        runs = [];
      }
      if (runs.length === 0) runs = [{ length: byteCount(end - at), flags: 0 }];
      for (const { length, flags } of runs) {
        const to = Math.min(end, at + length);
        if (to > at) yield { from: at, to, flags };
        at = to;
      }
    }
  }
}

/** Blocks of [first, first + count) for which `isOne` holds, as runs of neighbours. */
export function* runsOf(
  first: Block,
  count: number,
  isOne: (i: number) => boolean,
): Generator<{ readonly first: Block; readonly count: number; readonly at: number }, void> {
  for (let i = 0; i < count;) {
    if (!isOne(i)) {
      i += 1;
      continue;
    }
    let after = i + 1;
    while (after < count && isOne(after)) after += 1;
    yield { first: blockOf(first + i), count: after - i, at: i };
    i = after;
  }
}
