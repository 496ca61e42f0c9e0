/**
 * What retention should keep, told from the times of all writes: by what the rules say, one by one,
 * and not by how the volume finds it.
 */
import { assert } from '../../src/base/assert.ts';
import type { RetentionPolicy } from '../../src/volume/retention-policy.ts';

const HOUR_US = 3_600_000_000;
const DAY_US = 24 * HOUR_US;
/** 1970-01-05, a Monday. */
const MONDAY_US = 4 * DAY_US;

interface Written {
  readonly generation: number;
  readonly wallUs: number;
}

const RULES = [
  { rule: 'hourly', periodUs: HOUR_US },
  { rule: 'daily', periodUs: DAY_US },
  { rule: 'weekly', periodUs: 7 * DAY_US },
] as const;

/** Of what ends at a boundary the boundary is a part. */
function periodOf(wallUs: number, periodUs: number): number {
  return Math.floor((wallUs - MONDAY_US - 1) / periodUs);
}

export class RetentionModel {
  /** By generation, without a gap; generation 0 is the blank disk. */
  #written: Written[] = [{ generation: 0, wallUs: 0 }];
  #kept: readonly Written[] = [];
  /** By a person: they do not come again. */
  readonly #deleted = new Set<number>();
  /** Generations before it have left the window. */
  #left = 0;

  written(generation: number, wallUs: number): void {
    assert(generation === this.#written.length, 'generations follow each other');
    this.#written.push({ generation, wallUs });
  }

  cut(head: number): void {
    this.#written.length = head + 1;
  }

  /**
   * An opening, and another policy, looks from the horizon on again: what went for want of space, while a
   * round got no further, may come again.
   */
  looksAgain(horizon: number): void {
    this.#left = Math.min(this.#left, horizon);
  }

  deleted(generation: number): void {
    this.#kept = this.#kept.filter((one) => one.generation !== generation);
    this.#deleted.add(generation);
  }

  /**
   * @param found - generations of the automatic snapshots
   * @param about - `mayBeAhead`: of a round that has not moved the horizon; `mayBeFewer`: the oldest
   *   may be gone for want of space, but for those of moments that had another name, too: ending
   *   those gives nothing back
   * @returns how many are gone for that
   */
  compare(
    found: readonly number[],
    about: {
      readonly policy: RetentionPolicy;
      readonly horizon: number;
      readonly mayBeAhead: boolean;
      readonly mayBeFewer: ReadonlySet<number> | undefined;
    },
  ): number {
    const { policy, horizon, mayBeAhead, mayBeFewer } = about;
    const horizons = [Math.max(horizon, this.#left)];
    if (mayBeAhead) {
      const later = this.#ends(horizon, this.#written.length - 1);
      horizons.push(horizon, ...later.map(({ generation }) => generation + 1));
    }
    for (const at of horizons) {
      const expected = this.#keptAt(policy, at);
      const isFitting =
        mayBeFewer === undefined
          ? isSame(expected, found)
          : isRest(found, expected, { candidates: this.#candidates(at), named: mayBeFewer });
      if (!isFitting) continue;
      this.#kept = this.#candidates(at).filter(({ generation }) => found.includes(generation));
      this.#left = at;
      return Math.max(0, expected.length - found.length);
    }
    const expected = this.#keptAt(policy, horizons[0] ?? 0).map(({ generation }) => generation);
    assert(
      false,
      `the automatic snapshots are ${expected.join(' ')}, not ${found.join(' ')}, at ${horizon}`,
    );
  }

  #keptAt(policy: RetentionPolicy, horizon: number): readonly Written[] {
    const all = this.#candidates(horizon);
    // A round that got no further may have left some ahead of the horizon: their periods have ended.
    const current = this.#written[Math.max(horizon, (all.at(-1)?.generation ?? -1) + 1)];
    assert(current !== undefined, 'the horizon was written');
    const kept = new Set<Written>();
    for (const { rule, periodUs } of RULES) {
      const now = periodOf(current.wallUs, periodUs);
      // The period that goes on has not had its last moment yet. Where the clock came back to it, it
      // had one, which is none any more.
      const before = all.findLastIndex(({ wallUs }) => periodOf(wallUs, periodUs) !== now) + 1;
      const lasts = new Map<number, Written>();
      // The last of each period, in the order in which periods were last left.
      for (const one of all.slice(0, before)) {
        const period = periodOf(one.wallUs, periodUs);
        lasts.delete(period);
        lasts.set(period, one);
      }
      const newest = policy[rule] === 0 ? [] : [...lasts].slice(-policy[rule]);
      for (const [period, one] of newest) if (period !== now) kept.add(one);
    }
    return all.filter((one) => kept.has(one));
  }

  #candidates(horizon: number): readonly Written[] {
    const known = new Set(this.#kept.map(({ generation }) => generation));
    const isNew = ({ generation }: Written): boolean =>
      !known.has(generation) && !this.#deleted.has(generation);
    const ends = this.#ends(this.#left, horizon).filter(isNew);
    return [...this.#kept, ...ends].sort((a, b) => a.generation - b.generation);
  }

  /** The last ones of their hours, of [from, before). */
  #ends(from: number, before: number): readonly Written[] {
    const found: Written[] = [];
    for (let i = Math.max(1, from); i < before; i++) {
      const [one, next] = [this.#written[i], this.#written[i + 1]];
      if (one === undefined || next === undefined) break;
      if (periodOf(one.wallUs, HOUR_US) !== periodOf(next.wallUs, HOUR_US)) found.push(one);
    }
    return found;
  }
}

function isSame(expected: readonly Written[], found: readonly number[]): boolean {
  return (
    expected.length === found.length &&
    expected.every(({ generation }, i) => generation === found[i])
  );
}

/** Whether the oldest of what is expected are gone, and no others. */
function isRest(
  found: readonly number[],
  expected: readonly Written[],
  about: { readonly candidates: readonly Written[]; readonly named: ReadonlySet<number> },
): boolean {
  const known = new Set(about.candidates.map(({ generation }) => generation));
  const mine = found.filter((generation) => !about.named.has(generation));
  const wanted = expected.filter(({ generation }) => !about.named.has(generation));
  const newest = wanted.slice(Math.max(0, wanted.length - mine.length));
  return found.every((generation) => known.has(generation)) && isSame(newest, mine);
}
