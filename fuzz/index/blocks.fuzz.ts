/**
 * The block index beside a naive model: random requests, drops and questions, with everything
 * recomputed by check() after each step.
 *
 * `blocksProperty` takes the index as an argument, so that a test can hand it a broken one.
 */
import fc from 'fast-check';
import { BlockIndex, type BlockIndexOptions, type RangeKind } from '../../index/block-index.ts';
import type { BlockVersions } from '../../index/block-versions.ts';
import { SegmentReferences } from '../../index/segment-references.ts';
import { assert } from '../../src/base/assert.ts';
import {
  block,
  blockCount,
  checksum,
  generation,
  lsn,
  segmentSequence,
  type Generation,
} from '../../src/base/units.ts';
import type { Fuzzer } from '../options.ts';
import { BlockModel } from './block-model.ts';

/** Parts of a request are placed on the volume by these fractions, in 1/1024. */
interface Place {
  readonly at: number;
  readonly length: number;
}

type Step =
  | { readonly kind: 'write'; readonly place: Place; readonly skip: number }
  | { readonly kind: 'rewrite'; readonly at: number; readonly times: number }
  | { readonly kind: 'range'; readonly place: Place; readonly rangeKind: RangeKind }
  | { readonly kind: 'mixed'; readonly place: Place; readonly rangeKind: RangeKind }
  | { readonly kind: 'ranges'; readonly at: number; readonly times: number }
  | { readonly kind: 'drop'; readonly back: number; readonly versionsMax: number }
  | { readonly kind: 'segment' };

const fraction = fc.nat({ max: 1023 });
const place = fc.record({ at: fraction, length: fc.integer({ min: 1, max: 40 }) });
const anyPlace = fc.oneof(place, fc.record({ at: fraction, length: fraction.map((n) => n + 1) }));
const rangeKind = fc.constantFrom<RangeKind>(1, 2, 3);
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant('write' as const), place, skip: fc.nat({ max: 3 }) }),
  fc.record({
    kind: fc.constant('rewrite' as const),
    at: fraction,
    times: fc.integer({ min: 1, max: 40 }),
  }),
  fc.record({ kind: fc.constant('range' as const), place: anyPlace, rangeKind }),
  fc.record({ kind: fc.constant('mixed' as const), place, rangeKind }),
  fc.record({
    kind: fc.constant('ranges' as const),
    at: fraction,
    times: fc.integer({ min: 1, max: 100 }),
  }),
  fc.record({
    kind: fc.constant('drop' as const),
    back: fc.nat({ max: 60 }),
    versionsMax: fc.constantFrom(1, 5, 1000),
  }),
  fc.record({ kind: fc.constant('segment' as const) }),
);

interface Volume {
  readonly blocks: number;
  readonly generationFirst: number;
  readonly lsnFirst: number;
}

/** Small and huge volumes; generations and LSNs at both ends of what a number holds. */
const volume: fc.Arbitrary<Volume> = fc.record({
  blocks: fc.constantFrom(1, 60, 1024, 100_000, 2 ** 33, 2 ** 41),
  generationFirst: fc.constantFrom(1, 2 ** 31 - 20, 2 ** 32 - 20, 2 ** 40),
  lsnFirst: fc.constantFrom(0, 2 ** 43 - 4096 * 30, 2 ** 44 - 4096 * 30, 2 ** 52),
});

/** Both sides of one world, and the counters that feed them. */
class World {
  readonly index: BlockIndex;
  readonly model = new BlockModel();
  readonly segments = new SegmentReferences();
  readonly volume: Volume;
  newest: number;
  settled: number;
  #lsn: number;
  #sequence = 0;
  #sequenceOldest = 1;

  constructor(given: Volume, make: (options: BlockIndexOptions) => BlockIndex) {
    this.volume = given;
    this.newest = given.generationFirst - 1;
    this.settled = this.newest;
    this.#lsn = given.lsnFirst;
    this.openSegment();
    const blocks = blockCount(given.blocks);
    this.index = make({ blocks, segments: this.segments, versionFirst: 0x0fff_0000 });
  }

  /** Fractions are scaled, so that huge volumes are used at both ends; lengths are not. */
  extent({ at, length }: Place): { start: number; count: number } {
    const { blocks } = this.volume;
    const start = Math.floor((blocks * at) / 1024);
    // The longest range covers the whole volume.
    const count = length >= 1000 ? blocks : length;
    return length >= 1000 ? { start: 0, count } : { start, count: Math.min(count, blocks - start) };
  }

