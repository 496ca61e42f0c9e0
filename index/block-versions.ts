/**
 * The versions of one block, newest first: what was put to the block itself and what was put over
 * ranges, merged. A page costs a few looks into the index for each version that it names.
 *
 * Invariants:
 *   - Generations strictly decrease along a page, and from one page to the next.
 *   - The first version of a page is what `find` gives at the same generation.
 */
import { assert } from '../src/base/assert.ts';
import {
  blockCount,
  generation as toGeneration,
  type Block,
  type BlockCount,
  type Generation,
} from '../src/base/units.ts';
import type { BlockTable } from './block-table.ts';
import { FOUND_DATA, FOUND_ZERO, RANGE_TRIM, type RangeKind } from './found.ts';
import type { RangeHistory } from './range-history.ts';
import { NO_VERSION, type VersionStore } from './version-store.ts';

export interface BlockVersion {
  readonly generation: Generation;
  readonly found: typeof FOUND_DATA | typeof FOUND_ZERO;
  /** Of zeros; RANGE_TRIM, without a meaning, for data. */
  readonly rangeKind: RangeKind;
  /** How many blocks the request changed that made it; one covered in part counts whole. */
  readonly requestBlocks: BlockCount;
}

export interface BlockVersions {
  readonly versions: readonly BlockVersion[];
  /** Where the next page begins; undefined: there is no older version in the window. */
  readonly next: Generation | undefined;
}

export interface Listed {
  readonly block: Block;
  /** The newest generation that is asked for. */
  readonly at: Generation;
  readonly versionsMax: number;
  readonly store: VersionStore;
  readonly table: BlockTable;
  readonly ranges: RangeHistory;
}

export function blockVersions(listed: Listed): BlockVersions {
  const { block, at, versionsMax, store, table, ranges } = listed;
  assert(versionsMax > 0, 'a page has room for a version');
  const versions: BlockVersion[] = [];
  const newest = table.get(block);
  let point = newest === NO_VERSION ? NO_VERSION : store.newestAt(newest, at);
  let inRange = ranges.find(block, at);
  while (point !== NO_VERSION || inRange) {
    const pointGeneration = point === NO_VERSION ? -1 : store.generationOf(point);
    const rangeGeneration = inRange ? ranges.foundGeneration : -1;
    const rangeKind = ranges.foundKind;
    assert(pointGeneration !== rangeGeneration, 'a request changes a block once');
    const isPoint = pointGeneration > rangeGeneration;
    const generation = toGeneration(Math.max(pointGeneration, rangeGeneration));
    if (versions.length === versionsMax) return { versions, next: generation };
    versions.push({
      generation,
      found: isPoint ? FOUND_DATA : FOUND_ZERO,
      rangeKind: isPoint ? RANGE_TRIM : rangeKind,
      requestBlocks: requestBlocks(listed, generation),
    });
    if (isPoint) {
      const replaced = store.replacedBy(point);
      point = store.isLive(replaced) ? replaced : NO_VERSION;
    } else {
      inRange = ranges.find(block, toGeneration(rangeGeneration - 1));
    }
  }
  return { versions, next: undefined };
}

function requestBlocks({ store, ranges }: Listed, generation: Generation): BlockCount {
  const before = toGeneration(generation - 1);
  const points = store.countUpTo(generation) - store.countUpTo(before);
  return blockCount(points + ranges.blocksOf(generation));
}
