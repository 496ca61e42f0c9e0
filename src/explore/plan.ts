/**
 * Which states are looked at, in which order, within a limit: the state at each flush, after each
 * request, and of each epoch in turn sets with requests missing, orders of overlapping requests,
 * and, when asked, torn ones.
 *
 * Invariants:
 *   - Every state is allowed, and no two are the same disk.
 *   - The same stretch, limits and seed give the same plan.
 *   - `isComplete` says that every allowed set of whole requests is in it.
 */
import { assert } from '../base/assert.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import {
  prefixState,
  range,
  StateKeys,
  subsetState,
  type CrashState,
  type Epoch,
  type Stretch,
  type Tear,
} from './crash-state.ts';
import { Choices } from './random.ts';
import { allAllowed, countAllowed, LISTED_MAX, shuffled, someAllowed } from './subsets.ts';

export interface PlanLimits {
  readonly statesMax: number;
  readonly seed: number;
  /** Whether a cut may tear a request at sectors of 512 bytes. */
  readonly torn: boolean;
}

export interface Plan {
  readonly states: readonly CrashState[];
  /** Sets of whole requests that the rules allow, equal disks counted apart; may be Infinity. */
  readonly allowed: number;
  /** Met, and the same disk as one before. */
  readonly equal: number;
  readonly isComplete: boolean;
}

const SECTOR_BYTES = 512;
const BLOCK_SECTORS = BLOCK_BYTES / SECTOR_BYTES;
/** Seeded choices that only repeat what is known end after so many in a row. */
const FRUITLESS_MAX = 64;

export function planStates(stretch: Stretch, limits: PlanLimits): Plan {
  assert(limits.statesMax >= 1, 'a plan has room for a state');
  return new Planner(stretch, limits).make();
}

interface Source {
  readonly states: Iterator<CrashState, void>;
  /** Ends after many states in a row that were met before. */
  readonly isEndless: boolean;
  fruitless: number;
}

class Planner {
  readonly #stretch: Stretch;
  readonly #limits: PlanLimits;
  readonly #choices: Choices;
  readonly #keys: StateKeys;
  readonly #met = new Set<string>();
  readonly #states: CrashState[] = [];
  #equal = 0;

  constructor(stretch: Stretch, limits: PlanLimits) {
    this.#stretch = stretch;
    this.#limits = limits;
    this.#choices = new Choices(limits.seed);
    this.#keys = new StateKeys(stretch);
  }

