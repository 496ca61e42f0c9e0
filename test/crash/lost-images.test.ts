/** Before-images that nobody can read any more, of a round that a cut interrupted. */
import { expect, test } from 'vitest';
import { isVarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount, byteOffset } from '../../src/base/units.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { Bench, blocksOf, put, unreadable } from './bench.ts';

/** Blocks of a whole page of sums. */
const PAGE_BLOCKS = 248;
const WRITTEN = 300;
/** Of the batch that the round puts: behind the header of its segment. */
const HEADER_AT = 64 * 1024 + BLOCK_BYTES;

/** Trims what a snapshot sees, until the round has its images and can't write home. */
async function interrupted(volume: Volume): Promise<void> {
  await put(volume, WRITTEN, blocksOf(7), true);
  await volume.createSnapshot('first');
  const [from, length] = [PAGE_BLOCKS * BLOCK_BYTES, PAGE_BLOCKS * BLOCK_BYTES];
  await volume.live().trim(byteOffset(from), byteCount(length), { fua: true });
  const trimmed = volume.core.head;
  const { log } = volume.core;
  for (let i = 0; log.superblock.horizon.generation < trimmed; i++) {
    expect(i).toBeLessThan(400);
    try {
      await put(volume, 40 + (i % 40), blocksOf(1000 + i));
    } catch (error) {
      if (!isVarveError(error, 'DEVICE_IO')) throw error;
    }
  }
}

// The round that was made again asked who may have images there. The one that could not be read was
// not among them, so it left no stamps: the snapshot read zeros, and nobody was told.
test.each(['can not be read', 'has rotted'])(
  'an image whose header %s is an error, never zeros, when its round is made again',
  async (how) => {
    const bench = await Bench.create(3, { size: byteCount(1000 * BLOCK_BYTES) });
    const { final, undo } = bench.sim;
    const heal = final.failWrite({ offset: 0, length: final.size });
    await bench.lose('cut', interrupted);
    heal();
    const isRot = how === 'has rotted';
    const restore = isRot ? undefined : undo.failRead({ offset: HEADER_AT, length: 1 });
    if (isRot) undo.corrupt(HEADER_AT + 100, new Uint8Array(300).fill(9));
    for (let life = 0; life < 2; life++) {
      await bench.use(async (volume) => {
        const { core } = volume;
        while (core.settled < core.horizon.generation) await bench.world.sleep(10_000);
        const moment = volume.openMoment(await volume.resolve('first'));
        expect((await unreadable(moment, WRITTEN, 1)).size).toBe(1);
        await moment.close();
      });
    }
    restore?.();
    if (isRot) return;
    await bench.use(async (volume) => {
      const moment = volume.openMoment(await volume.resolve('first'));
      expect((await unreadable(moment, WRITTEN, 1)).size).toBe(0);
      await moment.close();
    });
  },
);

// Each block that was refused had attempts of its own, one after the other: a snapshot over some blocks
// of zeros that can't be read had all writers refused for minutes.
test('zeros that can not be read together have their attempts together', async () => {
  const [first, count] = [500, 16];
  const bench = await Bench.create(3, { size: byteCount(1000 * BLOCK_BYTES) });
  await bench.use(async (volume) => {
    await put(volume, 1, blocksOf(1));
    await volume.createSnapshot('first');
    bench.sim.final.failRead({ offset: first * BLOCK_BYTES, length: count * BLOCK_BYTES });
    for (let i = 0; i < count; i++) await put(volume, first + i, blocksOf(10 + i));
    const { counters } = volume.core;
    const until = counters.rounds + 4;
    const began = bench.world.clock.monotonicUs();
    for (let i = 0; counters.rounds < until; i++) {
      await put(volume, 40 + (i % 40), blocksOf(1000 + i)).catch(() => bench.world.sleep(100_000));
    }
    expect(bench.world.clock.monotonicUs() - began).toBeLessThan(8_000_000);
  });
});
