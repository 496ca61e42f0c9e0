/** Each planned state, read as a device in odd pieces, is what the rules make of the disk. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { byteCount, byteOffset, generation } from '../../src/base/units.ts';
import type { Stretch } from '../../src/explore/crash-state.ts';
import { planStates } from '../../src/explore/plan.ts';
import { StateDevice, type ReadMoment } from '../../src/explore/state-device.ts';
import { diskOf, SmallDisk, stretchOf, type SmallRequest } from './disks.ts';

const BLOCKS = 6;
/** The disk ends inside its last block. */
const SIZE = BLOCKS * 4096 - 1024;

/** A sector's content, as many different bytes as there are contents. */
class Inks {
  readonly #known = new Map<string, number>();

  paint(disk: string): Buffer {
    const bytes = Buffer.alloc(BLOCKS * 4096);
    disk.split(',').forEach((content, sector) => {
      const ink = content === ZERO ? 0 : (this.#known.get(content) ?? this.#known.size + 1);
      if (ink > this.#known.size) this.#known.set(content, ink);
      bytes.fill(ink, sector * 512, (sector + 1) * 512);
    });
    return bytes.subarray(0, SIZE);
  }
}

const ZERO = (() => {
  const disk = new SmallDisk(1);
  const [request] = stretchOf([{ fua: false, parts: [{ start: 0, contents: 1 }] }], []).requests;
  if (request !== undefined) disk.apply(request);
  return disk.text.split(',')[0] ?? '';
})();

function momentsOf(stretch: Stretch, inks: Inks): { read: ReadMoment; asked: Set<number> } {
  const asked = new Set<number>();
  const read: ReadMoment = async (at, offset, target) => {
    asked.add(at);
    const disk = new SmallDisk(BLOCKS);
    for (const request of stretch.requests) if (request.generation <= at) disk.apply(request);
    target.set(inks.paint(disk.text).subarray(offset, offset + target.length));
  };
  return { read, asked };
}

const request = fc
  .record({
    fua: fc.constant(false),
    start: fc.nat(BLOCKS - 1),
    count: fc.integer({ min: 1, max: 3 }),
    zero: fc.boolean(),
    content: fc.integer({ min: 1, max: 9 }),
  })
  .map(({ fua, start, count, zero, content }): SmallRequest => {
    const length = Math.min(count, BLOCKS - start);
    const contents = Array.from({ length }, (_, at) => content * 10 + at);
    return { fua, parts: [{ start, contents: zero ? length : contents }] };
  });

it('reads as what the rules make of the disk, in whole and in odd pieces', async () => {
  const pieces = fc.array(fc.tuple(fc.nat(SIZE - 1), fc.integer({ min: 1, max: 9000 })), {
    maxLength: 4,
  });
  const lists = fc.array(request, { maxLength: 6 });
  await fc.assert(
    fc.asyncProperty(lists, fc.nat(6), pieces, async (list, flush, asked) => {
      const stretch = stretchOf(list, [flush]);
      const { states } = planStates(stretch, { statesMax: 60, seed: flush, torn: true });
      const inks = new Inks();
      const { read } = momentsOf(stretch, inks);
      for (const state of states) {
        const expected = inks.paint(diskOf(stretch, state, BLOCKS));
        const device = new StateDevice(stretch, state, { size: byteCount(SIZE), read });
        for (const [offset, length] of [[0, SIZE] as const, ...asked]) {
          const target = Buffer.alloc(Math.min(length, SIZE - offset));
          await device.read(byteOffset(offset), target);
          expect(target.equals(expected.subarray(offset, offset + target.length))).toBe(true);
        }
      }
    }),
    { numRuns: 150 },
  );
});

it('reads at few moments: the last one, as far as nothing later is in the way', async () => {
  const write = (start: number): SmallRequest => ({
    fua: false,
    parts: [{ start, contents: [start + 1] }],
  });
  const stretch = stretchOf([write(0), write(1), write(2), write(1)], []);
  const { states } = planStates(stretch, { statesMax: 100, seed: 1, torn: false });
  const { read, asked } = momentsOf(stretch, new Inks());
  for (const state of states) {
    const device = new StateDevice(stretch, state, { size: byteCount(SIZE), read });
    await device.read(byteOffset(0), Buffer.alloc(SIZE));
  }
  // The second request's block was written again, so only it has a moment of its own.
  expect([...asked].toSorted((a, b) => a - b)).toEqual([100, 102, 104].map(generation));
});
