/** A round that keeps images, and gives space back in the middle of it. */
import { expect, test, vi } from 'vitest';
import { assert } from '../../src/base/assert.ts';
import { isVarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount, byteOffset, kibibytes } from '../../src/base/units.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { Bench, blocksOf, holds, pushRounds, put } from './bench.ts';
import { needFactsOnce } from './facts-once.ts';

const SEGMENT = kibibytes(64);
const SIZE = byteCount(3 * 248 * BLOCK_BYTES);
const KEPT = 240;

async function rounds(volume: Volume, count = 2): Promise<void> {
  await pushRounds(volume, count, 300, 40);
}

/** Joins come of it. */
async function comeAndGo(volume: Volume, time: number): Promise<void> {
  await volume.createSnapshot('young');
  await put(volume, 60 + time, blocksOf(700 + time), true);
  for (let block = 0; block < 30; block++) {
    await put(volume, block, blocksOf(2000 + 40 * time + block));
  }
  await rounds(volume);
  await volume.deleteSnapshot('young');
  await rounds(volume);
  await volume.core.collected();
}

// What it had put was taken back by the failed sync of a join that was in doubt, which comes before
// anything is freed; the last sync of the round was a good one, and the horizon passed what was gone.
test.each([
  ['works', false],
  ['fails', true],
])('a snapshot keeps what it needs where the sync of that %s', async (_, fails) => {
  const undoBytes = byteCount(SEGMENT + 28 * SEGMENT);
  const { world, sim, power } = await Bench.create(1, { size: SIZE, undoBytes });
  const { undo: disk } = sim;
  await world.run(async () => {
    const volume = await sim.open(power.life);
    const { core } = volume;
    for (let block = 0; block < KEPT; block++) await put(volume, block, blocksOf(block + 1), true);
    await rounds(volume, 4);
    await volume.createSnapshot('old');
    let joins = 0;
    const join = core.undo.join.bind(core.undo);
    const joining = vi.spyOn(core.undo, 'join').mockImplementation((record) =>
      join(async () => {
        await record();
        if (joins++ === 0) disk.failNextSync({ dropDirty: true, point: 'undo' });
      }),
    );
    for (let time = 0; joins === 0; time++) await comeAndGo(volume, time);
    joining.mockRestore();
    // Something that is garbage soon.
    await volume.createSnapshot('young');
    for (let block = 0; block < 30; block++) await put(volume, block, blocksOf(5000 + block));
    await rounds(volume, 8);
    await core.collected();
    // The file system is full once the round has put some.
    let isFull = false;
    disk.faults.watch = (_offset, length) => {
      if (isFull || core.keeping === undefined || length < 13 * BLOCK_BYTES) return;
      isFull = true;
      disk.setFull(true);
      if (fails) disk.failNextSync({ dropDirty: true, point: 'undo' });
    };
    const writing = (async (): Promise<void> => {
      for (let block = 90; block < KEPT;) {
        try {
          await put(volume, block, blocksOf(9000, 10));
          block += 10;
        } catch (error) {
          // It is asked again, until there is room.
          if (!isVarveError(error)) throw error;
          await world.sleep(100_000);
        }
      }
      for (let i = 0; !isFull; i++) await put(volume, 300 + 10 * (i % 4), blocksOf(20_000, 10));
    })();
    while (!isFull) await world.sleep(10_000);
    const syncs = (): number => disk.counters.syncsBy.get('undo') ?? 0;
    const before = syncs();
    const deleting = volume.deleteSnapshot('young');
    while (syncs() === before) await world.sleep(100_000);
    await world.sleep(200_000);
    disk.faults.watch = undefined;
    disk.setFull(false);
    await Promise.all([deleting, writing]);
    await rounds(volume, 3);
    const moment = volume.openMoment(await volume.resolve('old'));
    for (let block = 0; block < KEPT; block++) {
      expect(await holds(moment, block, [blocksOf(block + 1)]), `block ${block}`).toBe(0);
    }
    await moment.close();
    await volume.close();
  });
});

// Zeros wait for the next step that has content. Where a part of that one was put, and one of theirs
// came to be content in the meantime, the round forgot that part, and put it once more.
test.each([
  ['stay zeros', false],
  ['can not be read any more', true],
])('what was put of a step is put once, where the zeros before it %s', async (_, isRefused) => {
  const bench = await Bench.create(3, { size: byteCount(1000 * BLOCK_BYTES), slots: 24 });
  const { world, sim } = bench;
  await bench.use(async (volume) => {
    const { core } = volume;
    for (let i = 0; i < 30; i++) await put(volume, 500 + i, blocksOf(1 + i));
    await pushRounds(volume, 2, 850, 40);
    await volume.createSnapshot('first');
    const second = 2 * SEGMENT;
    const mend = sim.undo.failWrite({ offset: second, length: sim.undo.size - second });
    const blank = byteOffset(800 * BLOCK_BYTES);
    await volume.live().trim(blank, byteCount(BLOCK_BYTES), { fua: false });
    for (let i = 0; i < 30; i += 10) await put(volume, 500 + i, blocksOf(100 + i, 10));
    for (let i = 0; (core.keeping?.put.size ?? 0) === 0; i++) {
      assert(i < 300, 'a round fails in the middle of a step');
      await put(volume, 850 + (i % 40), blocksOf(500 + i));
      await world.sleep(1000);
    }
    if (isRefused) sim.final.failRead({ offset: blank, length: BLOCK_BYTES });
    mend();
    const { rounds: before } = core.counters;
    while (core.counters.rounds === before) await world.sleep(200_000);
    const moment = volume.openMoment(await volume.resolve('first'));
    for (let i = 0; i < 30; i++) expect(await holds(moment, 500 + i, [blocksOf(1 + i)])).toBe(0);
    await moment.close();
    await core.home.run(() => core.undo.check());
    await needFactsOnce(volume);
  });
});
