/** What a device was asked to change, as history keeps it: the material of `src/explore`. */
import type { Block, BlockCount, Generation, Micros } from '../base/units.ts';

/** Adjacent blocks that a request changed in one way. */
export interface RequestPart {
  readonly start: Block;
  readonly count: BlockCount;
  /** CRC32C of each block's new content; undefined: they read as zeros since. */
  readonly crcs: readonly number[] | undefined;
}

/** One mutating request; its parts are disjoint, and none is empty. */
export interface RequestRecord {
  readonly generation: Generation;
  /** When its batch was sealed. */
  readonly wallUs: Micros;
  readonly fua: boolean;
  readonly parts: readonly RequestPart[];
}

export interface RequestPage {
  /** In generation order, without a gap. */
  readonly requests: readonly RequestRecord[];
  /** Generations of flushes among them: each covers all requests up to it. */
  readonly flushes: readonly Generation[];
  /** Whether the last one that was asked for is among them. */
  readonly isEnd: boolean;
}
