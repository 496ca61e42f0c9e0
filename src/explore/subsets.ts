/**
 * Sets of requests that a power cut between two flushes may leave: all of them where they are few,
 * else those that differ least from what is usual, and then seeded choices without end.
 */
import { assert } from '../base/assert.ts';
import { closure, range, type Epoch, type Stretch } from './crash-state.ts';
import type { Choices } from './random.ts';

/** Up to so many sets of an epoch are all listed. */
export const LISTED_MAX = 4096;
/** Of a seeded choice: so many requests are missing, or there alone, at most. */
const CHOSEN_MAX = 128;

/** How many sets the rules allow: the empty one, and for each newest request those before it. */
export function countAllowed({ requests }: Stretch, { first, end }: Epoch): number {
  let sets = 1;
  let free = 0;
  for (let newest = first; newest < end; newest++) {
    sets += 2 ** free;
    if (requests[newest]?.fua !== true) free += 1;
  }
  return sets;
}

/** Every allowed set, the ones with few requests missing, or few there, first. */
export function allAllowed(stretch: Stretch, epoch: Epoch): readonly (readonly number[])[] {
  assert(countAllowed(stretch, epoch) <= LISTED_MAX, 'only few sets are listed');
  const sets: (readonly number[])[] = [[]];
  let before: (readonly number[])[] = [[]];
  for (let newest = epoch.first; newest < epoch.end; newest++) {
    const withNewest = before.map((set) => [...set, newest]);
    sets.push(...withNewest);
    before = stretch.requests[newest]?.fua === true ? withNewest : [...before, ...withNewest];
  }
  const oddity = (set: readonly number[]): number => {
    const missing = (set.at(-1) ?? epoch.first - 1) + 1 - epoch.first - set.length;
    return Math.min(missing, set.length);
  };
  return sets.toSorted((one, other) => oddity(one) - oddity(other) || other.length - one.length);
}

/** One missing of the whole; one there alone; then seeded sets, without end. */
export function* someAllowed(
  stretch: Stretch,
  epoch: Epoch,
  choices: Choices,
): Generator<readonly number[], void> {
  const { first, end } = epoch;
  const without = (to: number, missing: ReadonlySet<number>): readonly number[] =>
    closure(
      stretch,
      epoch,
      range(first, to).filter((at) => !missing.has(at)),
    );
  for (const at of shuffled(range(first, end), choices)) {
    yield without(end, new Set([at]));
    yield closure(stretch, epoch, [at]);
  }
  for (;;) {
    const to = first + 1 + choices.below(end - first);
    const count = 1 + choices.below(Math.min(CHOSEN_MAX, to - first));
    const chosen = choices.sample(range(first, to), count);
    if (choices.below(3) === 0) yield closure(stretch, epoch, chosen);
    else yield without(to, new Set(chosen));
  }
}

export function shuffled<T>(members: readonly T[], choices: Choices): readonly T[] {
  const mixed = [...members];
  for (let at = mixed.length - 1; at > 0; at--) {
    const other = choices.below(at + 1);
    const [one, two] = [mixed[at], mixed[other]];
    if (one === undefined || two === undefined) continue;
    mixed[at] = two;
    mixed[other] = one;
  }
  return mixed;
}
