/** Choices that a seed repeats: the same seed gives the same states, on every machine. */
import { assert } from '../base/assert.ts';

/** mulberry32: 32 bits of state are plenty for choosing among states. */
export class Choices {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** A whole number from 0 to `bound` - 1. */
  below(bound: number): number {
    assert(bound >= 1 && bound <= 2 ** 32, 'a choice is among at least one');
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * bound);
  }

  /** `count` of the members, in their order; all of them when there are not more. */
  sample<T>(members: readonly T[], count: number): readonly T[] {
    if (members.length <= count) return members;
    const chosen = new Set<number>();
    while (chosen.size < count) chosen.add(this.below(members.length));
    return members.filter((_, at) => chosen.has(at));
  }
}
