/** What the read cache keeps is its own: callers go on using their memory. */
import { describe, expect, test } from 'vitest';
import {
  block,
  BLOCK_BYTES,
  byteOffset,
  generation,
  kibibytes,
  lsn,
  mebibytes,
} from '../../src/base/units.ts';
import { ReadCache } from '../../src/volume/read-cache.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { Bench, blocksOf, put } from '../crash/bench.ts';

describe('the read cache', () => {
  test.each([
    ['a Buffer, whose slice is a view', Buffer.alloc(BLOCK_BYTES, 7)],
    ['a Uint8Array', new Uint8Array(BLOCK_BYTES).fill(7)],
  ])('keeps a copy of %s', (_, data) => {
    const cache = new ReadCache(kibibytes(64));
    cache.keepLsn(lsn(4096), data);
    cache.keepHome(block(3), generation(5), data);
    data.fill(9);
    expect(cache.atLsn(lsn(4096))?.every((byte) => byte === 7)).toBe(true);
    expect(cache.atHome(block(3), generation(5))?.every((byte) => byte === 7)).toBe(true);
    expect(cache.atHome(block(3), generation(6))).toBeUndefined();
  });
});

/** Reads one block twice into one Buffer that is scribbled over in between. */
async function readTwice(volume: Volume, at: number, expected: Uint8Array): Promise<void> {
  const target = Buffer.alloc(BLOCK_BYTES);
  for (let time = 0; time < 3; time++) {
    await volume.live().read(byteOffset(at * BLOCK_BYTES), target);
    expect(Buffer.compare(target, expected)).toBe(0);
    target.fill(0xee);
  }
}

describe('a read into a Buffer', () => {
  test('of a block that the log holds gives the same when its memory was used again', async () => {
    const bench = await Bench.create(1);
    await bench.use(async (volume) => {
      for (let i = 0; i < 8; i++) await put(volume, i, blocksOf(i));
    });
    // The ring is new: the blocks come from the device, and then from the cache.
    await bench.use(async (volume) => {
      for (let i = 0; i < 8; i++) await readTwice(volume, i, blocksOf(i));
      const reads = bench.sim.log.counters.reads;
      await readTwice(volume, 3, blocksOf(3));
      expect(bench.sim.log.counters.reads).toBe(reads);
    });
  });

  test('of a settled block as well', async () => {
    const bench = await Bench.create(2, { size: mebibytes(1) });
    await bench.use(async (volume) => {
      for (let i = 0; i < 8; i++) await put(volume, i, blocksOf(i));
      for (let i = 0; volume.core.settled < 8; i++) await put(volume, 40 + (i % 40), blocksOf(i));
    });
    await bench.use(async (volume) => {
      for (let i = 0; i < 8; i++) await readTwice(volume, i, blocksOf(i));
      const reads = bench.sim.final.counters.reads;
      await readTwice(volume, 3, blocksOf(3));
      expect(bench.sim.final.counters.reads).toBe(reads);
    });
  });
});
