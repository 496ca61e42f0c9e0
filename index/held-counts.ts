/**
 * What pins hold of the before-images, counted by pairs of pins, and by the place where they lie: an
 * image [from, until) belongs to the first pin at or after `from` and the last one before `until`.
 *
 * All pairs with one first pin are a line, all pairs with one last pin another that crosses it. When
 * a pin goes, two lines become one: the shorter is put into the longer, so that a pair moves a few
 * times in all, in whatever order pins go.
 *
 * Invariants:
 *   - Both pins of a pair are pinned, and the first is not above the last.
 *   - A pair stands while it counts something, in both of its lines and for each place.
 *   - A new pin lies at or after every `until` that was added, so it changes no pair; where a round got
 *     no further, what it put is counted again.
 */
import { assert } from '../src/base/assert.ts';
import { bisect } from '../src/base/bisect.ts';
import { generation as toGeneration, type Generation } from '../src/base/units.ts';
import { OneOrMore } from './one-or-more.ts';
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

/** Pairs that have one pin in common. */
interface Line<Place> {
  /** Another one, once two lines have become one. */
  pin: Generation;
  /** By the line that crosses it there. */
  readonly pairs: Map<Line<Place>, Pair<Place>>;
}

interface Pair<Place> {
  first: Line<Place>;
  last: Line<Place>;
  amount: Amount;
  readonly at: OneOrMore<Place, Amount>;
}

/** What lies in one place. */
interface Holding<Place> {
  total: Amount;
  readonly pairs: Set<Pair<Place>>;
}

type Side = 'first' | 'last';

type Lines<Place> = Map<Generation, Line<Place>>;

export class HeldCounts<Place> {
  readonly #lines: Readonly<Record<Side, Lines<Place>>> = { first: new Map(), last: new Map() };
  readonly #places = new Map<Place, Holding<Place>>();
  #total = NOTHING;

  /** Held by any pin. */
  get total(): Amount {
    return this.#total;
  }

  /** How much lies where; nothing is left out that holds something. */
  get places(): ReadonlyMap<Place, { readonly total: Amount }> {
    return this.#places;
  }

  add(place: Place, { first, last }: PinPair, amount: Amount): void {
    assert(first <= last, 'a pair is in order');
    assert(amount.images > 0, 'a pair counts something');
    const pair = this.#pair(first, last);
    let holding = this.#places.get(place);
    if (holding === undefined) {
      this.#places.set(place, (holding = { total: NOTHING, pairs: new Set<Pair<Place>>() }));
    }
    holding.pairs.add(pair);
    holding.total = sum(holding.total, amount);
    pair.at.set(place, sum(pair.at.get(place) ?? NOTHING, amount));
    pair.amount = sum(pair.amount, amount);
    this.#total = sum(this.#total, amount);
  }

