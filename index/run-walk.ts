/**
 * Runs of blocks that read alike at one generation: for block status, and for what changed between
 * two generations. Empty regions and whole fragments are one step, not one step a block.
 *
 * Invariants:
 *   - The runs are in block order, adjoin, begin at `start` and end at `next`; neighbours differ.
 *   - At least one block is reported when there is one, so a caller that goes on at `next` ends.
 */
import { assert } from '../src/base/assert.ts';
import {
  block as toBlock,
  blockCount,
  type Block,
  type BlockCount,
  type Generation,
} from '../src/base/units.ts';
import type { BlockTable } from './block-table.ts';
import {
  FOUND_DATA,
  FOUND_NONE,
  FOUND_ZERO,
  RANGE_ALLOCATE,
  RANGE_TRIM,
  RANGE_ZERO,
  type Found,
  type RangeKind,
} from './found.ts';
import type { RangeHistory } from './range-history.ts';
import type { RegionCounts } from './region-counts.ts';
import { NO_VERSION, type VersionStore } from './version-store.ts';

export interface WalkLimits {
  /** Stop before a run more than this. */
  readonly runsMax: number;
  /** Stop after looking this often; a look costs about a tenth of a microsecond. */
  readonly probesMax: number;
}

export interface Run {
  readonly start: Block;
  readonly count: BlockCount;
  readonly found: Found;
  /** Of zeros; RANGE_TRIM, without a meaning, for the others. */
  readonly rangeKind: RangeKind;
}

export interface Runs {
  readonly runs: readonly Run[];
  /** The first block that was not looked at. */
  readonly next: Block;
}

export interface ChangedRun {
  readonly start: Block;
  readonly count: BlockCount;
  readonly changed: boolean;
}

export interface Changed {
  readonly runs: readonly ChangedRun[];
  /** The first block that was not looked at. */
  readonly next: Block;
}

export interface Walked {
  readonly start: Block;
  readonly count: BlockCount;
  readonly at: Generation;
  readonly store: VersionStore;
  readonly table: BlockTable;
  readonly ranges: RangeHistory;
  readonly regions: RegionCounts;
}

/** Instead of a generation, where there is no version. */
const NEVER = -1;

/** Neighbouring blocks with one tag are one run. */
type TagOf = (pointGeneration: number, rangeGeneration: number, rangeKind: RangeKind) => number;

const TAG_NONE = 0;
/** Tags of zeros are those of their kinds: 1, 2, 3. */
const TAG_DATA = 4;

export function walkRuns(walked: Walked, limits: WalkLimits): Runs {
  const { runs, next } = walk(walked, limits, (point, range, kind) => {
    if (point === NEVER && range === NEVER) return TAG_NONE;
    return point >= range ? TAG_DATA : kind;
  });
  return { runs: runs.map(runOf), next };
}

export function walkChanged(walked: Walked, since: Generation, limits: WalkLimits): Changed {
  const { runs, next } = walk(walked, limits, (point, range) => {
    return point > since || range > since ? 1 : 0;
  });
  return {
    runs: runs.map(({ start, count, tag }) => ({ start, count, changed: tag === 1 })),
    next,
  };
}

function runOf({ start, count, tag }: TaggedRun): Run {
  switch (tag) {
    case TAG_NONE:
      return { start, count, found: FOUND_NONE, rangeKind: RANGE_TRIM };
    case TAG_DATA:
      return { start, count, found: FOUND_DATA, rangeKind: RANGE_TRIM };
    case RANGE_TRIM:
    case RANGE_ZERO:
    case RANGE_ALLOCATE:
      return { start, count, found: FOUND_ZERO, rangeKind: tag };
    default:
      assert(false, 'a tag is none, data or a range kind');
  }
}

interface TaggedRun {
  readonly start: Block;
  readonly count: BlockCount;
  readonly tag: number;
}

interface TaggedRuns {
  readonly runs: readonly TaggedRun[];
  readonly next: Block;
}

function walk(walked: Walked, { runsMax, probesMax }: WalkLimits, tagOf: TagOf): TaggedRuns {
  assert(runsMax > 0 && probesMax > 0, 'a walk gets somewhere');
  const { start, count, at, ranges, regions } = walked;
  const runs: TaggedRun[] = [];
  const end = start + count;
  const state = ranges.stateAt(at);
  let runStart: Block = start;
  let runTag = NEVER;
  let position: Block = start;
  let probes = 0;
  while (position < end && probes < probesMax) {
    const covered = ranges.spanAt(state, position);
    const spanEnd = Math.min(ranges.foundEnd, end);
    const rangeGeneration = covered ? ranges.foundGeneration : NEVER;
    const rangeKind = covered ? ranges.foundKind : RANGE_TRIM;
    for (; position < spanEnd && probes < probesMax; probes++) {
      let pointGeneration = NEVER;
      let next = position + 1;
      if (regions.isEmptyAt(position)) next = Math.min(regions.endOf(position), spanEnd);
      else pointGeneration = pointAt(walked, position);
      const tag = tagOf(pointGeneration, rangeGeneration, rangeKind);
      if (tag !== runTag) {
        if (runTag !== NEVER) runs.push(taggedRun(runStart, position, runTag));
        if (runs.length === runsMax) return { runs, next: position };
        runStart = position;
        runTag = tag;
      }
      position = toBlock(next);
    }
  }
  if (position > runStart) runs.push(taggedRun(runStart, position, runTag));
  return { runs, next: position };
}

function taggedRun(start: Block, end: Block, tag: number): TaggedRun {
  return { start, count: blockCount(end - start), tag };
}

/** @returns the generation of the newest version of the block itself, or NEVER */
function pointAt({ store, table, at }: Walked, block: Block): number {
  let version = table.get(block);
  if (version !== NO_VERSION) version = store.newestAt(version, at);
  return version === NO_VERSION ? NEVER : store.generationOf(version);
}
