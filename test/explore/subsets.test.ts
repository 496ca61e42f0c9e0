/** The sets of an epoch: all of them, in one order, and none before it is asked for. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Epoch, Stretch } from '../../src/explore/crash-state.ts';
import { planStates } from '../../src/explore/plan.ts';
import { allAllowed } from '../../src/explore/subsets.ts';
import { stretchOf, type SmallRequest } from './disks.ts';

function write(start: number, fua = false): SmallRequest {
  return { fua, parts: [{ start, contents: [start + 1] }] };
}

/** All at once, by trying each subset; of equal ones the first to be built comes first. */
function listed({ requests }: Stretch, { first, end }: Epoch): readonly (readonly number[])[] {
  const sets: (readonly number[])[] = [[]];
  let before: (readonly number[])[] = [[]];
  for (let newest = first; newest < end; newest++) {
    const withNewest = before.map((set) => [...set, newest]);
    sets.push(...withNewest);
    before = requests[newest]?.fua === true ? withNewest : [...before, ...withNewest];
  }
  const oddity = (set: readonly number[]): number => {
    const missing = (set.at(-1) ?? first - 1) + 1 - first - set.length;
    return Math.min(missing, set.length);
  };
  return sets.toSorted((one, other) => oddity(one) - oddity(other) || other.length - one.length);
}

test('the sets of an epoch are all that are allowed, in the same order for ever', () => {
  fc.assert(
    fc.property(fc.array(fc.boolean(), { maxLength: 10 }), fc.nat(10), (fuas, flush) => {
      const stretch = stretchOf(
        fuas.map((fua, at) => write(at, fua)),
        [flush],
      );
      for (const epoch of stretch.epochs) {
        expect([...allAllowed(stretch, epoch)]).toEqual(listed(stretch, epoch));
      }
    }),
    { numRuns: 200 },
  );
});

/** The same, and how often a request was asked whether it has FUA, which each set that is made does. */
function counted(stretch: Stretch): { readonly stretch: Stretch; readonly reads: () => number } {
  let reads = 0;
  const requests = stretch.requests.map((request) => ({
    ...request,
    get fua(): boolean {
      reads += 1;
      return request.fua;
    },
  }));
  return { stretch: { ...stretch, requests }, reads: () => reads };
}

// All sets of all epochs that were come to stood in memory at once, 440 KiB for each flush.
test('a set is made when it is asked for', () => {
  const { stretch, reads } = counted(
    stretchOf(
      Array.from({ length: 11 }, (_, at) => write(at)),
      [],
    ),
  );
  const [epoch] = stretch.epochs;
  if (epoch === undefined) throw new Error('there is no epoch');
  const sets = allAllowed(stretch, epoch);
  expect(reads()).toBe(0);
  sets.next();
  // To count all of them, to see which are asked for first, and for this one.
  expect(reads()).toBeLessThanOrEqual(3 * 11);
  const before = reads();
  sets.next();
  expect(reads() - before).toBeLessThanOrEqual(11);
});

test('a plan makes no more sets than it looks at, however many flushes there are', () => {
  const each = 11;
  const epochs = 100;
  const list = Array.from({ length: epochs * each }, (_, at) => write(at));
  const flushes = Array.from({ length: epochs - 1 }, (_, at) => (at + 1) * each);
  const { stretch, reads } = counted(stretchOf(list, flushes));
  expect(stretch.epochs).toHaveLength(epochs);
  const plan = planStates(stretch, { statesMax: 1000, seed: 1, torn: false });
  expect(plan.states).toHaveLength(1000);
  expect(plan.isComplete).toBe(false);
  // Besides, each epoch is gone through a few times.
  const looked = plan.states.length + plan.equal + 10 * epochs;
  expect(reads()).toBeLessThanOrEqual(looked * each);
});
