/**
 * What a round of destaging writes: for each block its newest version at or before a generation.
 *
 * Invariants:
 *   - Blocks strictly increase: one version a block, in the order of final storage.
 *   - No range at or before the generation is newer than a version that is listed.
 *   - Between two steps versions may be added, but none dropped.
 */
import { assert } from '../src/base/assert.ts';
import { block as toBlock, type Generation } from '../src/base/units.ts';
import { sortedOrder } from './radix-sort.ts';
import type { RangeHistory } from './range-history.ts';
import type { VersionStore } from './version-store.ts';

/** Parallel columns; row n of each is one version. */
export interface NewestVersions {
  readonly length: number;
  readonly blocks: Float64Array;
  readonly lsns: Float64Array;
  readonly generations: Float64Array;
  readonly checksums: Uint32Array;
}

/** Rows a step, some milliseconds of work. */
const STEP_ROWS = 32_768;

/** Yields every few milliseconds of work; what is returned is as of the first step. */
export function* newestVersions(
  store: VersionStore,
  ranges: RangeHistory,
  target: Generation,
): Generator<undefined, NewestVersions> {
  const front = store.front;
  const state = ranges.stateAt(target).clone();
  const ordinals = yield* notReplaced(store, store.countUpTo(target));
  const keys = new Float64Array(ordinals.length);
  for (let row = 0; row < keys.length; row++) {
    if (row % STEP_ROWS === 0) yield undefined;
    keys[row] = store.blockOf(store.at(ordinals[row]!));
  }
  const order = yield* sortedOrder(keys);
  const blocks = new Float64Array(keys.length);
  const lsns = new Float64Array(keys.length);
  const generations = new Float64Array(keys.length);
  const checksums = new Uint32Array(keys.length);
  let length = 0;
  let spanEnd = 0;
  let rangeGeneration = -1;
  for (let position = 0; position < order.length; position++) {
    if (position % STEP_ROWS === 0) yield undefined;
    const row = order[position]!;
    const version = store.at(ordinals[row]!);
    const block = toBlock(keys[row]!);
    const generation = store.generationOf(version);
    if (block >= spanEnd) {
      rangeGeneration = ranges.spanAt(state, block) ? ranges.foundGeneration : -1;
      spanEnd = ranges.foundEnd;
    }
    if (rangeGeneration > generation) continue;
    blocks[length] = block;
    lsns[length] = store.lsnOf(version);
    generations[length] = generation;
    checksums[length] = store.checksumOf(version);
    length++;
  }
  assert(store.front === front || order.length === 0, 'no version is dropped during a round');
  return {
    length,
    blocks: blocks.subarray(0, length),
    lsns: lsns.subarray(0, length),
    generations: generations.subarray(0, length),
    checksums: checksums.subarray(0, length),
  };
}

/** @returns the ordinals, below `count`, of versions that none below `count` replaced */
function* notReplaced(store: VersionStore, count: number): Generator<undefined, Uint32Array> {
  const replaced = new Uint8Array(count);
  let kept = count;
  for (let ordinal = 0; ordinal < count; ordinal++) {
    if (ordinal % STEP_ROWS === 0) yield undefined;
    const before = store.replacedBy(store.at(ordinal));
    if (!store.isLive(before)) continue;
    replaced[store.ordinalOf(before)] = 1;
    kept--;
  }
  const ordinals = new Uint32Array(kept);
  let row = 0;
  for (let ordinal = 0; ordinal < count; ordinal++) {
    if (replaced[ordinal] === 0) ordinals[row++] = ordinal;
  }
  return ordinals;
}
