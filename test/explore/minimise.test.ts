/** Delta debugging on planted predicates: the least is found, and named for what it is. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { CrashState } from '../../src/explore/crash-state.ts';
import { isAllowed, prefixState, subsetState } from '../../src/explore/crash-state.ts';
import { covers, explain, type Tester } from '../../src/explore/explain.ts';
import { minimise } from '../../src/explore/minimise.ts';
import { planStates } from '../../src/explore/plan.ts';
import { stretchOf, type SmallRequest } from './disks.ts';

const subset = (count: number): fc.Arbitrary<number[]> =>
  fc.uniqueArray(fc.nat(count - 1), { maxLength: 5 }).map((list) => list.toSorted((a, b) => a - b));

describe('delta debugging', () => {
  it('finds the only least set, whatever it is', async () => {
    await fc.assert(
      fc.asyncProperty(subset(40), async (needed) => {
        const items = Array.from({ length: 40 }, (_, at) => at);
        let tests = 0;
        const found = await minimise(items, async (parts) => {
          tests += parts.length;
          return parts.find((part) => needed.every((at) => part.includes(at)));
        });
        expect(found).toEqual(needed);
        expect(tests).toBeLessThan(400);
      }),
      { numRuns: 200 },
    );
  });

  it('leaves nothing out that can be, where several sets would do', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(subset(20), { minLength: 1, maxLength: 4 }), async (all) => {
        const fails = (part: readonly number[]): boolean =>
          all.some((needed) => needed.every((at) => part.includes(at)));
        const items = Array.from({ length: 20 }, (_, at) => at);
        const found = await minimise(items, async (parts) => parts.find(fails));
        expect(fails(found)).toBe(true);
        for (const left of found) expect(fails(found.filter((at) => at !== left))).toBe(false);
      }),
      { numRuns: 200 },
    );
  });
});

const write = (start: number, fua = false): SmallRequest => ({
  fua,
  parts: [{ start, contents: [start + 1] }],
});

function testerOf(fails: (state: CrashState) => boolean): Tester {
  return { firstFailing: async (states) => states.find(fails) };
}

describe('the explanation of a state that fails', () => {
  it('names what is missing and what is there, of a planted bug of order', async () => {
    const cases = fc.record({
      count: fc.integer({ min: 3, max: 24 }),
      seed: fc.nat(),
      fua: fc.nat(30),
    });
    await fc.assert(
      fc.asyncProperty(cases, async ({ count, seed, fua }) => {
        // The bug: `later` counts on `early`, and nothing sees to it that it is there first.
        const early = seed % (count - 1);
        const later = early + 1 + (seed % (count - early - 1));
        const requests = Array.from({ length: count }, (_, at) =>
          write(at, at === fua && at !== early),
        );
        const stretch = stretchOf(requests, []);
        const fails = ({ present }: CrashState): boolean =>
          present.includes(later) && !present.includes(early);
        const { states } = planStates(stretch, { statesMax: 300, seed, torn: false });
        const failing = states.filter(fails);
        expect(failing.length).toBeGreaterThan(0);
        for (const state of failing) {
          const found = await explain(stretch, state, testerOf(fails));
          expect(found.kind).toBe('missing');
          expect(found.missing).toEqual([early]);
          const free = found.present.filter((at) => requests[at]?.fua !== true || at === later);
          expect(free).toEqual([later]);
          expect(isAllowed(stretch, found.witness)).toBe(true);
          expect(fails(found.witness)).toBe(true);
          for (const other of failing) expect(covers(found, other)).toBe(true);
        }
      }),
      { numRuns: 100 },
    );
  });

  it('names the request after which every prefix fails, in whatever epoch it is', async () => {
    const stretch = stretchOf(
      Array.from({ length: 20 }, (_, at) => write(at)),
      [4, 8, 12, 16],
    );
    const fails = ({ epoch, present }: CrashState): boolean =>
      epoch.first > 9 || (present.includes(9) && epoch.first <= 9);
    const [epoch, last] = [stretch.epochs[2], stretch.epochs[4]];
    if (epoch === undefined || last === undefined) throw new Error('five epochs');
    for (const state of [prefixState(epoch, 12), subsetState(last, []), subsetState(last, [17])]) {
      const found = await explain(stretch, state, testerOf(fails));
      expect(found).toMatchObject({ kind: 'prefix', missing: [], present: [9] });
      expect(found.epoch.index).toBe(2);
      expect(covers(found, subsetState(last, [18]))).toBe(true);
      expect(covers(found, subsetState(epoch, [8]))).toBe(false);
    }
  });

  it('blames what came before a flush when nothing after it is needed', async () => {
    const stretch = stretchOf([write(0), write(1), write(2), write(3)], [2]);
    const fails = ({ epoch, present }: CrashState): boolean =>
      epoch.index === 0 ? present.includes(1) : !present.includes(2);
    const epoch = stretch.epochs[1];
    if (epoch === undefined) throw new Error('two epochs');
    const found = await explain(stretch, subsetState(epoch, [3]), testerOf(fails));
    expect(found).toMatchObject({ kind: 'prefix', missing: [], present: [1] });
  });

  it('blames a tear only when the whole request passes, there or not', async () => {
    const stretch = stretchOf([write(0), write(1), write(2)], []);
    const { states } = planStates(stretch, { statesMax: 100, seed: 1, torn: true });
    const torn = (state: CrashState): boolean =>
      state.tear !== undefined && state.present.includes(2);
    const state = states.find((one) => torn(one) && one.present.length === 2);
    if (state === undefined) throw new Error('a torn state with one missing is planned');
    const found = await explain(stretch, state, testerOf(torn));
    expect(found).toMatchObject({ kind: 'torn', missing: [], present: [2] });
    const missing = ({ present }: CrashState): boolean =>
      present.includes(2) && !present.includes(0);
    const other = states.find((one) => torn(one) && missing(one));
    if (other === undefined) throw new Error('a torn state without the first is planned');
    const second = await explain(stretch, other, testerOf(missing));
    expect(second).toMatchObject({ kind: 'missing', missing: [0], present: [2] });
  });
});
