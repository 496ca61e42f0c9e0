/** The timeline beside a list of every write, with a wall clock that jumps in both directions. */
import fc from 'fast-check';
import { Timeline } from '../../index/timeline.ts';
import { assert } from '../../src/base/assert.ts';
import { byteCount, generation, micros } from '../../src/base/units.ts';
import type { Fuzzer } from '../options.ts';

/** Points are at least this far apart. */
const POINT_US = 10_000;

interface Write {
  readonly generation: number;
  readonly wallUs: number;
  readonly elapsedUs: number;
}

const pauseUs = fc.oneof(fc.nat({ max: 15_000 }), fc.nat({ max: 5_000_000 }));
const setUs = fc.oneof(
  { weight: 8, arbitrary: fc.constant(0) },
  { weight: 1, arbitrary: fc.integer({ min: -9_000, max: 9_000 }) },
  { weight: 1, arbitrary: fc.integer({ min: -20_000_000, max: 20_000_000 }) },
);
const step = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({ kind: fc.constant('write' as const), pauseUs, setUs }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('flush' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('drop' as const), part: fc.nat({ max: 100 }) }),
  },
);

/** What may be told of a time: the model's answer, give or take what one point merges. */
function checkElapsed(timeline: Timeline, writes: readonly Write[], askedUs: number): void {
  const got = timeline.newestAtElapsed(micros(askedUs));
  const newest = writes.findLast(({ elapsedUs }) => elapsedUs <= askedUs);
  const least = writes.findLast(({ elapsedUs }) => elapsedUs <= askedUs - 2 * POINT_US);
  if (got === undefined) {
    assert(least === undefined, 'a time inside of the window has a generation');
    return;
  }
  assert(newest !== undefined && got <= newest.generation, 'no generation from after the time');
  assert(least === undefined || got >= least.generation, 'no generation from long before it');
  assert(
    writes.some((write) => write.generation === got),
    'only a generation of the window',
  );
}

function checkWall(timeline: Timeline, writes: readonly Write[], askedUs: number): void {
  const all = timeline.newestAtWall(micros(askedUs));
  for (const [place, got] of all.entries()) {
    if (place > 0) assert(got > (all[place - 1] ?? 0), 'several generations are told in order');
    const write = writes.find((candidate) => candidate.generation === got);
    assert(write !== undefined, 'only a generation of the window');
    // A small step back keeps the time of before it, and many may add up to one point.
    assert(write.wallUs <= askedUs + POINT_US, 'no generation from after the time');
  }
  // A write at least two points before another, between which the clock went on, is told of.
  for (const [place, write] of writes.entries()) {
    const next = writes[place + 1];
    if (next === undefined || place === 0) continue;
    const isBetween = write.wallUs + POINT_US < askedUs && askedUs < next.wallUs - POINT_US;
    const isAlone = next.elapsedUs - write.elapsedUs > POINT_US;
    if (isBetween && isAlone) assert(all.includes(generation(write.generation)), 'a stay is told');
  }
}

function checkIntervals(timeline: Timeline, writes: readonly Write[]): void {
  const walls = writes.map(({ wallUs }) => wallUs);
  const fromWallUs = micros(Math.min(...walls) - 1);
  const toWallUs = micros(Math.max(...walls) + POINT_US * 2);
  const intervals = timeline.intervals({ fromWallUs, toWallUs, count: 7 });
  let before = writes[0]?.generation ?? 0;
  let count = 0;
  for (const interval of intervals) {
    assert(interval.generation >= before, 'history goes forward');
    assert(interval.writes >= 0 && interval.bytes >= 0 && interval.flushes >= 0, 'nothing undone');
    assert(interval.trims >= 0 && interval.trimmedBytes >= 0, 'nothing undone');
    before = interval.generation;
    count += interval.writes + interval.trims;
  }
  assert(before === writes.at(-1)?.generation, 'history ends at the newest generation');
  // The horizon's point may have been inside a merged one.
  const span = (writes.at(-1)?.generation ?? 0) - (writes[0]?.generation ?? 0);
  assert(count >= span, 'every write of the window is in one interval');
}

export const fuzzer: Fuzzer = {
  name: 'index-timeline',
  main({ seed, runs, onStep }) {
    const property = fc.property(
      fc.array(step, { maxLength: 120, size: 'max' }),
      fc.nat({ max: 1000 }),
      (steps, asked) => {
        const timeline = new Timeline();
        let writes: Write[] = [];
        let flushes: number[] = [];
        let now: Write = { generation: 40, wallUs: 1e15, elapsedUs: 0 };
        const write = (): void => {
          writes.push(now);
          timeline.add({
            generation: generation(now.generation),
            wallUs: micros(now.wallUs),
            elapsedUs: micros(now.elapsedUs),
            payloadBytes: byteCount(now.generation * 4096),
            requests: now.generation,
            trims: Math.floor(now.generation / 3),
            trimmedBytes: byteCount(Math.floor(now.generation / 3) * 8192),
          });
        };
        write();
        for (const next of steps) {
          onStep?.();
          if (next.kind === 'write') {
            now = {
              generation: now.generation + 1,
              wallUs: now.wallUs + next.pauseUs + next.setUs,
              elapsedUs: now.elapsedUs + next.pauseUs,
            };
            write();
          } else if (next.kind === 'flush') {
            timeline.addFlush(generation(now.generation));
            if (flushes.at(-1) !== now.generation) flushes.push(now.generation);
          } else {
            const horizon = writes[Math.floor(((writes.length - 1) * next.part) / 100)];
            assert(horizon !== undefined, 'the window holds its horizon');
            timeline.drop(generation(horizon.generation));
            writes = writes.filter((old) => old.generation >= horizon.generation);
            flushes = flushes.filter((old) => old >= horizon.generation);
            if (horizon !== now) {
              assert(timeline.first?.generation === horizon.generation, 'the horizon is first');
            }
          }
          timeline.check();
        }
        const spanUs = now.elapsedUs - (writes[0]?.elapsedUs ?? 0);
        checkElapsed(timeline, writes, now.elapsedUs - (spanUs * asked) / 1000);
        const some = writes[asked % writes.length];
        if (some !== undefined) checkWall(timeline, writes, some.wallUs + asked * 100);
        checkIntervals(timeline, writes);
        for (const n of [1, 2, 5]) {
          const got = timeline.flushFromEnd(n, generation(now.generation));
          assert(got === flushes.at(-n), 'flushes count from the end');
        }
      },
    );
    fc.assert(property, { seed, numRuns: runs });
  },
};
