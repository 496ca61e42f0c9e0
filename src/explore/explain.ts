/**
 * From a state that fails to the least that explains it: the requests whose absence makes it fail
 * though all others are there, and those whose presence makes it fail though no other is.
 *
 * Invariants:
 *   - Both halves of an explanation were seen to fail, as states that the rules allow.
 *   - Leaving out any one member of a half was seen to pass, or is not allowed.
 */
import { assert } from '../base/assert.ts';
import {
  closure,
  missingOf,
  prefixState,
  range,
  subsetState,
  type CrashState,
  type Epoch,
  type Stretch,
} from './crash-state.ts';
import { minimise } from './minimise.ts';

export interface Explanation {
  /**
   * - `missing`: some requests are missing while later ones are there.
   * - `prefix`: nothing is missing: the disk is bad right after a request, however it is cut.
   * - `order`, `torn`: only that an older request won over a newer one, or that one was torn, makes
   *   it fail.
   */
  readonly kind: 'missing' | 'prefix' | 'order' | 'torn';
  readonly epoch: Epoch;
  /** Positions: everything up to the newest of `witness`, but for these, fails. */
  readonly missing: readonly number[];
  /** Positions: with nothing but these since the flush, it fails too. For a prefix, the one. */
  readonly present: readonly number[];
  /** A state that fails because of it, with as little missing as that takes. */
  readonly witness: CrashState;
}

/** Looks at states; each is looked at once at most. */
export interface Tester {
  /** @returns the first in order that fails, or undefined */
  firstFailing(states: readonly CrashState[]): Promise<CrashState | undefined>;
}

export async function explain(
  stretch: Stretch,
  state: CrashState,
  tester: Tester,
): Promise<Explanation> {
  return await new Explainer(stretch, tester).explain(state);
}

/** Whether a state that fails has all that the explanation needs: it is not looked into again. */
export function covers(explanation: Explanation, state: CrashState): boolean {
  const { kind, epoch, missing, present } = explanation;
  const newest = state.present.at(-1) ?? state.epoch.first - 1;
  // Whatever was cut, what came before the epoch is there.
  if (kind === 'prefix') {
    const trigger = present.at(-1) ?? -1;
    return newest >= trigger && (trigger < state.epoch.first || state.present.includes(trigger));
  }
  if (epoch.index !== state.epoch.index) return false;
  const there = new Set(state.present);
  const needs = present.every((at) => there.has(at)) && missing.every((at) => !there.has(at));
  if (kind === 'missing') return needs;
  return kind === state.kind && newest === explanation.witness.present.at(-1) && needs;
}

/** Whether two name the same requests in the same parts. */
export function isSame(one: Explanation, other: Explanation): boolean {
  const equal = (some: readonly number[], others: readonly number[]): boolean =>
    some.length === others.length && some.every((at, i) => at === others[i]);
  return (
    one.kind === other.kind &&
    equal(one.missing, other.missing) &&
    equal(one.present, other.present)
  );
}

class Explainer {
  readonly #stretch: Stretch;
  readonly #tester: Tester;

  constructor(stretch: Stretch, tester: Tester) {
    this.#stretch = stretch;
    this.#tester = tester;
  }

  async explain(state: CrashState): Promise<Explanation> {
    const { epoch } = state;
    const newest = state.present.at(-1);
    if (newest === undefined) return await this.#prefix(epoch.first - 1);
    if (await this.#fails(prefixState(epoch, newest + 1))) return await this.#prefix(newest);
    const whole = subsetState(epoch, state.present);
    if (state.kind === 'torn' || state.kind === 'order') {
      const without = subsetState(epoch, state.present.slice(0, -1));
      if (state.kind === 'torn' && (await this.#fails(without))) return await this.explain(without);
      if (!(await this.#fails(whole))) return await this.#special(state);
    }
    return await this.#missing(whole, newest);
  }

  async #fails(state: CrashState): Promise<boolean> {
    return (await this.#tester.firstFailing([state])) !== undefined;
  }

  /** Everything up to `bad` fails: the last request before which it passed, as far as looks go. */
  async #prefix(bad: number): Promise<Explanation> {
    let failing = bad;
    // Before the stretch it passed, else nothing would be looked for.
    let good = -1;
    for (let step = 1; failing - step > good; step *= 2) {
      const before = failing - step;
      if (await this.#fails(this.#upTo(before))) failing = before;
      else good = before;
    }
    while (failing - good > 1) {
      const middle = (good + failing) >> 1;
      if (await this.#fails(this.#upTo(middle))) failing = middle;
      else good = middle;
    }
    const witness = this.#upTo(failing);
    return { kind: 'prefix', epoch: witness.epoch, missing: [], present: [failing], witness };
  }

  /** Everything up to this request, and it. */
  #upTo(position: number): CrashState {
    const { epochs } = this.#stretch;
    const epoch = epochs.find(({ end }) => position < end) ?? epochs.at(-1);
    assert(epoch !== undefined, 'a stretch has an epoch');
    return prefixState(epoch, position + 1);
  }

  async #missing(state: CrashState, newest: number): Promise<Explanation> {
    const { epoch } = state;
    const without = (missing: readonly number[]): CrashState => {
      const gone = new Set(missing);
      const there = range(epoch.first, newest + 1).filter((at) => !gone.has(at));
      return subsetState(epoch, there);
    };
    const missing = await this.#least(missingOf(state), without);
    const witness = without(missing);
    const only = (present: readonly number[]): CrashState =>
      subsetState(epoch, closure(this.#stretch, epoch, present));
    const present = await this.#least(witness.present, only);
    // With nothing since the flush it fails too: what is to blame came before.
    if (present.length === 0) return await this.#prefix(epoch.first - 1);
    return { kind: 'missing', epoch, missing, present: only(present).present, witness };
  }

  /** Neither whole requests in order nor any of them missing fails: it is the tear, or the order. */
  async #special(state: CrashState): Promise<Explanation> {
    const { epoch, kind, present } = state;
    const newest = present.at(-1);
    const kept = new Set([newest, state.last]);
    const free = missingOf(state);
    const without = (missing: readonly number[]): CrashState => {
      const gone = new Set(missing);
      const there = range(epoch.first, (newest ?? epoch.first) + 1).filter((at) => !gone.has(at));
      return { ...state, present: there };
    };
    const missing = free.length === 0 ? [] : await this.#least(free, without);
    return {
      kind: kind === 'order' ? 'order' : 'torn',
      epoch,
      missing,
      present: present.filter((at) => kept.has(at)),
      witness: without(missing),
    };
  }

  async #least(
    items: readonly number[],
    stateOf: (part: readonly number[]) => CrashState,
  ): Promise<readonly number[]> {
    return await minimise(items, async (parts) => {
      const states = parts.map(stateOf);
      const failing = await this.#tester.firstFailing(states);
      return failing === undefined ? undefined : parts[states.indexOf(failing)];
    });
  }
}
