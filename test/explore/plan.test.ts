/** The planner against trying every set of requests, on disks of a few blocks. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isAllowed } from '../../src/explore/crash-state.ts';
import { planStates, type PlanLimits } from '../../src/explore/plan.ts';
import { allowedDisks, diskOf, stretchOf, type SmallRequest } from './disks.ts';

const BLOCKS = 6;
const LIMITS: PlanLimits = { statesMax: 10_000, seed: 1, torn: false };

const part = fc
  .record({ start: fc.nat(BLOCKS - 1), count: fc.integer({ min: 1, max: 3 }), zero: fc.boolean() })
  .chain(({ start, count, zero }) => {
    const length = Math.min(count, BLOCKS - start);
    const contents = fc.array(fc.integer({ min: 1, max: 3 }), {
      minLength: length,
      maxLength: length,
    });
    return (zero ? fc.constant(length) : contents).map((held) => ({ start, contents: held }));
  });
const requests: fc.Arbitrary<SmallRequest[]> = fc.array(
  fc.record({
    fua: fc.integer({ min: 0, max: 3 }).map((value) => value === 0),
    parts: part.map((one) => [one]),
  }),
  { maxLength: 9 },
);
const flushes = fc
  .array(fc.nat(9), { maxLength: 3 })
  .map((list) => list.toSorted((one, other) => one - other));

describe('the plan of states', () => {
  it('is what trying every set gives, each disk once, when the limit suffices', () => {
    fc.assert(
      fc.property(requests, flushes, fc.nat(), (list, marks, seed) => {
        const stretch = stretchOf(list, marks);
        const plan = planStates(stretch, { ...LIMITS, seed });
        const whole = plan.states.filter(({ kind }) => kind !== 'order');
        const disks = whole.map((state) => diskOf(stretch, state, BLOCKS));
        const every = allowedDisks(stretch, BLOCKS);
        // An order may come before the set that gives the same disk.
        const orders = plan.states.filter(({ kind }) => kind === 'order');
        const withOrders = new Set([
          ...disks,
          ...orders.map((state) => diskOf(stretch, state, BLOCKS)),
        ]);
        expect([...every].filter((disk) => !withOrders.has(disk))).toEqual([]);
        expect(disks.filter((disk) => !every.has(disk))).toEqual([]);
        expect(new Set(disks).size).toBe(disks.length);
        expect(withOrders.size).toBe(plan.states.length);
        expect(plan.isComplete).toBe(true);
      }),
      { numRuns: 300 },
    );
  });

  it('holds its limit, allows nothing that the rules forbid, and repeats with its seed', () => {
    const limits = fc.record({
      statesMax: fc.integer({ min: 1, max: 40 }),
      seed: fc.nat(),
      torn: fc.boolean(),
    });
    fc.assert(
      fc.property(requests, flushes, limits, (list, marks, limit) => {
        const stretch = stretchOf(list, marks);
        const plan = planStates(stretch, limit);
        expect(plan.states.length).toBeLessThanOrEqual(limit.statesMax);
        for (const state of plan.states) expect(isAllowed(stretch, state)).toBe(true);
        expect(planStates(stretch, limit)).toEqual(plan);
        const [first] = plan.states;
        expect(first?.present).toEqual([]);
        if (!limit.torn) return;
        const torn = plan.states.filter(({ kind }) => kind === 'torn');
        const keys = torn.map(({ present, tear }) => JSON.stringify([present, tear]));
        expect(new Set(keys).size).toBe(torn.length);
      }),
      { numRuns: 300 },
    );
  });

  it('names the torn states of a request: its beginning or its end, with what came before', () => {
    const write = (start: number, content: number): SmallRequest => ({
      fua: false,
      parts: [{ start, contents: [content] }],
    });
    const stretch = stretchOf([write(0, 1), write(1, 2)], []);
    const { states } = planStates(stretch, { ...LIMITS, torn: true });
    const disks = new Set(states.map((state) => diskOf(stretch, state, 2)));
    const zero = Array.from({ length: 8 }, () => '1');
    const half = Array.from({ length: 8 }, (_, sector) => (sector < 4 ? '2' : 'before'));
    expect(disks.has([...zero, ...half].join())).toBe(true);
    // The first one may be missing while the second is torn.
    const before = Array.from({ length: 8 }, () => 'before');
    expect(disks.has([...before, ...half].join())).toBe(true);
  });

  it('gives an older request the last word over a newer one that it overlaps', () => {
    const list: SmallRequest[] = [
      { fua: false, parts: [{ start: 0, contents: [1, 1] }] },
      { fua: false, parts: [{ start: 1, contents: [2, 2] }] },
    ];
    const stretch = stretchOf(list, []);
    const { states } = planStates(stretch, LIMITS);
    const orders = states.filter(({ kind }) => kind === 'order');
    expect(orders).toHaveLength(1);
    const fuaSecond = list.map((request, at) => ({ ...request, fua: at === 1 }));
    const none = planStates(stretchOf(fuaSecond, []), LIMITS).states;
    expect(none.filter(({ kind }) => kind === 'order')).toEqual([]);
  });

  it('gives every epoch its share when there are far more states than the limit', () => {
    const list = Array.from({ length: 200 }, (_, at): SmallRequest => ({
      fua: false,
      parts: [{ start: at, contents: [at + 1] }],
    }));
    const stretch = stretchOf(list, [50, 100, 150]);
    const plan = planStates(stretch, { ...LIMITS, statesMax: 400 });
    expect(plan.states).toHaveLength(400);
    expect(plan.isComplete).toBe(false);
    expect(plan.allowed).toBeGreaterThan(2 ** 50);
    for (const epoch of stretch.epochs) {
      const own = plan.states.filter((state) => state.epoch.index === epoch.index);
      expect(own.filter(({ kind }) => kind === 'subset').length).toBeGreaterThan(30);
    }
  });

  it('takes a trim of a terabyte as one piece', () => {
    const list: SmallRequest[] = [
      { fua: false, parts: [{ start: 0, contents: 2 ** 28 }] },
      { fua: false, parts: [{ start: 77, contents: [5] }] },
    ];
    const stretch = stretchOf(list, []);
    expect(stretch.coverage.pieces).toBe(3);
    const plan = planStates(stretch, { ...LIMITS, torn: true });
    expect(plan.states.filter(({ kind }) => kind === 'subset')).toHaveLength(1);
  });
});
