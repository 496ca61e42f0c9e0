/**
 * A read that is good but for some ranges: one error that names each of them, so that nobody has
 * to fail as a whole because of one block.
 *
 * Invariant: ranges are ascending, apart from each other, and inside what was asked for; all other
 * bytes of the target were filled and verified, and those of the ranges are zeros.
 */
import { assert } from './assert.ts';
import { isVarveError, VarveError } from './errors.ts';
import { byteCount, byteOffset, type ByteCount, type ByteOffset } from './units.ts';

export interface UnreadableRange {
  readonly offset: ByteOffset;
  readonly length: ByteCount;
  /** What is wrong there: block, generation, got and expected. */
  readonly why: string;
}

/** `DEVICE_IO` when a device below refused all of it, else `BLOCK_CORRUPT`. */
export type UnreadableCode = 'BLOCK_CORRUPT' | 'DEVICE_IO';

/** So many ranges are named in the text; all of them are in `ranges`. */
const NAMED_MAX = 3;

export class UnreadableError extends VarveError {
  readonly ranges: readonly UnreadableRange[];

  constructor(code: UnreadableCode, ranges: readonly UnreadableRange[], options?: ErrorOptions) {
    assert(ranges.length > 0, 'something could not be read');
    super(code, detailOf(ranges), options);
    this.name = 'UnreadableError';
    this.ranges = ranges;
  }
}

function detailOf(ranges: readonly UnreadableRange[]): string {
  const named = ranges.slice(0, NAMED_MAX).map(({ why }) => why);
  const more = ranges.length - named.length;
  return more === 0 ? named.join('; ') : `${named.join('; ')}; and ${more} more ranges`;
}

/** Whether a read failed because of what lies there, so that its neighbours may still be good. */
export function isUnreadable(error: unknown): error is VarveError {
  return isVarveError(error, 'BLOCK_CORRUPT') || isVarveError(error, 'DEVICE_IO');
}

/** Neighbours become one range, named after its first part. `ranges` is ascending. */
export function mergedRanges(ranges: readonly UnreadableRange[]): readonly UnreadableRange[] {
  const merged: UnreadableRange[] = [];
  for (const range of ranges) {
    const last = merged.at(-1);
    if (last !== undefined && last.offset + last.length === range.offset) {
      merged[merged.length - 1] = { ...last, length: byteCount(last.length + range.length) };
    } else merged.push(range);
  }
  return merged;
}

/** The part of `ranges` inside [from, to). */
export function clippedRanges(
  ranges: readonly UnreadableRange[],
  from: number,
  to: number,
): readonly UnreadableRange[] {
  const clipped: UnreadableRange[] = [];
  for (const { offset, length, why } of ranges) {
    const start = Math.max(offset, from);
    const end = Math.min(offset + length, to);
    if (end > start) {
      clipped.push({ offset: byteOffset(start), length: byteCount(end - start), why });
    }
  }
  return clipped;
}