  openSegment(): void {
    this.#lsn += 4096;
    this.#sequence++;
    this.segments.open(segmentSequence(this.#sequence), lsn(this.#lsn));
  }

  put(where: number, at: number): void {
    this.#lsn += 4096;
    const sum = (this.#lsn / 4096 + where * 31) >>> 0;
    this.index.putBlock(block(where), generation(at), lsn(this.#lsn), checksum(sum));
    this.model.points.push({ block: where, generation: at, lsn: this.#lsn, checksum: sum });
  }

  putRange(start: number, count: number, at: number, kind: RangeKind): void {
    this.index.putRange(block(start), blockCount(count), generation(at), kind);
    this.model.ranges.push({ start, count, generation: at, kind });
  }

  drop(settled: number, versionsMax: number): void {
    while (!this.index.dropSome(generation(settled), versionsMax)) this.index.check();
    this.model.drop(settled);
    this.settled = Math.max(this.settled, settled);
    for (; this.#sequenceOldest < this.#sequence; this.#sequenceOldest++) {
      const oldest = segmentSequence(this.#sequenceOldest);
      if (this.segments.live(oldest) > 0) return;
      this.segments.drop(oldest);
    }
  }
}

function take(world: World, next: Step): void {
  const { blocks } = world.volume;
  switch (next.kind) {
    case 'write': {
      const { start, count } = world.extent(next.place);
      world.newest += 1 + next.skip;
      for (let where = start; where < start + count; where++) world.put(where, world.newest);
      return;
    }
    case 'rewrite': {
      const where = Math.floor((blocks * next.at) / 1024);
      for (let time = 0; time < next.times; time++) world.put(where, ++world.newest);
      return;
    }
    case 'range': {
      const { start, count } = world.extent(next.place);
      world.putRange(start, count, ++world.newest, next.rangeKind);
      return;
    }
    case 'mixed': {
      // A zero request with partial blocks at its ends: two points around a range.
      const { start, count } = world.extent(next.place);
      world.newest++;
      world.put(start, world.newest);
      if (count > 2) world.putRange(start + 1, count - 2, world.newest, next.rangeKind);
      if (count > 1) world.put(start + count - 1, world.newest);
      return;
    }
    case 'ranges': {
      for (let time = 0; time < next.times; time++) {
        const { start, count } = world.extent({ at: (next.at + time * 7) % 1024, length: 9 });
        world.putRange(start, count, ++world.newest, 1);
      }
      return;
    }
    case 'drop':
      world.drop(Math.max(world.newest - next.back, world.settled), next.versionsMax);
      return;
    case 'segment':
      world.openSegment();
  }
}

function found({ index }: World, where: number, at: number): string {
  const code = index.find(block(where), generation(at));
  if (code === 0) return 'none';
  if (code === 2) return `zero ${index.foundRangeKind} ${index.foundGeneration}`;
  return `data ${index.foundLsn} ${index.foundChecksum} ${index.foundGeneration}`;
}

/** Blocks that were touched, and their neighbours. */
function placesOf({ model, volume: { blocks } }: World): number[] {
  const places = new Set([0, blocks - 1]);
  for (const { block: where } of model.points) places.add(where).add(where + 1);
  for (const { start, count } of model.ranges) places.add(start).add(start + count);
  return [...places].filter((where) => where < blocks);
}

function compare(world: World, moment: number): void {
  const { model } = world;
  const at = Math.max(world.settled, world.newest - moment);
  for (const where of placesOf(world)) {
    for (const when of [at, world.newest]) {
      const got = found(world, where, when);
      const expected = model.find(where, when);
      assert(got === expected, `block ${where} at ${when}: got ${got}, expected ${expected}`);
    }
  }
  const newest = world.index.newestUpTo(generation(at));
  const points = model.newestUpTo(at);
  assert(newest.length === points.length, 'a round gets as many versions as the model');
  for (const [row, point] of points.entries()) {
    assert(newest.blocks[row] === point.block, 'a round gets the blocks of the model, in order');
    assert(newest.lsns[row] === point.lsn, 'a round gets the LSNs of the model');
    assert(newest.generations[row] === point.generation, 'a round gets the right generations');
    assert(newest.checksums[row] === point.checksum, 'a round gets the right checksums');
  }
  const ranges = model.ranges.filter((range) => range.generation <= at);
  assert(
    JSON.stringify(world.index.rangesUpTo(generation(at))) === JSON.stringify(ranges),
    'a round gets the range records of the model',
  );
  assert(world.index.versions === model.points.length, 'the index counts its versions');
  assert(world.index.rangeRecords === model.ranges.length, 'the index counts its records');
}

/** The versions of some blocks, page by page, against all that was ever put there. */
function compareVersions(world: World, moment: number, limit: number): void {
  const { index, model } = world;
  const at = Math.max(world.settled, world.newest - moment);
  const places = placesOf(world);
  for (let i = 0; i < Math.min(places.length, 30); i++) {
    const where = places[(moment + i * 7) % places.length] ?? 0;
    for (const when of [at, world.newest]) {
      const got: string[] = [];
      for (let next: Generation | undefined = generation(when); next !== undefined;) {
        const page: BlockVersions = index.versionsOf(block(where), next, limit);
        assert(page.versions.length <= limit, 'a page is within its limit');
        for (const {
          generation: made,
          found: kind,
          rangeKind: zeros,
          requestBlocks,
        } of page.versions)
          got.push(`${kind === 1 ? 'data' : `zero ${zeros}`} ${made} ${requestBlocks}`);
        next = page.next;
      }
      const expected = model.versionsOf(where, when);
      assert(
        got.join() === expected.join(),
        `versions of block ${where} at ${when}: got ${got.join()}, expected ${expected.join()}`,
      );
    }
  }
}

/** Runs, in pieces of random limits, against single looks at both ends of each run. */
function compareRuns(world: World, moment: number, limits: number): void {
  const { model, index } = world;
  const at = Math.max(world.settled, world.newest - moment);
  const since = Math.max(world.settled, at - moment);
  const places = placesOf(world);
  const begin = Math.max(0, (places[(moment * limits) % places.length] ?? 0) - 50);
  const count = Math.min(world.volume.blocks - begin, 2000);
  const walk = { runsMax: limits, probesMax: limits * 10 };
  for (let from = begin; from < begin + count;) {
    const left = blockCount(begin + count - from);
    const { runs, next } = index.runs(block(from), left, generation(at), walk);
    assert(next > from && runs.length <= limits, 'a walk gets somewhere, within its limits');
    for (const run of runs) {
      assert(run.start === from, 'runs adjoin');
      for (let where: number = run.start; where < run.start + run.count; where++) {
        const [expected, kind] = model.find(where, at).split(' ');
        const got = ['none', 'data', 'zero'][run.found];
        assert(expected === got, `block ${where} at ${at}: got ${got}, expected ${expected}`);
        if (got === 'zero') assert(kind === String(run.rangeKind), 'the kind is right');
      }
      from = run.start + run.count;
    }
    assert(from === next, 'runs end at next');
  }
  const { runs } = index.changed(
    block(begin),
    blockCount(count),
    generation(since),
    generation(at),
    { runsMax: 10_000, probesMax: 10_000 },
  );
  for (const { start, count: length, changed } of runs) {
    for (let where: number = start; where < start + length; where++) {
      assert(model.isChanged(where, since, at) === changed, `block ${where}: changed`);
    }
  }
}

/**
 * @param make - the index under test
 * @param onStep - told of each step
 */
export function blocksProperty(
  make: (options: BlockIndexOptions) => BlockIndex,
  onStep?: () => void,
): fc.IProperty<[Volume, Step[], number, number]> {
  return fc.property(
    volume,
    fc.array(step, { maxLength: 30, size: 'max' }),
    fc.nat({ max: 150 }),
    fc.integer({ min: 1, max: 20 }),
    (given, steps, moment, limits) => {
      const world = new World(given, make);
      for (const next of steps) {
        onStep?.();
        take(world, next);
        world.index.check();
        compare(world, moment);
      }
      compareRuns(world, moment, limits);
      compareVersions(world, moment, limits);
    },
  );
}

export const fuzzer: Fuzzer = {
  name: 'index-blocks',
  main({ seed, runs, onStep }) {
    fc.assert(
      blocksProperty((options) => new BlockIndex(options), onStep),
      { seed, numRuns: runs },
    );
  },
};
