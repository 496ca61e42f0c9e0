/**
 * What snapshots keep is joined where segments of the undo device are mostly empty. One that can't be
 * read stopped that for good: each attempt began with it, failed at it, and left what it had copied
 * behind, until writers were told UNDO_FULL though nearly everything could be freed.
 */
import { describe, expect, it } from 'vitest';
import { block as blockOf, BLOCK_BYTES, byteCount, kibibytes } from '../../src/base/units.ts';
import type { Volume } from '../../src/volume/volume.ts';
import type { FoundImage } from '../../log/found-image.ts';
import { Bench, blocksOf, holds, pushRounds, put, unreadable } from '../crash/bench.ts';

const SIZE = byteCount(3 * 248 * BLOCK_BYTES);
const SLOTS = 16;
const KEPT = 120;
/** Of which each step replaces one that the oldest snapshot needs. */
const FIRST_REPLACED = 60;
const STEPS = 14;

/** Fills segments with what younger snapshots need, and lets go of these. */
async function step(volume: Volume, k: number): Promise<void> {
  await volume.createSnapshot(`young-${k}`);
  await put(volume, FIRST_REPLACED + k, blocksOf(700 + k), true);
  for (let block = 0; block < 30; block++)
    await put(volume, block, blocksOf(2000 + 40 * k + block));
  await pushRounds(volume, 2, 300, 40);
  await volume.deleteSnapshot(`young-${k}`);
  await pushRounds(volume, 2, 300, 40);
  await volume.core.collected();
}

/** Of the first block that was replaced, as the snapshot has it. */
async function imageOf(volume: Volume): Promise<FoundImage> {
  const { undo, pins } = volume.core;
  const at = pins.smallest()?.generation;
  if (at === undefined) throw new Error('there is a snapshot');
  const { copies } = await undo.find(blockOf(FIRST_REPLACED), 1, at);
  const image = copies[0]?.[0];
  if (image === undefined) throw new Error('it has an image');
  return image;
}

async function prepared(): Promise<Bench> {
  const undoBytes = byteCount(kibibytes(64) + SLOTS * kibibytes(64));
  const bench = await Bench.create(1, { size: SIZE, undoBytes });
  await bench.use(async (volume) => {
    for (let block = 0; block < KEPT; block++) await put(volume, block, blocksOf(block + 1), true);
    await pushRounds(volume, 4, 300, 40);
    await volume.createSnapshot('old');
  });
  return bench;
}

/** @returns blocks of the old snapshot that the device refuses; all others are right */
async function refused(volume: Volume): Promise<readonly number[]> {
  const moment = volume.openMoment(await volume.resolve('old'));
  const failed = await unreadable(moment, 0, KEPT);
  for (let block = 0; block < KEPT; block++) {
    if (failed.has(block)) expect(failed.get(block)).toContain('DEVICE_IO');
    else expect(await holds(moment, block, [blocksOf(block + 1)]), `block ${block}`).toBe(0);
  }
  await moment.close();
  return [...failed.keys()];
}

describe('joining what snapshots keep', () => {
  it('passes over a segment of which the device refuses a block', async () => {
    const bench = await prepared();
    await bench.use(async (volume) => {
      for (let k = 0; k < STEPS; k++) {
        await step(volume, k);
        if (k !== 1) continue;
        const { place } = await imageOf(volume);
        bench.sim.undo.failRead({ offset: place, length: 512 });
      }
      const { undo } = volume.core;
      expect(undo.segments).toBeLessThan(SLOTS - 2);
      expect(undo.joins).toBeGreaterThan(2);
      expect(undo.hasGarbage).toBe(false);
      expect(await refused(volume)).toEqual([FIRST_REPLACED]);
    });
  });

  it('leaves nothing out because the device was away for a while', async () => {
    const bench = await prepared();
    await bench.use(async (volume) => {
      const { undo } = volume.core;
      for (let k = 0; k < 3; k++) await step(volume, k);
      const mend = bench.sim.undo.failRead({ offset: 0, length: bench.sim.undo.size });
      for (let k = 3; k < 6; k++) await step(volume, k);
      const before = undo.segments;
      mend();
      for (let k = 6; k < STEPS; k++) await step(volume, k);
      expect(undo.segments).toBeLessThan(before);
      await undo.check();
      expect(await refused(volume)).toEqual([]);
    });
  });
});
