/**
 * One sector of final storage, of its sums or of the undo device that can't be read: the volume opens,
 * and what lay there is EIO, alone. A device of which nothing reads is away, and is refused.
 */
import { describe, expect, test } from 'vitest';
import { BLOCK_BYTES, byteCount, kibibytes } from '../../src/base/units.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { Bench, blocksOf, holds, pushRounds, put, unreadable } from './bench.ts';

/** Three pages of sums. */
const BLOCKS = 3 * 248;
/** They fill several segments of the undo device. */
const SNAPPED = 40;
/** Of the undo device. */
const SLOTS_AT = kibibytes(64);

/** The first blocks are `blocksOf(100 + block)`, and were `blocksOf(block + 1)` at the snapshot. */
async function made(): Promise<Bench> {
  const bench = await Bench.create(1, { size: byteCount(BLOCKS * BLOCK_BYTES) });
  await bench.use(async (volume) => {
    for (let block = 0; block < SNAPPED; block++) await put(volume, block, blocksOf(block + 1));
    await pushRounds(volume, 1, 260);
    await volume.createSnapshot('before');
    for (let block = 0; block < SNAPPED; block++) await put(volume, block, blocksOf(100 + block));
    await pushRounds(volume, 8, 260);
  });
  return bench;
}

/** Those that can't be read; the first ones are right otherwise. */
async function badBlocks(volume: Volume, moment?: string): Promise<readonly number[]> {
  const device =
    moment === undefined ? volume.live() : volume.openMoment(await volume.resolve(moment));
  const bad = [...(await unreadable(device, 0, BLOCKS)).keys()];
  for (let block = 0; block < SNAPPED; block++) {
    if (bad.includes(block)) continue;
    const value = moment === undefined ? 100 + block : block + 1;
    expect(await holds(device, block, [blocksOf(value)])).toBe(0);
  }
  if (moment !== undefined) await device.close();
  return bad;
}

/** Opens read-only, and then to go on. */
async function eachWay(bench: Bench, look: (volume: Volume) => Promise<void>): Promise<void> {
  await bench.world.run(async () => {
    const volume = await bench.sim.open(bench.power.life, { readOnly: true });
    await look(volume);
    await volume.close();
  });
  await bench.use(look);
}

function range(from: number, to: number): readonly number[] {
  return Array.from({ length: to - from }, (_, i) => from + i);
}

describe('of final storage', () => {
  // An opening compares some blocks and sums; one that it could not read was the end of it.
  test.each([
    ['the first block', 'final', 0, [0]],
    ['the first page of sums', 'sums', 0, range(0, 248)],
    ['a page that is sampled', 'sums', 1, range(248, 496)],
  ] as const satisfies readonly [string, 'final' | 'sums', number, readonly number[]][])(
    '%s is no reason to refuse',
    async (_, disk, place, bad) => {
      const bench = await made();
      bench.sim[disk].failRead({ offset: place * BLOCK_BYTES, length: 1 });
      await eachWay(bench, async (volume) => {
        const got = await badBlocks(volume);
        expect(got.length).toBeGreaterThan(0);
        expect(got.filter((block) => !bad.some((one) => one === block))).toEqual([]);
      });
    },
  );

  test('a block that the last round wrote is no reason to refuse', async () => {
    const bench = await made();
    const block = await bench.use(async (volume) => volume.core.catalogue.witnesses[0]?.block ?? 0);
    bench.sim.final.failRead({ offset: block * BLOCK_BYTES, length: 1 });
    await eachWay(bench, async (volume) => {
      expect((await badBlocks(volume)).filter((one) => one !== block)).toEqual([]);
    });
  });
});

describe('of the undo device', () => {
  /** From the beginning of a slot, in blocks, how many; whether the snapshot needs them. */
  const PLACES: readonly [string, number, number, boolean][] = [
    ['the header of a slot', 0, 1, false],
    ['the first batch header', 1, 1, true],
    ['both of these', 0, 2, true],
    ['a payload', 2, 1, true],
    ['the last block', 15, 1, false],
  ];

  describe.each([
    ['a slot with a summary', 0],
    ['one without', 6],
  ])('in %s', (_, slot) => {
    // The whole volume was refused for what only snapshots need; and a slot of which nothing can be
    // told must not be taken for a free one.
    test.each(PLACES)('%s is no reason to refuse', async (_place, place, count, isNeeded) => {
      const bench = await made();
      const { segmentBytes } = bench.sim.geometry;
      expect(segmentBytes).toBe(16 * BLOCK_BYTES);
      const at = SLOTS_AT + slot * segmentBytes + place * BLOCK_BYTES;
      const heal = bench.sim.undo.failRead({ offset: at, length: count * BLOCK_BYTES });
      await eachWay(bench, async (volume) => {
        expect(await badBlocks(volume)).toEqual([]);
        const bad = await badBlocks(volume, 'before');
        expect(bad.length > 0).toBe(isNeeded);
        expect(bad.length).toBeLessThan(SNAPPED / 2);
        if (volume.core.readOnly || bad.length === 0) return;
        const { damages } = await volume.scrub({ bytesPerSecond: 0, progress: () => undefined });
        expect(damages.map((damage) => damage.place)).toContain('before-image');
      });
      // What rounds and joins do meanwhile leaves it where it is.
      await bench.use((volume) => pushRounds(volume, 4, 300));
      heal();
      await eachWay(bench, async (volume) => {
        expect(await badBlocks(volume, 'before')).toEqual([]);
        await volume.core.undo.check();
      });
    });
  });
});

test.each(['final', 'sums', 'undo'] as const)('%s, all of it, is refused', async (disk) => {
  const bench = await made();
  const heal = bench.sim[disk].failRead({ offset: 0, length: bench.sim[disk].size });
  expect(await bench.openError()).toMatchObject({ code: 'DEVICE_IO' });
  heal();
  await bench.use(async (volume) => expect(await badBlocks(volume, 'before')).toEqual([]));
});
