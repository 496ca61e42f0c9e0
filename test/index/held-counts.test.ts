/** What pins hold, counted by pairs, is what counting the images one by one gives. */
import { describe, expect, it } from 'vitest';
import { generation as toGeneration, type Generation } from '../../src/base/units.ts';
import { HeldCounts, pinPair, type Amount, type PinPair } from '../../index/held-counts.ts';
import { Pins, type PinHandle } from '../../index/pins.ts';
import { SeededRandom } from '../sim/random.ts';

interface Image {
  readonly from: Generation;
  readonly until: Generation;
  readonly bytes: number;
  /** Where it lies. */
  readonly place: number;
}

function amountOf(images: readonly Image[]): Amount {
  return { images: images.length, bytes: images.reduce((sum, { bytes }) => sum + bytes, 0) };
}

function sees(pin: number, { from, until }: Image): boolean {
  return from <= pin && pin < until;
}

describe('pairs of pins', () => {
  it('are the first and the last that see an image', () => {
    const pins = new Pins<string>();
    for (const at of [10, 20, 30]) pins.add(toGeneration(at), 'snapshot');
    const pair = (from: number, until: number): PinPair | undefined =>
      pinPair(pins, toGeneration(from), toGeneration(until));
    expect(pair(0, 10)).toBeUndefined();
    expect(pair(0, 11)).toEqual({ first: 10, last: 10 });
    expect(pair(10, 30)).toEqual({ first: 10, last: 20 });
    expect(pair(11, 20)).toBeUndefined();
    expect(pair(11, 99)).toEqual({ first: 20, last: 30 });
    expect(pair(31, 99)).toBeUndefined();
  });

  it.each(Array.from({ length: 50 }, (_, seed) => seed))(
    'give back exactly what nobody sees any more: seed %i',
    (seed) => {
      const random = new SeededRandom(seed);
      const pins = new Pins<string>();
      const counts = new HeldCounts<number>();
      const pairOf = ({ from, until }: Image): PinPair | undefined => pinPair(pins, from, until);
      const handles: PinHandle<string>[] = [];
      let images: Image[] = [];
      let head = 1;
      const isHeld = (image: Image): boolean =>
        pins.list().some((pin) => sees(pin.generation, image));
      for (let step = 0; step < 120; step++) {
        if (random.chance(0.4)) {
          // A round: images of what it replaces, up to the horizon that it sets.
          const first = head;
          head += 1 + random.below(10);
          for (let i = random.below(8); i > 0; i--) {
            const until = toGeneration(random.between(first + 1, head));
            const from = toGeneration(random.below(until));
            const bytes = 4096 * random.below(3);
            const image = { from, until, bytes, place: random.below(5) };
            const pair = pairOf(image);
            expect(pair !== undefined).toBe(isHeld(image));
            if (pair === undefined) continue;
            counts.add(image.place, pair, { images: 1, bytes });
            images.push(image);
          }
        } else if (random.chance(0.1)) {
          // A place is given up, or one image of it.
          const place = random.below(5);
          const here = images.filter((image) => image.place === place);
          const [one] = here;
          const pair = one && pairOf(one);
          if (one !== undefined && pair !== undefined && random.chance(0.5)) {
            counts.subtract(place, pair, { images: 1, bytes: one.bytes });
            images = images.filter((image) => image !== one);
          } else {
            const told = counts.in(place).map(([, { images: count }]) => count);
            expect(told.reduce((sum, count) => sum + count, 0)).toBe(here.length);
            counts.drop(place);
            images = images.filter((image) => image.place !== place);
          }
        } else if (random.chance(0.5) || handles.length === 0) {
          const at = toGeneration(head + random.below(5));
          head = at;
          handles.push(pins.add(at, 'snapshot'));
        } else {
          const [handle] = handles.splice(random.below(handles.length), 1);
          if (handle === undefined) continue;
          pins.remove(handle);
          if (pins.isPinned(handle.generation)) continue;
          const promised = counts.exclusive(handle.generation);
          const gone = images.filter((image) => !isHeld(image));
          expect(counts.unpinned(handle.generation, pins)).toEqual(amountOf(gone));
          expect(promised).toEqual(amountOf(gone));
          images = images.filter(isHeld);
        }
        counts.check(
          images.flatMap((image) => {
            const pair = pairOf(image);
            const amount = { images: 1, bytes: image.bytes };
            return pair === undefined ? [] : [[image.place, pair, amount] as const];
          }),
        );
        expect(counts.total).toEqual(amountOf(images));
        for (let place = 0; place < 5; place++) {
          const here = images.filter((image) => image.place === place);
          expect(counts.places.get(place)?.total).toEqual(
            here.length === 0 ? undefined : amountOf(here),
          );
        }
        const all = pins.list().map(({ generation }) => generation);
        const seen = counts.seen(all);
        for (const pin of all) {
          expect(seen.get(pin)).toEqual(amountOf(images.filter((image) => sees(pin, image))));
        }
        const some = all.filter(() => random.chance(0.5));
        const needed = images.filter((image) => some.some((pin) => sees(pin, image)));
        expect(counts.heldBy(some)).toEqual(amountOf(needed));
      }
      for (const handle of handles) {
        pins.remove(handle);
        if (!pins.isPinned(handle.generation)) counts.unpinned(handle.generation, pins);
      }
      expect(counts.places.size).toBe(0);
      expect(counts.total).toEqual({ images: 0, bytes: 0 });
    },
  );
});
