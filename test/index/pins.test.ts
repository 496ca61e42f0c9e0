/** Reasons to keep a moment come and go; the smallest one bounds what may be forgotten. */
import { expect, it } from 'vitest';
import { Pins } from '../../index/pins.ts';
import { generation } from '../../src/base/units.ts';

it('keeps a moment until its last reason has gone', () => {
  const pins = new Pins<string>();
  const snapshot = pins.add(generation(20), 'snapshot');
  const reader = pins.add(generation(20), 'reader');
  pins.add(generation(30), 'clone');
  expect(pins.smallest()).toEqual({ generation: 20, reasons: ['snapshot', 'reader'] });
  pins.remove(snapshot);
  expect(pins.isPinned(generation(20))).toBe(true);
  pins.remove(reader);
  expect(pins.isPinned(generation(20))).toBe(false);
  expect(pins.smallest()?.generation).toBe(30);
  expect(pins.count).toBe(1);
  pins.check();
});

it('counts equal reasons apart, and refuses to remove one twice', () => {
  const pins = new Pins<string>();
  const first = pins.add(generation(5), 'reader');
  pins.add(generation(5), 'reader');
  pins.remove(first);
  expect(() => pins.remove(first)).toThrow('a pin is removed once');
  expect(pins.list()).toEqual([{ generation: 5, reasons: ['reader'] }]);
  pins.check();
});

it('finds the neighbours of a generation', () => {
  const pins = new Pins<string>();
  for (const at of [10, 20, 30]) pins.add(generation(at), `p${at}`);
  expect(pins.smallestAbove(generation(10))?.generation).toBe(20);
  expect(pins.smallestAbove(generation(30))).toBeUndefined();
  expect(pins.largestUpTo(generation(29))?.generation).toBe(20);
  expect(pins.largestUpTo(generation(9))).toBeUndefined();
});
