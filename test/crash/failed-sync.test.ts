/**
 * Law 7: a failed sync is never retried and believed. The page cache may have forgotten what it
 * was for, and read back lies; so what is in doubt is written again, elsewhere, from the ring, or
 * from the log to final storage, before anybody is answered.
 */
import { describe, expect, test } from 'vitest';
import { isVarveError, VarveError } from '../../src/base/errors.ts';
import {
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  kibibytes,
  mebibytes,
  slot,
} from '../../src/base/units.ts';
import type { SyncPoint } from '../../src/device/lower-device.ts';
import { FAILURES_MAX, RETRY_MS } from '../../src/volume/destager.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { slotOffset } from '../../log/geometry.ts';
import { RESLOTS_MAX } from '../../log/writer.ts';
import type { SyncFault } from '../sim/disk-faults.ts';
import type { SimDisk } from '../sim/sim-disk.ts';
import { Bench, blocksOf, NO_UNDO, get, holds, pushRounds, put } from './bench.ts';

const BLOCKS = 96;

/** What the page cache does with dirty pages that it could not write. */
const CACHES: readonly (readonly [string, SyncFault])[] = [
  ['keeps them', { dropDirty: false }],
  ['forgets them', { dropDirty: true }],
  ['forgets and evicts them', { dropDirty: true, evict: true }],
];

/** The newest content that was put into each block. */
class Content {
  readonly blocks = new Map<number, Uint8Array>();
  #count = 0;

