/** What a look into the index can find, and the kinds of range records. */
import type { Block, BlockCount, Generation } from '../src/base/units.ts';

export type Found = 0 | 1 | 2;
/** Nothing in the window: final storage has it. */
export const FOUND_NONE = 0;
/** A version in the log. */
export const FOUND_DATA = 1;
/** Zeros by a range record. */
export const FOUND_ZERO = 2;

export type RangeKind = 1 | 2 | 3;
/** The blocks are a hole: zeros, not allocated. */
export const RANGE_TRIM = 1;
/** The blocks are zeros and may become a hole. */
export const RANGE_ZERO = 2;
/** The blocks are zeros and stay allocated. */
export const RANGE_ALLOCATE = 3;

export interface RangeRecord {
  readonly start: Block;
  readonly count: BlockCount;
  readonly generation: Generation;
  readonly kind: RangeKind;
}
