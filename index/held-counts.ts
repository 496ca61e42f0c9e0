/**
 * What pins hold of the before-images, counted by pairs of pins: an image [from, until) belongs to
 * the first pin at or after `from` and the last one before `until`.
 *
 * Invariants:
 *   - Both pins of a pair are pinned, and the first is not above the last.
 *   - A pair stands while it counts something, in both directions.
 *   - A new pin lies at or after every `until` that was added, so it changes no pair; where a round got
 *     no further, what it put is counted again.
 */
import { assert } from '../src/base/assert.ts';
import { bisect } from '../src/base/bisect.ts';
import { generation as toGeneration, type Generation } from '../src/base/units.ts';
import type { Pins } from './pins.ts';

/** So many images, of so many bytes of payload. */
export interface Amount {
  readonly images: number;
  readonly bytes: number;
}

export const NOTHING: Amount = { images: 0, bytes: 0 };

type PinOrder = Pick<Pins<unknown>, 'isPinned' | 'smallestAbove' | 'largestUpTo'>;

/** The pins between which an image is seen. */
export interface PinPair {
  readonly first: Generation;
  readonly last: Generation;
}

/** @returns undefined: no pin lies in [from, until) */
export function pinPair(pins: PinOrder, from: Generation, until: Generation): PinPair | undefined {
  const last = pins.largestUpTo(toGeneration(until - 1))?.generation;
  if (last === undefined || last < from) return undefined;
  const first = pins.isPinned(from) ? from : pins.smallestAbove(from)?.generation;
  assert(first !== undefined && first <= last, 'a pin in the span has a first one');
  return { first, last };
}

export class HeldCounts {
  /** By the last pin, then by the first. */
  readonly #pairs = new Map<Generation, Map<Generation, Amount>>();
  /** Last pins by the first. */
  readonly #lasts = new Map<Generation, Set<Generation>>();
  #total = NOTHING;

  /** Held by any pin. */
  get total(): Amount {
    return this.#total;
  }

  get isEmpty(): boolean {
    return this.#pairs.size === 0;
  }

  /** First and last pins of all pairs, some more than once. */
  *pins(): Generator<Generation> {
    yield* this.#pairs.keys();
    yield* this.#lasts.keys();
  }

  add(pair: PinPair, amount: Amount): void {
    assert(pair.first <= pair.last, 'a pair is in order');
    this.#put(pair.first, pair.last, amount);
    this.#total = sum(this.#total, amount);
  }

  /** Takes back what was added since: pins went meanwhile for both alike. */
  subtract(other: HeldCounts): void {
    for (const [last, byFirst] of other.#pairs) {
      for (const [first, amount] of byFirst) {
        const rest = difference(this.#take(first, last), amount);
        assert(rest.images >= 0 && rest.bytes >= 0, 'what is taken back was added');
        this.#put(first, last, rest);
      }
    }
    this.#total = difference(this.#total, other.#total);
  }

  /** What is held by this pin and no other: what its end would give back. */
  exclusive(pin: Generation): Amount {
    return this.#pairs.get(pin)?.get(pin) ?? NOTHING;
  }

  /**
   * What each of the pins sees, alone or with others.
   * @param pins - ascending: all there are
   */
  seen(pins: readonly Generation[]): ReadonlyMap<Generation, Amount> {
    const begins = new Map<Generation, Amount>();
    const ends = new Map<Generation, Amount>();
    for (const [last, byFirst] of this.#pairs) {
      for (const [first, amount] of byFirst) {
        begins.set(first, sum(begins.get(first) ?? NOTHING, amount));
        ends.set(last, sum(ends.get(last) ?? NOTHING, amount));
      }
    }
    const seen = new Map<Generation, Amount>();
    let now = NOTHING;
    for (const pin of pins) {
      now = sum(now, begins.get(pin) ?? NOTHING);
      seen.set(pin, now);
      now = difference(now, ends.get(pin) ?? NOTHING);
    }
    return seen;
  }

  /**
   * What would be held by these pins alone.
   * @param pins - ascending: some of all
   */
  heldBy(pins: readonly Generation[]): Amount {
    let held = NOTHING;
    for (const [last, byFirst] of this.#pairs) {
      const newest = pins[bisect(pins.length, (i) => (pins[i] ?? 0) <= last) - 1];
      if (newest === undefined) continue;
      for (const [first, amount] of byFirst) if (newest >= first) held = sum(held, amount);
    }
    return held;
  }

  /**
   * The last reason to keep a generation is gone.
   * @param pins - without it
   * @returns what nobody needs any more
   */
  unpinned(pin: Generation, pins: PinOrder): Amount {
    assert(!pins.isPinned(pin), 'what is joined is not pinned any more');
    const freed = this.#take(pin, pin);
    const before = pins.largestUpTo(pin)?.generation;
    for (const first of Array.from(this.#pairs.get(pin)?.keys() ?? [])) {
      assert(before !== undefined && before >= first, 'a pair has another pin before its last');
      this.#put(first, before, this.#take(first, pin));
    }
    const after = pins.smallestAbove(pin)?.generation;
    for (const last of Array.from(this.#lasts.get(pin) ?? [])) {
      assert(after !== undefined && after <= last, 'a pair has another pin behind its first');
      this.#put(after, last, this.#take(pin, last));
    }
    this.#total = difference(this.#total, freed);
    return freed;
  }

  /** @param pairs - of all images that are held, recounted */
  check(pairs: Iterable<readonly [PinPair, Amount]>): void {
    const recount = new HeldCounts();
    for (const [pair, amount] of pairs) recount.add(pair, amount);
    assert(isSame(recount.#total, this.#total), 'what is held is counted');
    assert(recount.#pairs.size === this.#pairs.size, 'a pair stands while it counts something');
    for (const [last, byFirst] of recount.#pairs) {
      assert(this.#pairs.get(last)?.size === byFirst.size, 'pairs of a pin are all there');
      for (const [first, amount] of byFirst) {
        const found = this.#pairs.get(last)?.get(first);
        assert(found !== undefined && isSame(found, amount), 'a pair counts its images');
        assert(this.#lasts.get(first)?.has(last) === true, 'a pair is found by its first pin');
      }
    }
  }

  #put(first: Generation, last: Generation, amount: Amount): void {
    if (amount.images === 0) return;
    let byFirst = this.#pairs.get(last);
    if (byFirst === undefined) this.#pairs.set(last, (byFirst = new Map<Generation, Amount>()));
    byFirst.set(first, sum(byFirst.get(first) ?? NOTHING, amount));
    let lasts = this.#lasts.get(first);
    if (lasts === undefined) this.#lasts.set(first, (lasts = new Set()));
    lasts.add(last);
  }

  #take(first: Generation, last: Generation): Amount {
    const byFirst = this.#pairs.get(last);
    const amount = byFirst?.get(first);
    if (byFirst === undefined || amount === undefined) return NOTHING;
    byFirst.delete(first);
    if (byFirst.size === 0) this.#pairs.delete(last);
    const lasts = this.#lasts.get(first);
    lasts?.delete(last);
    if (lasts?.size === 0) this.#lasts.delete(first);
    return amount;
  }
}

function sum(one: Amount, other: Amount): Amount {
  return { images: one.images + other.images, bytes: one.bytes + other.bytes };
}

function difference(one: Amount, other: Amount): Amount {
  return { images: one.images - other.images, bytes: one.bytes - other.bytes };
}

function isSame(one: Amount, other: Amount): boolean {
  return one.images === other.images && one.bytes === other.bytes;
}