  async put(volume: Volume, block: number, fua = false): Promise<void> {
    const content = blocksOf(++this.#count);
    await put(volume, block, content, fua);
    this.blocks.set(block, content);
  }

  async expectIn(volume: Volume): Promise<void> {
    volume.core.check();
    for (const [block, content] of this.blocks) {
      expect(await holds(volume.live(), block, [content])).toBe(0);
    }
  }
}

function diskOf({ sim }: Bench, point: SyncPoint): SimDisk {
  if (point === 'final') return sim.final;
  return point === 'sums' ? sim.sums : sim.log;
}

/** Writes, with a flush now and then, until rounds ran and `done` says so. */
async function work(volume: Volume, content: Content, done: () => boolean): Promise<void> {
  for (let i = 0; i < 3000; i++) {
    await content.put(volume, (i * 37) % BLOCKS);
    if (i % 11 === 0) await volume.live().flush();
    if (i > 300 && done()) break;
  }
  await volume.live().flush();
}

describe('a sync that fails once', () => {
  const points: readonly SyncPoint[] = [
    'commit',
    'horizon',
    'final',
    'sums',
    'checkpoint',
    'settled',
  ];
  const stories = points.flatMap((point) =>
    CACHES.map(([what, fault]) => [point, what, fault] as const),
  );
  test.each(stories)(
    'for %s takes nothing that was flushed, where the cache %s',
    async (point, _, fault) => {
      const bench = await Bench.create(1);
      const disk = diskOf(bench, point);
      const content = new Content();
      await bench.lose('cut', async (volume) => {
        await work(volume, content, () => volume.core.counters.rounds > 0);
        const { rounds } = volume.core.counters;
        const before = disk.counters.syncsBy.get(point) ?? 0;
        disk.failNextSync({ ...fault, point });
        await work(volume, content, () => volume.core.counters.rounds > rounds + 1);
        expect(disk.counters.syncsBy.get(point) ?? 0).toBeGreaterThan(before + 1);
        expect(volume.core.failure).toBeUndefined();
        expect((await volume.info()).counters.logFaults).toBe(disk === bench.sim.log ? 1 : 0);
        await content.expectIn(volume);
      });
      await bench.use((volume) => content.expectIn(volume));
    },
  );

  test.each(CACHES)('at the close, where the cache %s, is an orderly end', async (_, fault) => {
    const bench = await Bench.create(2);
    const content = new Content();
    await bench.use(async (volume) => {
      await content.put(volume, 1);
      bench.sim.log.failNextSync({ ...fault, point: 'close' });
    });
    await bench.lose('cut', async (volume) => {
      expect(volume.core.recovery.clean).toBe(true);
      await content.expectIn(volume);
    });
  });

  test.each(['create-log', 'create-final', 'create-sums'] as const)(
    'for %s leaves no volume that would be said to exist',
    async (point) => {
      const bench = await Bench.create(3);
      const disks = {
        'create-log': 'log',
        'create-final': 'final',
        'create-sums': 'sums',
      } as const;
      bench.sim[disks[point]].failNextSync({ dropDirty: true, point });
      await bench.world.run(async () => {
        await expect(bench.sim.format(bench.power.life)).rejects.toThrow(VarveError);
      });
    },
  );
});

describe('what was acknowledged and never flushed', () => {
  test.each(CACHES)('is still there when a sync failed, where the cache %s', async (_, fault) => {
    // Read back from the slots too: the ring is far smaller than what is written.
    const bench = await Bench.create(4, { ringBytes: kibibytes(192), slots: 24 });
    const content = new Content();
    await bench.use(async (volume) => {
      for (let i = 0; i < BLOCKS; i++) {
        if (i % 20 === 5) bench.sim.log.failNextSync({ ...fault, point: 'commit' });
        await content.put(volume, i);
      }
      await volume.live().flush();
      expect((await volume.info()).counters.logFaults).toBeGreaterThan(2);
      await content.expectIn(volume);
      const report = await volume.check(() => undefined);
      expect(report.problems).toEqual([]);
    });
    await bench.use((volume) => content.expectIn(volume));
  });
});

describe('a request that spans several segments', () => {
  test.each(CACHES)('keeps its place in the order, where the cache %s', async (_, fault) => {
    const bench = await Bench.create(5, {
      size: mebibytes(1),
      slots: 40,
      requestBytesMax: kibibytes(512),
      ringBytes: mebibytes(2),
    });
    const long = blocksOf(77, 100);
    await bench.lose('cut', async (volume) => {
      await put(volume, 3, blocksOf(5), true);
      bench.sim.log.failNextSync({ ...fault, point: 'commit' });
      bench.sim.log.failNextSync({ ...fault, point: 'reslot' });
      const writing = put(volume, 2, long);
      await put(volume, 10, blocksOf(6));
      await writing;
      await volume.live().flush();
      volume.core.check();
      expect(volume.core.log.segments.live.length).toBeGreaterThan(7);
    });
    await bench.use(async (volume) => {
      long.set(blocksOf(6), 8 * BLOCK_BYTES);
      expect(await holds(volume.live(), 2, [long])).toBe(0);
      expect(volume.core.head).toBe(3);
    });
  });
});

describe('a crash while what was in doubt is written again', () => {
  const stories = (['cut', 'kill'] as const).flatMap((loss) =>
    CACHES.map(([what, fault]) => [loss, what, fault] as const),
  );
  test.each(stories)(
    'by a %s at any operation, where the cache %s, keeps what was flushed, and requests whole',
    async (loss, _, fault) => {
      let found = 0;
      for (let operations = 1; operations <= 24; operations++) {
        const bench = await Bench.create(operations, {
          size: mebibytes(1),
          slots: 40,
          requestBytesMax: kibibytes(512),
          ringBytes: mebibytes(2),
        });
        let answered = false;
        await bench.untilLost(loss, async (volume, plan) => {
          await put(volume, 0, blocksOf(1, 100));
          await volume.live().flush();
          bench.sim.log.failNextSync({ ...fault, point: 'commit' });
          if (operations % 3 === 0) bench.sim.log.failNextSync({ ...fault, point: 'reslot' });
          plan({ loss, afterOperations: operations });
          await put(volume, 0, blocksOf(2, 100));
          await volume.live().flush();
          answered = true;
          await bench.world.sleep(1000);
        });
        for (let opening = 0; opening < 2; opening++) {
          await bench.lose('cut', async (volume) => {
            const choices = [blocksOf(2, 100), blocksOf(1, 100)];
            const which = await holds(volume.live(), 0, choices);
            expect(which).toBe(answered ? 0 : opening === 0 ? which : found);
            expect([0, 1]).toContain(which);
            found = which;
            volume.core.check();
          });
        }
      }
    },
  );
});

describe('a recovery whose sync fails', () => {
  test.each(CACHES)('told nobody what it found, where the cache %s', async (_, fault) => {
    const bench = await Bench.create(6);
    const content = new Content();
    await bench.lose('kill', async (volume) => {
      await content.put(volume, 1, true);
      await put(volume, 2, blocksOf(50));
      await bench.world.sleep(3000);
    });
    bench.sim.log.failNextSync({ ...fault, point: 'recovery' });
    expect((await bench.openError()).code).toBe('DEVICE_IO');
    // The second opening reads the same from the cache, and must not believe that it lasts.
    const told = await bench.world.run(async () => {
      const volume = await bench.sim.open(bench.power.life);
      await content.expectIn(volume);
      return volume.core.head;
    });
    bench.power.cut();
    bench.power.restore();
    await bench.use(async (volume) => {
      expect(volume.core.head).toBe(told);
      await content.expectIn(volume);
    });
  });
});

describe('a log device on which one place fails', () => {
  test('is written elsewhere: a bad slot is no end', async () => {
    const bench = await Bench.create(7, { slots: 12 });
    const content = new Content();
    await bench.lose('cut', async (volume) => {
      bench.sim.log.failWrite({
        offset: slotOffset(bench.sim.geometry, slot(3)) + 5 * BLOCK_BYTES,
        length: BLOCK_BYTES,
      });
      await work(volume, content, () => volume.core.counters.rounds > 6);
      expect((await volume.info()).counters.logFaults).toBeGreaterThan(1);
      await content.expectIn(volume);
    });
    await bench.use((volume) => content.expectIn(volume));
  });

  test('that holds the superblock turns read-only; what was flushed stays', async () => {
    const bench = await Bench.create(8);
    const content = new Content();
    await bench.lose('cut', async (volume) => {
      await work(volume, content, () => true);
      bench.sim.log.failWrite({ offset: 0, length: BLOCK_BYTES });
      bench.sim.log.failWrite({ offset: 8 * BLOCK_BYTES, length: BLOCK_BYTES });
      await expect(work(volume, new Content(), () => false)).rejects.toThrow(/simulated/);
      const { failure, readOnly } = await volume.info();
      expect(readOnly).toBe(true);
      expect(failure).toMatch(/for "(horizon|settled)", 3 times/);
      volume.core.check();
    });
  });
});

describe('a log device that fails for good', () => {
  test.each(CACHES)('turns read-only, and reads go on, where the cache %s', async (_, fault) => {
    const bench = await Bench.create(9);
    const content = new Content();
    let flushed = 0;
    await bench.lose('cut', async (volume) => {
      await work(volume, content, () => true);
      flushed = volume.core.head;
      const before = blocksOf(1000);
      await put(volume, 5, before);
      content.blocks.set(5, before);
      bench.sim.log.failNextSync({ ...fault, point: 'commit' });
      for (let i = 0; i < RESLOTS_MAX; i++) {
        bench.sim.log.failNextSync({ ...fault, point: 'reslot' });
      }
      const refused = await Promise.resolve(volume.live().flush()).catch((error: unknown) => error);
      expect(isVarveError(refused, 'VOLUME_FAILED')).toBe(true);
      await expect(put(volume, 6, blocksOf(1001))).rejects.toThrow(/in 2 other places/);
      const { failure, readOnly } = await volume.info();
      expect(readOnly).toBe(true);
      expect(failure).toMatch(/sync reslot: EIO/);
      // All that was acknowledged is read, and so is any moment.
      await content.expectIn(volume);
      const moment = volume.openMoment(await volume.resolve(`gen=${flushed}`));
      expect(await holds(moment, 5, [before])).toBe(-1);
      await moment.close();
    });
    content.blocks.delete(5);
    await bench.use(async (volume) => {
      expect(volume.core.head).toBeGreaterThanOrEqual(flushed);
      await content.expectIn(volume);
      await put(volume, 6, blocksOf(1002), true);
    });
  });

  test('as soon as there is no free slot to write it again', async () => {
    const bench = await Bench.create(10, { slots: 8, undoBytes: NO_UNDO });
    await bench.lose('cut', async (volume) => {
      await put(volume, 0, blocksOf(1));
      await volume.createSnapshot('keep');
      const full = await fillUp(volume);
      expect(full.code).toBe('UNDO_FULL');
      // The slot kept back goes as well, to records of the catalogue.
      while (volume.core.log.segments.freeSlots > 0) {
        volume.core.log.stream.putRecord(new Uint8Array(BLOCK_BYTES));
      }
      volume.core.log.stream.seal();
      bench.sim.log.failNextSync({ dropDirty: true, point: 'commit' });
      const { writer, stream } = volume.core.log;
      await expect(writer.waitDurable(stream.nextLsn)).rejects.toThrow(VarveError);
      expect((await volume.info()).failure).toMatch(/no slot is free/);
      expect(await holds(volume.live(), 0, [blocksOf(1)])).toBe(-1);
      expect(await get(volume.live(), 0)).toBeDefined();
    });
  });
});

async function fillUp(volume: Volume): Promise<VarveError> {
  for (let i = 0; i < 5000; i++) {
    try {
      await put(volume, i % BLOCKS, blocksOf(i + 2));
      if (i % 7 === 0) await volume.live().flush();
    } catch (error) {
      if (isVarveError(error)) return error;
      throw error;
    }
  }
  throw new Error('nothing was refused');
}

describe('final storage that fails for good', () => {
  test('is shown, refuses writers for lack of room, and serves again when it works', async () => {
    const bench = await Bench.create(11);
    const content = new Content();
    await bench.use(async (volume) => {
      await work(volume, content, () => true);
      const mend = bench.sim.final.failWrite({ offset: 0, length: byteCount(mebibytes(64)) });
      const refused = await fillUp(volume);
      expect(refused).toMatchObject({ code: 'DEVICE_IO', errno: 'EIO' });
      const info = await volume.info();
      expect(info).toMatchObject({ readOnly: false });
      expect(info.failure).toMatch(/final: write at/);
      expect((await get(volume.live(), 0)).length).toBe(BLOCK_BYTES);
      mend();
      await bench.world.sleep(RETRY_MS * 1000 * (FAILURES_MAX + 1));
      expect((await volume.info()).failure).toBeUndefined();
      await volume.live().write(byteOffset(0), blocksOf(9999), { fua: true });
    });
  });
});

describe('what the page cache shows after a kill, and the device does not hold', () => {
  test('of the log is written again before it is told', async () => {
    const bench = await Bench.create(12);
    await bench.lose('kill', async (volume) => {
      await put(volume, 1, blocksOf(1), true);
      await put(volume, 2, blocksOf(2));
      for (const point of ['commit', 'reslot', 'reslot'] as const) {
        bench.sim.log.failNextSync({ dropDirty: true, point });
      }
      await expect(volume.live().flush()).rejects.toThrow(VarveError);
    });
    let told = 0;
    await bench.lose('cut', async (volume) => {
      told = volume.core.head;
      expect(await holds(volume.live(), 2, [blocksOf(2)])).toBe(0);
    });
    expect(told).toBe(2);
    await bench.use(async (volume) => {
      expect(volume.core.head).toBe(told);
      expect(await holds(volume.live(), 2, [blocksOf(2)])).toBe(0);
    });
  });

  test('of the superblock is written again before anything rests on it', async () => {
    // Slots before its tail were used again, and the cut brought back the superblock before it.
    const bench = await Bench.create(13, { slots: 24 });
    await bench.lose('kill', async (volume) => {
      const { counters } = volume.core;
      await work(volume, new Content(), () => counters.rounds > 1);
      for (let i = 0; i < 3; i++) {
        bench.sim.log.failNextSync({ dropDirty: true, point: 'settled' });
      }
      await expect(work(volume, new Content(), () => false)).rejects.toThrow(VarveError);
      // Its last writes are on their way.
      await bench.world.sleep(10_000);
    });
    const after = new Content();
    await bench.lose('cut', async (volume) => {
      const { log, head, horizon } = volume.core;
      // It stops rounds, whose superblocks would hide it.
      volume.openMoment(await volume.resolve(`gen=${horizon.generation}`));
      while (log.segments.freeSlots > 4) await after.put(volume, head % BLOCKS, true);
      expect(log.superblock.horizon.generation).toBe(horizon.generation);
    });
    await bench.use((volume) => after.expectIn(volume));
  });

  test.each([
    ['final', 3 * BLOCK_BYTES + 9],
    ['sums', 100],
  ] as const)(
    'of a repair of %s is made again by the next scrub, however right it reads',
    async (disk, place) => {
      // It read right out of the page cache, was called whole, and was gone with the next power cut.
      const bench = await Bench.create(4, { size: byteCount(600 * BLOCK_BYTES) });
      const damaged = bench.sim[disk];
      const quiet = { bytesPerSecond: 0, progress: (): void => undefined };
      // On another page of sums.
      const push = (volume: Volume, rounds: number): Promise<void> =>
        pushRounds(volume, rounds, 560, 30);
      await bench.use(async (volume) => {
        for (let block = 0; block < 10; block++) await put(volume, block, blocksOf(block));
        const { head } = volume.core;
        while (volume.core.settled < head) await push(volume, 1);
      });
      await bench.lose('cut', async (volume) => {
        damaged.corruptBit(place, 2);
        damaged.failNextSync({ dropDirty: true, point: 'repair' });
        expect(await volume.scrub(quiet)).toMatchObject({ ok: false });
        expect(await volume.scrub(quiet)).toMatchObject({ ok: true, repaired: 1, left: 0 });
        expect(await volume.scrub(quiet)).toMatchObject({ ok: true, repaired: 0 });
        // The log's copy is overwritten.
        await push(volume, 8);
        await volume.live().flush();
      });
      await bench.use(async (volume) => {
        expect(await holds(volume.live(), 3, [blocksOf(3)])).toBe(0);
      });
    },
  );
});
