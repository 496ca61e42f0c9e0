/** Pins beside a plain list of reasons. */
import fc from 'fast-check';
import { Pins, type PinHandle } from '../../index/pins.ts';
import { assert } from '../../src/base/assert.ts';
import { generation } from '../../src/base/units.ts';
import type { Fuzzer } from '../options.ts';

const step = fc.oneof(
  fc.record({ kind: fc.constant('add' as const), at: fc.nat({ max: 50 }) }),
  fc.record({ kind: fc.constant('remove' as const), at: fc.nat({ max: 50 }) }),
);

export const fuzzer: Fuzzer = {
  name: 'index-pins',
  main({ seed, runs, onStep }) {
    const property = fc.property(fc.array(step, { maxLength: 200, size: 'max' }), (steps) => {
      const pins = new Pins<number>();
      let handles: PinHandle<number>[] = [];
      for (const [number, { kind, at }] of steps.entries()) {
        onStep?.();
        const gone = handles[at % Math.max(handles.length, 1)];
        if (kind === 'add') handles.push(pins.add(generation(at), number));
        else if (gone !== undefined) {
          pins.remove(gone);
          handles = handles.filter((handle) => handle !== gone);
        }
        pins.check();
        const pinned = handles.map((handle): number => handle.generation).toSorted(descending);
        const above = pinned.findLast((candidate) => candidate > at);
        const upTo = pinned.find((candidate) => candidate <= at);
        assert(pins.count === handles.length, 'every reason is counted');
        assert(pins.smallest()?.generation === pinned.at(-1), 'the smallest is known');
        assert(pins.smallestAbove(generation(at))?.generation === above, 'the next is known');
        assert(pins.largestUpTo(generation(at))?.generation === upTo, 'the one before is known');
        assert(pins.generations === new Set(pinned).size, 'each moment is listed once');
      }
    });
    fc.assert(property, { seed, numRuns: runs });
  },
};

function descending(left: number, right: number): number {
  return right - left;
}
