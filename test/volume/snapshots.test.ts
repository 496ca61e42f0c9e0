/** Snapshots that have outlived the window: stories of what they have to show. */
import { describe, expect, test } from 'vitest';
import { block as blockOf, BLOCK_BYTES, byteCount, byteOffset } from '../../src/base/units.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { Bench, blocksOf, get, holds, pushRounds, put, unreadable } from '../crash/bench.ts';

const NO = { fua: false };
/** Whole pages of checksums, which a trim clears. */
const SIZE = byteCount(1000 * BLOCK_BYTES);
/** Of the undo device of a simulated volume. */
const FIRST_SLOT = 64 * 1024;
const SLOT_BYTES = 64 * 1024;
/** Beyond what `pushRounds` writes. */
const BLOCK = 500;

async function at(volume: Volume, label: string): Promise<Uint8Array> {
  const moment = volume.openMoment(await volume.resolve(label));
  const content = new Uint8Array(BLOCK_BYTES);
  await moment.read(byteOffset(BLOCK * BLOCK_BYTES), content);
  await moment.close();
  return content;
}

describe('snapshots below the horizon', () => {
  // A trim of whole pages leaves no stamp: the zeros behind it were kept as if they had been there
  // from the beginning, and hid the data that an older snapshot has.
  test('show data from before a trim of everything, and zeros from after it', async () => {
    const bench = await Bench.create(1, { size: SIZE });
    await bench.use(async (volume) => {
      await put(volume, BLOCK, blocksOf(1));
      await volume.createSnapshot('before');
      await volume.live().trim(byteOffset(0), SIZE, NO);
      await pushRounds(volume, 2);
    });
    // Another opening has another segment of before-images, which is looked at first.
    await bench.use(async (volume) => {
      await volume.createSnapshot('after');
      await put(volume, BLOCK, blocksOf(2));
      await pushRounds(volume, 5);
    });
    await bench.use(async (volume) => {
      expect(await at(volume, 'before')).toEqual(blocksOf(1));
      expect(await at(volume, 'after')).toEqual(new Uint8Array(BLOCK_BYTES));
      expect(await get(volume.live(), BLOCK)).toEqual(blocksOf(2));
    });
  });

  test('tell what is allocated in them, and what changed since', async () => {
    const bench = await Bench.create(2, { size: SIZE });
    await bench.use(async (volume) => {
      await put(volume, BLOCK, blocksOf(1));
      await volume.createSnapshot('first');
      await volume.live().trim(byteOffset(BLOCK * BLOCK_BYTES), byteCount(BLOCK_BYTES), NO);
      await put(volume, BLOCK + 2, blocksOf(2));
      await volume.createSnapshot('second');
      await put(volume, BLOCK, blocksOf(3));
      await pushRounds(volume, 3);
      const [first, second] = volume.snapshots().map(({ generation }) => generation);
      if (first === undefined || second === undefined) throw new Error('there are two');
      expect(second).toBeLessThan(volume.core.horizon.generation);
      const from = byteOffset(BLOCK * BLOCK_BYTES);
      const moment = volume.openMoment(await volume.resolve('second'));
      const length = byteCount(3 * BLOCK_BYTES);
      const runs = await moment.status('base:allocation', from, length, 10);
      expect(runs.map((run) => [run.length / BLOCK_BYTES, run.flags])).toEqual([
        [2, 3],
        [1, 0],
      ]);
      await moment.close();
      const query = { from: first, to: second, offset: byteOffset(0), rangesMax: 10 };
      const page = await volume.past.changed(query);
      expect(page.ranges.map(({ offset, became }) => [offset / BLOCK_BYTES, became])).toEqual([
        [BLOCK, 'zeros'],
        [BLOCK + 2, 'data'],
      ]);
    });
  });

  test('say which block of them is damaged, and a scrub finds it', async () => {
    const bench = await Bench.create(3, { size: SIZE });
    await bench.use(async (volume) => {
      await put(volume, BLOCK, blocksOf(1, 2));
      await volume.createSnapshot('first');
      await put(volume, BLOCK, blocksOf(2, 2));
      await pushRounds(volume, 3);
      const { undo } = volume.core;
      const [generation] = volume.snapshots().map((one) => one.generation);
      if (generation === undefined) throw new Error('there is one');
      const [[image] = []] = (await undo.find(blockOf(BLOCK), 1, generation)).copies;
      if (image === undefined) throw new Error('its image is there');
      const sound = await volume.scrub({ bytesPerSecond: 0, progress: () => undefined });
      expect(sound.ok).toBe(true);
      bench.sim.undo.corruptBit(image.place + 77, 1);
      const moment = volume.openMoment(await volume.resolve('first'));
      expect(await unreadable(moment, BLOCK, 2)).toEqual(new Map([[BLOCK, 'BLOCK_CORRUPT EIO']]));
      await moment.close();
      expect(await holds(volume.live(), BLOCK, [blocksOf(2, 2)])).toBe(0);
      const report = await volume.scrub({ bytesPerSecond: 0, progress: () => undefined });
      expect(report.damages).toMatchObject([
        { place: 'before-image', outcome: 'left', block: BLOCK, seenBy: { snapshots: ['first'] } },
      ]);
    });
  });

  // One damaged header of a batch made every block that might have been in it unreadable, those
  // that nothing has replaced as well.
  test('read what home still has, when the headers of before-images are damaged', async () => {
    const bench = await Bench.create(4, { size: SIZE });
    await bench.use(async (volume) => {
      await put(volume, BLOCK, blocksOf(1, 3));
      await volume.createSnapshot('first');
      await put(volume, BLOCK, blocksOf(2));
      await put(volume, BLOCK + 2, blocksOf(2));
      await pushRounds(volume, 3);
    });
    await bench.use(async (volume) => {
      for (const { place } of volume.core.undo.batches()) bench.sim.undo.corruptBit(place + 99, 1);
      const moment = volume.openMoment(await volume.resolve('first'));
      const bad = await unreadable(moment, BLOCK, 3);
      expect([...bad.keys()]).toEqual([BLOCK, BLOCK + 2]);
      expect(await get(moment, BLOCK + 1)).toEqual(blocksOf(1, 2).subarray(BLOCK_BYTES));
      await moment.close();
    });
  });

  // A damaged header made its slot a free one, which the next opening erased.
  test('outlive the header of their segment', async () => {
    const bench = await Bench.create(5, { size: SIZE });
    await bench.lose('kill', async (volume) => {
      await put(volume, BLOCK, blocksOf(1));
      await volume.createSnapshot('first');
      await put(volume, BLOCK, blocksOf(2));
      await pushRounds(volume, 3);
    });
    bench.sim.undo.corrupt(byteOffset(FIRST_SLOT), new Uint8Array(BLOCK_BYTES));
    for (let i = 0; i < 2; i++) {
      await bench.lose('kill', async (volume) => {
        expect(await at(volume, 'first')).toEqual(blocksOf(1));
      });
    }
  });

  // A trim of whole pages left no stamp, so what had lost its before-image read as zeros, as a hole
  // that never changed.
  test('are never zeros where a before-image was lost', async () => {
    const bench = await Bench.create(6, { size: SIZE });
    await bench.use(async (volume) => {
      await put(volume, BLOCK, blocksOf(1));
      await volume.createSnapshot('before');
      await volume.live().trim(byteOffset(0), SIZE, NO);
      await pushRounds(volume, 2);
    });
    bench.sim.undo.corrupt(byteOffset(FIRST_SLOT), new Uint8Array(SLOT_BYTES));
    await bench.use(async (volume) => {
      const moment = volume.openMoment(await volume.resolve('before'));
      expect(await unreadable(moment, BLOCK, 1)).toEqual(new Map([[BLOCK, 'BLOCK_CORRUPT EIO']]));
      const [offset, length] = [byteOffset(BLOCK * BLOCK_BYTES), byteCount(BLOCK_BYTES)];
      expect(await moment.status('base:allocation', offset, length, 1)).toEqual([
        { length, flags: 0 },
      ]);
      const since = await volume.live().status('varve:changed-since:before', offset, length, 1);
      expect(since).toEqual([{ length, flags: 1 }]);
      await moment.close();
      expect(await get(volume.live(), BLOCK)).toEqual(new Uint8Array(BLOCK_BYTES));
    });
  });

  // Every opening begins a segment of its own, and a snapshot that needs a block of each kept them
  // all: the device was full when hardly anything was in it.
  test('take a few segments, however many openings they were filled by', async () => {
    const bench = await Bench.create(7, { size: SIZE });
    const count = 80;
    await bench.use(async (volume) => {
      for (let i = 0; i < count; i++) await put(volume, BLOCK + i, blocksOf(i + 10));
      await volume.createSnapshot('first');
    });
    const segments: number[] = [];
    for (let i = 0; i < count; i++) {
      await bench.lose('cut', async (volume) => {
        await put(volume, BLOCK + i, blocksOf(2));
        await pushRounds(volume, 1);
        await volume.core.collected();
        segments.push(volume.core.undo.segments);
      });
    }
    // Two full ones with what `pushRounds` writes, and the others.
    expect(Math.max(...segments)).toBeLessThan(20);
    await bench.use(async (volume) => {
      const moment = volume.openMoment(await volume.resolve('first'));
      for (let i = 0; i < count; i++) {
        expect(await get(moment, BLOCK + i)).toEqual(blocksOf(i + 10));
      }
      await moment.close();
      const { undo } = volume.core;
      expect(undo.held.images).toBeGreaterThanOrEqual(count);
      await undo.check();
      await volume.deleteSnapshot('first');
      await volume.core.collected();
      expect(undo.held).toEqual({ images: 0, bytes: 0 });
      expect(undo.segments).toBe(0);
    });
  });

  // Found by volume-retention, seed 30206: what a round had put that found no room was counted for the
  // pins of then, and was put again for those that came meanwhile: what deleting one gives back was told
  // wrong, and the device held it twice.
  test('are told exactly where moments are pinned while a round gets no further', async () => {
    const bench = await Bench.create(8, { slots: 24 });
    await bench.use(async (volume) => {
      const { core } = volume;
      const { undo, home } = core;
      for (let block = 0; block < 40; block++) await put(volume, block, blocksOf(block + 1));
      await pushRounds(volume, 2, 0, 40);
      await volume.createSnapshot('old');
      // A round puts a part of it, and the log still has room.
      const offset = FIRST_SLOT + (undo.slotsUsed + 1) * SLOT_BYTES;
      const mend = bench.sim.undo.failWrite({ offset, length: 60 * SLOT_BYTES });
      for (let i = 0; (await volume.info()).failure === undefined; i++) {
        await put(volume, i % 80, blocksOf(2000 + i));
        await bench.world.sleep(2000);
      }
      // Between two attempts.
      await home.run(() => Promise.resolve());
      const target = core.keeping?.target ?? 0;
      const horizon = core.horizon.generation;
      expect(undo.held.images).toBeGreaterThan(0);
      const labels = ['one', 'two', 'three'];
      for (const [i, label] of labels.entries()) {
        const at = horizon + 4 * i + 1;
        expect(at).toBeLessThan(target);
        await home.run(() => Promise.resolve());
        await volume.createSnapshot(label, `gen=${at}`);
      }
      mend();
      await bench.world.sleep(3_000_000);
      await home.run(() => undo.check());
      await home.run(async () => {
        const promised = volume.snapshots().find(({ label }) => label === 'old')?.exclusiveBytes;
        const before = undo.held.bytes;
        await volume.deleteSnapshot('old');
        expect(before - undo.held.bytes).toBe(promised);
      });
      await pushRounds(volume, 1, 0, 40);
      await home.run(async () => {
        await undo.check();
        const facts = new Set<string>();
        let count = 0;
        for (const batch of undo.batches()) {
          for (const { image } of await undo.imagesOf(batch)) {
            facts.add(`${image.block}:${image.from}:${image.until}`);
            count += 1;
          }
        }
        expect(facts.size).toBe(count);
      });
      for (const label of labels) await volume.deleteSnapshot(label);
      await core.collected();
      expect(undo.held).toEqual({ images: 0, bytes: 0 });
    });
  });
});