  /** What lies in a place. */
  in(place: Place): readonly (readonly [PinPair, Amount])[] {
    return Array.from(this.#places.get(place)?.pairs ?? [], ({ first, last, at }) => {
      return [{ first: first.pin, last: last.pin }, at.get(place) ?? NOTHING] as const;
    });
  }

  /** Takes back what was added since: pins went meanwhile for both alike. */
  subtract(place: Place, { first, last }: PinPair, amount: Amount): void {
    const pair = this.#find(first, last);
    assert(pair !== undefined, 'what is taken back was added');
    const rest = difference(pair.at.get(place) ?? NOTHING, amount);
    assert(rest.images >= 0 && rest.bytes >= 0, 'what is taken back was added');
    this.#forget(place, pair);
    if (rest.images > 0) this.add(place, { first, last }, rest);
  }

  /** Nothing of it counts any more. */
  drop(place: Place): void {
    for (const pair of Array.from(this.#places.get(place)?.pairs ?? [])) this.#forget(place, pair);
  }

  clear(): void {
    for (const place of Array.from(this.#places.keys())) this.drop(place);
  }

  /** What is held by this pin and no other: what its end would give back. */
  exclusive(pin: Generation): Amount {
    return this.#find(pin, pin)?.amount ?? NOTHING;
  }

  /**
   * What each of the pins sees, alone or with others.
   * @param pins - ascending: all there are
   */
  seen(pins: readonly Generation[]): ReadonlyMap<Generation, Amount> {
    const begins = new Map<Generation, Amount>();
    const ends = new Map<Generation, Amount>();
    for (const { first, last, amount } of this.#pairs()) {
      begins.set(first.pin, sum(begins.get(first.pin) ?? NOTHING, amount));
      ends.set(last.pin, sum(ends.get(last.pin) ?? NOTHING, amount));
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
    for (const line of this.#lines.last.values()) {
      const newest = pins[bisect(pins.length, (i) => (pins[i] ?? 0) <= line.pin) - 1];
      if (newest === undefined) continue;
      for (const [first, { amount }] of line.pairs) {
        if (newest >= first.pin) held = sum(held, amount);
      }
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
    const own = this.#find(pin, pin);
    const freed = own?.amount ?? NOTHING;
    if (own !== undefined) {
      for (const [place] of Array.from(own.at)) this.#forget(place, own);
    }
    this.#handOn('last', pin, pins.largestUpTo(pin)?.generation);
    this.#handOn('first', pin, pins.smallestAbove(pin)?.generation);
    return freed;
  }

  /** @param found - of all images that are held, recounted */
  check(found: Iterable<readonly [Place, PinPair, Amount]>): void {
    const recount = new HeldCounts<Place>();
    for (const [place, pair, amount] of found) recount.add(place, pair, amount);
    assert(isSame(recount.#total, this.#total), 'what is held is counted');
    for (const side of ['first', 'last'] as const) {
      for (const [pin, line] of this.#lines[side]) {
        assert(
          line.pin === pin && line.pairs.size > 0,
          'a line stands for its pin, and holds pairs',
        );
      }
    }
    let pairs = 0;
    for (const pair of this.#pairs()) {
      const { first, last, amount, at } = pair;
      assert(first.pin <= last.pin && first.pairs.get(last) === pair, 'pairs are in both lines');
      const again = recount.#find(first.pin, last.pin);
      assert(again !== undefined && isSame(again.amount, amount), 'a pair counts its images');
      assert(again.at.size === at.size, 'a pair counts them where they are');
      for (const [place, there] of at) {
        assert(isSame(again.at.get(place) ?? NOTHING, there), 'a pair counts them where they are');
        assert(this.#places.get(place)?.pairs.has(pair) === true, 'a place knows its pairs');
      }
      pairs += 1;
    }
    assert(
      Array.from(recount.#pairs()).length === pairs,
      'a pair stands while it counts something',
    );
    for (const [place, { total, pairs: here }] of this.#places) {
      const again = recount.#places.get(place);
      assert(again?.pairs.size === here.size, 'a place has the pairs that lie there');
      assert(isSame(again.total, total), 'what lies in a place is counted');
    }
  }

  *#pairs(): Generator<Pair<Place>> {
    for (const line of this.#lines.last.values()) yield* line.pairs.values();
  }

  #find(first: Generation, last: Generation): Pair<Place> | undefined {
    const across = this.#lines.first.get(first);
    return across && this.#lines.last.get(last)?.pairs.get(across);
  }

  #pair(first: Generation, last: Generation): Pair<Place> {
    const lines = { first: this.#line('first', first), last: this.#line('last', last) };
    let pair = lines.last.pairs.get(lines.first);
    if (pair === undefined) {
      pair = { ...lines, amount: NOTHING, at: new OneOrMore<Place, Amount>() };
      lines.last.pairs.set(lines.first, pair);
      lines.first.pairs.set(lines.last, pair);
    }
    return pair;
  }

  #line(side: Side, pin: Generation): Line<Place> {
    let line = this.#lines[side].get(pin);
    if (line === undefined) {
      line = { pin, pairs: new Map<Line<Place>, Pair<Place>>() };
      this.#lines[side].set(pin, line);
    }
    return line;
  }

  #forget(place: Place, pair: Pair<Place>): void {
    const amount = pair.at.get(place) ?? NOTHING;
    const holding = this.#places.get(place);
    assert(holding !== undefined && holding.pairs.delete(pair), 'a place knows its pairs');
    holding.total = difference(holding.total, amount);
    if (holding.pairs.size === 0) this.#places.delete(place);
    this.#total = difference(this.#total, amount);
    pair.amount = difference(pair.amount, amount);
    pair.at.delete(place);
    if (pair.at.size > 0) return;
    const { first, last } = pair;
    first.pairs.delete(last);
    last.pairs.delete(first);
    if (first.pairs.size === 0) this.#lines.first.delete(first.pin);
    if (last.pairs.size === 0) this.#lines.last.delete(last.pin);
  }

  /** What began or ended at a pin does so at another one. */
  #handOn(side: Side, pin: Generation, to: Generation | undefined): void {
    const lines = this.#lines[side];
    const line = lines.get(pin);
    if (line === undefined) return;
    assert(to !== undefined, 'a pair has another pin');
    lines.delete(pin);
    const there = lines.get(to);
    const into = there === undefined || line.pairs.size > there.pairs.size ? line : there;
    into.pin = to;
    lines.set(to, into);
    if (there !== undefined) this.#moveAll(side, into === line ? there : line, into);
  }

  #moveAll(side: Side, from: Line<Place>, into: Line<Place>): void {
    for (const [across, pair] of from.pairs) {
      across.pairs.delete(from);
      const met = into.pairs.get(across);
      const kept = met === undefined ? pair : this.#together(pair, met);
      kept[side] = into;
      into.pairs.set(across, kept);
      across.pairs.set(into, kept);
    }
  }

  /** Two pairs that have become one. @returns that one of them which stands */
  #together(one: Pair<Place>, other: Pair<Place>): Pair<Place> {
    const [less, more] = one.at.size < other.at.size ? [one, other] : [other, one];
    for (const [place, amount] of less.at) {
      more.at.set(place, sum(more.at.get(place) ?? NOTHING, amount));
      const pairs = this.#places.get(place)?.pairs;
      pairs?.delete(less);
      pairs?.add(more);
    }
    more.amount = sum(more.amount, less.amount);
    return more;
  }
}

function sum(one: Amount, other: Amount): Amount {
  if (one === NOTHING) return other;
  return { images: one.images + other.images, bytes: one.bytes + other.bytes };
}

function difference(one: Amount, other: Amount): Amount {
  return { images: one.images - other.images, bytes: one.bytes - other.bytes };
}

function isSame(one: Amount, other: Amount): boolean {
  return one.images === other.images && one.bytes === other.bytes;
}
