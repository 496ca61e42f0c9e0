/**
 * Spans of generations in which something was so, for many things at once, by number. What is told
 * comes newest first: each version of a block says what it has, from its generation until the next.
 * Pure.
 *
 * Invariants:
 *   - The spans of one thing are apart, and stand newest first.
 *   - A bounded number of spans is kept; those beyond it are counted.
 */
import { assert } from '../base/assert.ts';

/** The generations from `since` on, before `until`; infinite where they have no end. */
export interface Span {
  since: number;
  readonly until: number;
}

export class Spells {
  readonly #spans = new Map<number, Span[]>();
  readonly #max: number;
  #kept = 0;
  left = 0;

  /** @param max - spans that are kept */
  constructor(max: number) {
    this.#max = max;
  }

  /** `thing` was so from `since` on, before `until`; no later than what was said of it before. */
  add(thing: number, since: number, until: number): void {
    assert(since < until, 'a span has a generation');
    const spans = this.#spans.get(thing);
    const last = spans?.at(-1);
    assert(last === undefined || until <= last.since, 'spans come newest first');
    if (last !== undefined && last.since === until) {
      last.since = since;
      return;
    }
    if (this.#kept === this.#max) {
      this.left += 1;
      return;
    }
    this.#kept += 1;
    if (spans === undefined) this.#spans.set(thing, [{ since, until }]);
    else spans.push({ since, until });
  }

  /** Things in ascending order. */
  *all(): Generator<readonly [number, readonly Span[]]> {
    for (const thing of [...this.#spans.keys()].sort((one, other) => one - other)) {
      yield [thing, this.of(thing)];
    }
  }

  of(thing: number): readonly Span[] {
    return this.#spans.get(thing) ?? [];
  }
}

/** The spans in which both were so; newest first. */
export function common(one: readonly Span[], other: readonly Span[]): readonly Span[] {
  const found: Span[] = [];
  for (let i = 0, j = 0; i < one.length && j < other.length;) {
    const [left, right] = [one[i], other[j]];
    if (left === undefined || right === undefined) break;
    const since = Math.max(left.since, right.since);
    const until = Math.min(left.until, right.until);
    if (since < until) found.push({ since, until });
    // The one that begins later has nothing older to give.
    if (left.since >= right.since) i += 1;
    else j += 1;
  }
  return found;
}
