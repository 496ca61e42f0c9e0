/** Blocks that could not be read, as what reads them and who asked for them say it. Pure. */
import type { VarveError } from '../base/errors.ts';
import {
  block as blockOf,
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  type Block,
  type Generation,
} from '../base/units.ts';
import {
  clippedRanges,
  mergedRanges,
  UnreadableError,
  type UnreadableCode,
  type UnreadableRange,
} from '../base/unreadable.ts';
import type { Sum } from '../format/sums.ts';
import type { Version } from './other-copies.ts';

/** A block whose copy is damaged. */
export interface BadBlock {
  readonly block: Block;
  readonly why: string;
  readonly code: UnreadableCode;
  /** What it should be, where that is known. */
  readonly version: Version | undefined;
}

/** Of a read that failed as a whole. */
export function allBlocks(
  first: Block,
  count: number,
  { detail }: VarveError,
): readonly UnreadableRange[] {
  const [offset, length] = [byteOffset(first * BLOCK_BYTES), byteCount(count * BLOCK_BYTES)];
  return [{ offset, length, why: detail }];
}

/** Blocks as ranges of bytes, cut to what was asked for: [from, to). */
export function unreadable(bad: readonly BadBlock[], from: number, to: number): UnreadableError {
  const ranges = bad.map(({ block, why }) => ({
    offset: byteOffset(block * BLOCK_BYTES),
    length: byteCount(BLOCK_BYTES),
    why,
  }));
  const code = bad.every((one) => one.code === 'DEVICE_IO') ? 'DEVICE_IO' : 'BLOCK_CORRUPT';
  return new UnreadableError(code, clippedRanges(mergedRanges(ranges), from, to));
}

/** Blocks of final storage that went past the moment: the moment's own content is gone. */
export function newerThan(sums: readonly Sum[], first: Block, at: Generation): readonly BadBlock[] {
  const bad: BadBlock[] = [];
  sums.forEach(({ generation }, i) => {
    if (generation <= at) return;
    const block = blockOf(first + i);
    const why = `block ${block}: final storage has generation ${generation}, later than ${at}`;
    bad.push({ block, why, code: 'BLOCK_CORRUPT', version: undefined });
  });
  return bad;
}