  make(): Plan {
    const { epochs } = this.#stretch;
    const { statesMax } = this.#limits;
    const sets = epochs.map((epoch) => countAllowed(this.#stretch, epoch));
    // What an epoch ends with is what the next one begins with.
    const allowed = sets.reduce((sum, count) => sum + count, 0) - (epochs.length - 1);
    const start = epochs.slice(0, 1).map((epoch) => prefixState(epoch, epoch.first));
    const ends = epochs.map((epoch) => prefixState(epoch, epoch.end));
    const mostly = (part: number): number => Math.max(0, Math.ceil(statesMax * part) - this.#count);
    this.#addAll(start);
    this.#addAll(this.#choices.sample(ends, mostly(0.5)));
    const prefixes = this.#prefixes(mostly(0.6));
    this.#addAll(prefixes);
    const left = epochs.flatMap((epoch) => this.#sourcesOf(epoch, sets[epoch.index] ?? 0));
    const isDry = this.#drain(left);
    const isListed = sets.every((count) => count <= LISTED_MAX);
    return { states: this.#states, allowed, equal: this.#equal, isComplete: isDry && isListed };
  }

  get #count(): number {
    return this.#states.length;
  }

  /** @returns whether the state is new; the plan has room for it */
  #add(state: CrashState): boolean {
    const key = this.#keys.of(state);
    if (this.#met.has(key)) {
      this.#equal += 1;
      return false;
    }
    this.#met.add(key);
    this.#states.push(state);
    return true;
  }

  #addAll(states: readonly CrashState[]): void {
    for (const state of states) if (this.#count < this.#limits.statesMax) this.#add(state);
  }

  #prefixes(count: number): readonly CrashState[] {
    const { epochs } = this.#stretch;
    const all = epochs.flatMap((epoch) =>
      range(epoch.first + 1, epoch.end).map((end) => ({ epoch, end })),
    );
    return this.#choices.sample(all, count).map(({ epoch, end }) => prefixState(epoch, end));
  }

  #sourcesOf(epoch: Epoch, sets: number): Source[] {
    if (epoch.end === epoch.first) return [];
    const isListed = sets <= LISTED_MAX;
    const sources: Source[] = [
      { states: this.#subsets(epoch, isListed), isEndless: !isListed, fruitless: 0 },
      { states: this.#orders(epoch), isEndless: false, fruitless: 0 },
    ];
    if (this.#limits.torn) {
      sources.push({ states: this.#tears(epoch), isEndless: false, fruitless: 0 });
    }
    return sources;
  }

  /** Takes from each in turn. @returns whether all of them were exhausted */
  #drain(sources: readonly Source[]): boolean {
    let left = [...sources];
    while (left.length > 0) {
      const next: Source[] = [];
      for (const source of left) {
        if (this.#count >= this.#limits.statesMax) return false;
        if (this.#takeFrom(source)) next.push(source);
      }
      left = next;
    }
    return true;
  }

  /** Adds its next new state. @returns whether it may have more */
  #takeFrom(source: Source): boolean {
    for (;;) {
      const next = source.states.next();
      if (next.done === true) return false;
      if (this.#add(next.value)) {
        source.fruitless = 0;
        return true;
      }
      source.fruitless += 1;
      if (source.isEndless && source.fruitless > FRUITLESS_MAX) return false;
    }
  }

  *#subsets(epoch: Epoch, isListed: boolean): Generator<CrashState, void> {
    const sets = isListed
      ? allAllowed(this.#stretch, epoch)
      : someAllowed(this.#stretch, epoch, this.#choices);
    for (const present of sets) yield subsetState(epoch, present);
  }

  /** A request that reaches the disk after a later one which overlaps it. */
  *#orders(epoch: Epoch): Generator<CrashState, void> {
    const { requests, coverage } = this.#stretch;
    for (let newer = epoch.first + 1; newer < epoch.end; newer++) {
      if (requests[newer]?.fua === true) continue;
      const older = new Set<number>();
      for (const piece of coverage.piecesOf(newer)) {
        const before = coverage.newestBefore(piece, newer);
        if (before >= epoch.first && requests[before]?.fua !== true) older.add(before);
      }
      const present = range(epoch.first, newer + 1);
      for (const last of older) {
        yield { kind: 'order', epoch, present, last, tear: undefined };
      }
    }
  }

  /** The newest request in part, with all before it, or with one of them missing. */
  *#tears(epoch: Epoch): Generator<CrashState, void> {
    const { requests } = this.#stretch;
    for (const newest of shuffled(range(epoch.first, epoch.end), this.#choices)) {
      for (const tear of this.#tearsOf(newest)) {
        const present = range(epoch.first, newest + 1);
        yield { kind: 'torn', epoch, present, last: undefined, tear };
        const free = present.slice(0, -1).filter((at) => requests[at]?.fua !== true);
        if (free.length === 0) continue;
        const without = free[this.#choices.below(free.length)];
        const fewer = present.filter((at) => at !== without);
        yield { kind: 'torn', epoch, present: fewer, last: undefined, tear };
      }
    }
  }

  /** Its beginning, or its end, up to several places. */
  #tearsOf(position: number): readonly Tear[] {
    const sectors = sectorsOf(this.#stretch, position);
    if (sectors === undefined || sectors < 2) return [];
    const cuts = new Set([1, sectors >> 1, sectors - 1, 1 + this.#choices.below(sectors - 1)]);
    return [...cuts].flatMap((cut) => [
      { from: 0, to: cut },
      { from: cut, to: sectors },
    ]);
  }
}

/** Sectors of a request that carries data only: a trim or zero is never torn here. */
export function sectorsOf({ requests }: Stretch, position: number): number | undefined {
  const parts = requests[position]?.parts ?? [];
  if (parts.some(({ crcs }) => crcs === undefined)) return undefined;
  return parts.reduce((sum, { count }) => sum + count * BLOCK_SECTORS, 0);
}
