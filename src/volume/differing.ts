/**
 * What has to be put so that the disk is again as it was at a moment: pieces in block order, of
 * data, or of zeros of one kind.
 *
 * Invariants:
 *   - A piece is of blocks that have a version after the moment, up to the bound, and none later:
 *     what is later was put by the rollback itself, and is right already.
 *   - Data, trims, zeros, and zeros that stay allocated are kept apart.
 *   - What is put is zeros only where home was read and has zeros, or the log or a before-image say so.
 *   - Memory is bounded: a piece of data has at most `dataBlocksMax` blocks, and a step through the
 *     index looks at so many blocks at most.
 *
 * The moment is pinned by the caller.
 */
import {
  block as blockOf,
  blockCount,
  type Block,
  type BlockCount,
  type Generation,
} from '../base/units.ts';
import { FOUND_DATA, FOUND_NONE, FOUND_ZERO, type RangeKind } from '../../index/found.ts';
import type { ChangedRun, Run } from '../../index/run-walk.ts';
import { changedRuns } from './changed.ts';
import type { Core } from './core.ts';
import { homeKinds, type BlockKind, type ZerosBy } from './home-kinds.ts';
import { LATEST } from './reader.ts';

/** Steps through the index: some milliseconds each. */
const LIMITS = { runsMax: 1024, probesMax: 65_536 };
/** Checksums of final storage looked at in one go. */
const SUMS_MAX = 4096;

export interface Piece {
  readonly kind: BlockKind;
  readonly first: Block;
  readonly count: BlockCount;
}

export interface DifferingQuery {
  /** The moment that comes back. */
  readonly target: Generation;
  /** Generations up to this one are undone. */
  readonly bound: Generation;
  readonly dataBlocksMax: number;
  /** `content` for whoever puts the pieces, or verifies them: the sums alone for who counts. */
  readonly zerosBy: ZerosBy;
}

/** Pieces in block order; neighbours of one kind are one, as far as that goes. */
export async function* differing(core: Core, query: DifferingQuery): AsyncGenerator<Piece> {
  let last: Piece | undefined;
  for await (const piece of unmerged(core, query)) {
    const isNext = last !== undefined && last.first + last.count === piece.first;
    if (last !== undefined && isNext && last.kind === piece.kind) {
      last = { ...last, count: blockCount(last.count + piece.count) };
    } else {
      if (last !== undefined) yield last;
      last = piece;
    }
    while (last.kind === 'data' && last.count > query.dataBlocksMax) {
      const count = blockCount(query.dataBlocksMax);
      yield { ...last, count };
      last = { ...last, first: blockOf(last.first + count), count: blockCount(last.count - count) };
    }
  }
  if (last !== undefined) yield last;
}

async function* unmerged(core: Core, query: DifferingQuery): AsyncGenerator<Piece> {
  const { target, bound } = query;
  for (let at = blockOf(0); at < core.blocks;) {
    const rest = blockCount(core.blocks - at);
    const asked = { first: at, count: rest, since: target, at: bound };
    const { runs, next } = await changedRuns(core, asked, LIMITS);
    for (const { start, count, changed } of runs) {
      if (changed) yield* notYetBack(core, query, start, count);
    }
    at = next;
    await core.yieldTurn();
  }
}

/** Leaves out what has a version that is later than the bound. */
async function* notYetBack(
  core: Core,
  query: DifferingQuery,
  start: Block,
  count: BlockCount,
): AsyncGenerator<Piece> {
  const step: Step<ChangedRun> = (at, rest) =>
    core.index.changed(at, rest, query.bound, LATEST, LIMITS);
  for (const run of inSteps(start, count, step)) {
    if (!run.changed) yield* asItWas(core, query, run.start, run.count);
  }
}

/** What the blocks were at the moment. */
async function* asItWas(
  core: Core,
  query: DifferingQuery,
  start: Block,
  count: BlockCount,
): AsyncGenerator<Piece> {
  const step: Step<Run> = (at, rest) => core.index.runs(at, rest, query.target, LIMITS);
  for (const run of inSteps(start, count, step)) {
    const part = { first: run.start, count: run.count };
    if (run.found === FOUND_DATA) yield { kind: 'data', ...part };
    else if (run.found === FOUND_NONE) yield* asAtHome(core, query, run.start, run.count);
    else yield* otherZeros(core, query, { kind: run.rangeKind, ...part });
  }
}

/** Nothing in the window: final storage tells, by its sums or by what it holds. */
async function* asAtHome(
  core: Core,
  query: DifferingQuery,
  start: Block,
  count: BlockCount,
): AsyncGenerator<Piece> {
  const end = start + count;
  for (let at: number = start; at < end; at += SUMS_MAX) {
    const part = Math.min(SUMS_MAX, end - at);
    const { target, zerosBy } = query;
    const asked = { first: blockOf(at), count: part, at: target, zerosBy };
    const kinds = await homeKinds(core, asked);
    for (let i = 0; i < part;) {
      const kind = kinds[i] ?? 'data';
      let after = i + 1;
      while (after < part && kinds[after] === kind) after += 1;
      const piece = { kind, first: blockOf(at + i), count: blockCount(after - i) };
      if (piece.kind === 'data') yield piece;
      else yield* otherZeros(core, query, { ...piece, kind: piece.kind });
      i = after;
    }
  }
}

/** Of zeros those that are something else now: a trimmed disk is not trimmed again. */
async function* otherZeros(
  core: Core,
  query: DifferingQuery,
  { kind, first, count }: Piece & { readonly kind: RangeKind },
): AsyncGenerator<Piece> {
  const step: Step<Run> = (at, rest) => core.index.runs(at, rest, query.bound, LIMITS);
  for (const run of inSteps(first, count, step)) {
    const isSame = run.found === FOUND_ZERO && run.rangeKind === kind;
    if (!isSame) yield { kind, first: run.start, count: run.count };
  }
}

type Step<R> = (
  at: Block,
  rest: BlockCount,
) => { readonly runs: readonly R[]; readonly next: Block };

/** All runs of a part of the disk. */
function* inSteps<R>(first: Block, count: BlockCount, step: Step<R>): Generator<R> {
  const end = first + count;
  for (let at = first; at < end;) {
    const { runs, next } = step(at, blockCount(end - at));
    yield* runs;
    at = next;
  }
}
