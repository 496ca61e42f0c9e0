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

/** Sets of one newest request, with so many missing of those before it that may be missing. */
interface Shape {
  readonly newest: number;
  readonly length: number;
  readonly missing: number;
  /** How many may be missing. */
  readonly free: number;
}

/**
 * Every allowed set, the ones with few requests missing, or few there, first. They are made one at a
 * time: those of all epochs at once would take memory by how often somebody flushed.
 */
export function* allAllowed(stretch: Stretch, epoch: Epoch): Generator<readonly number[], void> {
  let left = countAllowed(stretch, epoch);
  assert(left <= LISTED_MAX, 'only few sets are listed');
  for (let oddity = 0; left > 0; oddity++) {
    for (const shape of shapesOf(stretch, epoch, oddity)) {
      for (const set of setsOf(stretch, epoch, shape)) {
        left -= 1;
        yield set;
      }
    }
    if (oddity > 0) continue;
    left -= 1;
    yield [];
  }
}

/** Those of which so many are missing, or there, whichever is less; the longest first. */
function shapesOf({ requests }: Stretch, { first, end }: Epoch, oddity: number): readonly Shape[] {
  const shapes: Shape[] = [];
  let free = 0;
  for (let newest = first; newest < end; newest++) {
    const all = newest + 1 - first;
    for (const missing of new Set([oddity, all - oddity])) {
      const length = all - missing;
      if (missing > free || Math.min(missing, length) !== oddity) continue;
      shapes.push({ newest, length, missing, free });
    }
    if (requests[newest]?.fua !== true) free += 1;
  }
  return shapes.toSorted((one, other) => other.length - one.length);
}

function* setsOf(
  { requests }: Stretch,
  { first }: Epoch,
  { newest, missing, free }: Shape,
): Generator<readonly number[], void> {
  for (let chosen = 0; chosen < 2 ** free; chosen++) {
    if (bitsOf(chosen) !== free - missing) continue;
    let bit = 0;
    const before = range(first, newest).filter(
      (at) => requests[at]?.fua === true || ((chosen >> bit++) & 1) === 1,
    );
    yield [...before, newest];
  }
}

function bitsOf(value: number): number {
  let bits = 0;
  for (let rest = value; rest > 0; rest &= rest - 1) bits += 1;
  return bits;
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
