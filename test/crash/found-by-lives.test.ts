/** What the lives of fuzz/life found, each told alone. */
import { describe, expect, test } from 'vitest';
import { isVarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount, byteOffset, slot } from '../../src/base/units.ts';
import { UnreadableError } from '../../src/base/unreadable.ts';
import { slotOffset } from '../../log/geometry.ts';
import { SEGMENT_MAGIC, SUM_LOST, SUPERBLOCK_BLOCKS } from '../../src/format/layouts.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { Bench, blocksOf, NO_UNDO, get, holds, put, unreadable, pushRounds } from './bench.ts';

/** Writers that wait are told when a round has failed a few times. */
function refusedMeanwhile(error: unknown): void {
  if (!isVarveError(error, 'DEVICE_IO')) throw error;
}

describe('the newest superblock rots', () => {
  test.each([0, 1])('copy %i: the horizon stays where it was', async (copy) => {
    // The older copy had the older horizon. Moments that final storage had passed opened again
    // and read the newer content, without a word.
    const bench = await Bench.create(11);
    let horizon = 0;
    await bench.lose('kill', async (volume) => {
      await pushRounds(volume, 2, 20, 8);
      // In the middle of a round: its horizon is durable, and its blocks lie at home.
      const { core } = volume;
      const before = core.horizon.generation;
      const syncFinal = core.final.syncFinal.bind(core.final);
      core.final.syncFinal = async (point) => {
        await syncFinal(point);
        horizon = core.horizon.generation;
        await bench.world.sleep(1e12);
      };
      for (let i = 0; horizon === 0; i++) await put(volume, 20 + (i % 8), blocksOf(i), true);
      expect(horizon).toBeGreaterThan(before);
    });
    const at = (SUPERBLOCK_BLOCKS[copy] ?? 0) * BLOCK_BYTES;
    bench.sim.log.corrupt(at + 40, new Uint8Array(64));
    await bench.use(async (volume) => {
      expect(volume.core.horizon.generation).toBe(horizon);
      const outside = volume.resolve(`gen=${horizon - 1}`);
      await expect(outside).rejects.toMatchObject({ code: 'MOMENT_OUTSIDE' });
    });
  });

  test('after a crash between the two copies of a horizon: a redo writes both first', async () => {
    const bench = await Bench.create(13);
    let horizon = 0;
    await bench.lose('kill', async (volume) => {
      await pushRounds(volume, 2, 20, 8);
      const { device, superblock } = volume.core.log;
      const sync = device.sync.bind(device);
      device.sync = async (point) => {
        await sync(point);
        if (point !== 'horizon') return;
        horizon = volume.core.horizon.generation;
        await bench.world.sleep(1e12);
      };
      for (let i = 0; horizon === 0; i++) await put(volume, 20 + (i % 8), blocksOf(i), true);
      expect(horizon).toBeGreaterThan(superblock.horizon.generation);
    });
    let newest = 0;
    await bench.lose('kill', async (volume) => {
      expect(volume.core.horizon.generation).toBe(horizon);
      const { core } = volume;
      const syncFinal = core.final.syncFinal.bind(core.final);
      let isRedone = false;
      core.final.syncFinal = async (point) => {
        await syncFinal(point);
        isRedone = true;
        await bench.world.sleep(1e12);
      };
      while (!isRedone) await bench.world.sleep(10);
      newest = core.log.superblock.sequence % 2;
    });
    bench.sim.log.corrupt((SUPERBLOCK_BLOCKS[newest] ?? 0) * BLOCK_BYTES + 40, new Uint8Array(64));
    await bench.use((volume) => {
      expect(volume.core.horizon.generation).toBe(horizon);
      return Promise.resolve();
    });
  });

  test('a moment never reads a block that is later than itself', async () => {
    const bench = await Bench.create(12);
    await bench.use(async (volume) => {
      for (let i = 0; i < 4; i++) await put(volume, i, blocksOf(i));
      await pushRounds(volume, 2, 20, 8);
      const { core } = volume;
      const { generation } = core.horizon;
      const device = volume.openMoment(await volume.resolve(`gen=${generation}`));
      const read = core.final.read.bind(core.final);
      core.final.read = async (first, target) => {
        const sums = await read(first, target);
        return sums.map((sum) => ({ ...sum, generation: core.head }));
      };
      expect([...(await unreadable(device, 0, 4)).values()]).toEqual(
        Array.from({ length: 4 }, () => 'BLOCK_CORRUPT EIO'),
      );
    });
  });
});

describe('final storage failed before, and then the log', () => {
  test('nothing is given up at the first read of the log that fails', async () => {
    // Failures of final storage counted as if the log had been tried so often.
    const bench = await Bench.create(16);
    await bench.use(async (volume) => {
      for (let i = 0; i < 8; i++) await put(volume, i, blocksOf(i));
    });
    await bench.use(async (volume) => {
      const all = { offset: 0, length: bench.sim.log.size };
      const mendFinal = bench.sim.final.failWrite({ offset: 0, length: bench.sim.final.size });
      const pushed = pushRounds(volume, 1, 20, 8).catch(refusedMeanwhile);
      await bench.world.sleep(4_500_000);
      const mendLog = bench.sim.log.failRead(all);
      mendFinal();
      await bench.world.sleep(1_500_000);
      mendLog();
      await pushed;
      await bench.world.sleep(3_000_000);
      expect(volume.core.counters.rounds).toBeGreaterThan(0);
      expect(await unreadable(volume.live(), 0, 40)).toEqual(new Map());
    });
  });
});

describe('the device of the log is away for long', () => {
  test('nothing is given up before it is back', async () => {
    const bench = await Bench.create(17);
    await bench.use(async (volume) => {
      for (let i = 0; i < 8; i++) await put(volume, i, blocksOf(i));
    });
    await bench.use(async (volume) => {
      const mend = bench.sim.log.failRead({ offset: 0, length: bench.sim.log.size });
      const pushed = pushRounds(volume, 1, 20, 8).catch(refusedMeanwhile);
      await bench.world.sleep(60_000_000);
      await pushed;
      expect(volume.core.counters.rounds).toBe(0);
      mend();
      await bench.world.sleep(3_000_000);
      expect(volume.core.counters.rounds).toBeGreaterThan(0);
      expect(await unreadable(volume.live(), 0, 40)).toEqual(new Map());
    });
  });
});

describe('a device is back just when a round asks whether it is away', () => {
  // What had been refused until then was given up, as a place that fails for good, on a sound device.
  test.each(['final', 'log'] as const)('%s: nothing is given up', async (disk) => {
    const bench = await Bench.create(19);
    await bench.use(async (volume) => {
      for (let i = 4; i < 8; i++) await put(volume, i, blocksOf(i));
      await pushRounds(volume, 1, 20, 8);
      await volume.createSnapshot('before');
      // Blocks 12 to 15 have never been written.
      for (let i = 4; i < 16; i++) await put(volume, i, blocksOf(100 + i));
    });
    await bench.use(async (volume) => {
      const { core } = volume;
      const mend = bench.sim[disk].failRead({ offset: 0, length: bench.sim[disk].size });
      let isAsked = false;
      const asked = (): void => {
        isAsked = true;
        mend();
      };
      const isThere = core.final.isThere.bind(core.final);
      core.final.isThere = async () => {
        if (disk === 'final') asked();
        return await isThere();
      };
      const readLog = core.log.device.read.bind(core.log.device);
      core.log.device.read = async (offset, target) => {
        if (disk === 'log' && offset === SUPERBLOCK_BLOCKS[0] * BLOCK_BYTES) asked();
        await readLog(offset, target);
      };
      let lost = 0;
      const writeSums = core.final.sidecar.write.bind(core.final.sidecar);
      core.final.sidecar.write = async (changes) => {
        lost += changes.filter(({ sum }) => sum.kind === SUM_LOST).length;
        await writeSums(changes);
      };
      const { rounds } = core.counters;
      const pushed = pushRounds(volume, 3, 30, 8).catch(refusedMeanwhile);
      while (!isAsked) await bench.world.sleep(100_000);
      await pushed;
      await bench.world.sleep(3_000_000);
      await pushRounds(volume, 2, 30, 8);
      expect(core.counters.rounds).toBeGreaterThan(rounds);
      expect(lost).toBe(0);
      expect(await unreadable(volume.live(), 0, 40)).toEqual(new Map());
      const before = volume.openMoment(await volume.resolve('before'));
      expect(await unreadable(before, 0, 40)).toEqual(new Map());
      for (let i = 4; i < 8; i++) expect(await holds(before, i, [blocksOf(i)])).toBe(0);
    });
  });
});

describe('the sums are away, but for what is cached of them', () => {
  test('nothing is given up before they are back', async () => {
    // Final storage counted as there while any block of it could be read with a cached sum.
    const blocks = 2048;
    const size = byteCount(blocks * BLOCK_BYTES);
    const bench = await Bench.create(21, { size });
    await bench.use(async (volume) => {
      for (let i = 1000; i < 1008; i++) await put(volume, i, blocksOf(i));
      await pushRounds(volume, 2, 20, 8);
      await volume.createSnapshot('before');
      for (let i = 1000; i < 1008; i++) await put(volume, i, blocksOf(100 + i));
    });
    await bench.use(async (volume) => {
      expect(await unreadable(volume.live(), 0, 8)).toEqual(new Map());
      const mend = bench.sim.sums.failRead({ offset: 0, length: bench.sim.sums.size });
      const pushed = pushRounds(volume, 3, 20, 8).catch(refusedMeanwhile);
      await bench.world.sleep(30_000_000);
      mend();
      await pushed;
      await bench.world.sleep(3_000_000);
      await pushRounds(volume, 2, 20, 8);
      const before = volume.openMoment(await volume.resolve('before'));
      expect(await unreadable(before, 1000, 8)).toEqual(new Map());
    });
  });
});

describe('a block of the log and a copy of the superblock can not be read', () => {
  test('the block is given up: the device answers', async () => {
    // It counted as away unless both copies were read, so the round was made again for ever.
    const bench = await Bench.create(20);
    await bench.use(async (volume) => {
      for (let i = 0; i < 8; i++) await put(volume, i, blocksOf(i));
    });
    await bench.use(async (volume) => {
      const { geometry } = volume.core.log;
      const superblock = (SUPERBLOCK_BLOCKS[0] ?? 0) * BLOCK_BYTES;
      bench.sim.log.failRead({ offset: superblock, length: BLOCK_BYTES });
      bench.sim.log.failRead({
        offset: slotOffset(geometry, slot(0)) + 7 * BLOCK_BYTES,
        length: 1,
      });
      await pushRounds(volume, 2, 20, 8);
      const codes = await unreadable(volume.live(), 0, 40);
      expect([...codes.values()]).toEqual(['BLOCK_CORRUPT EIO']);
    });
  });
});

describe('a moment beside a rotten block', () => {
  test('is not shown neighbours that are later than itself', async () => {
    // The guard was only asked where all blocks of a read were sound.
    const bench = await Bench.create(18);
    await bench.use(async (volume) => {
      for (let i = 0; i < 4; i++) await put(volume, i, blocksOf(i));
      await pushRounds(volume, 2, 20, 8);
      const { core } = volume;
      const device = volume.openMoment(await volume.resolve(`gen=${core.horizon.generation}`));
      bench.sim.final.corruptBit(2 * BLOCK_BYTES + 9, 3);
      const { sidecar } = core.final;
      const sum = sidecar.sum.bind(sidecar);
      sidecar.sum = async (block) => {
        const found = await sum(block);
        return block === 1 ? { ...found, generation: core.head } : found;
      };
      let failed: unknown;
      try {
        await device.read(byteOffset(0), new Uint8Array(4 * BLOCK_BYTES));
      } catch (error) {
        failed = error;
      }
      const ranges = failed instanceof UnreadableError ? failed.ranges : [];
      expect(ranges.map(({ offset }) => offset / BLOCK_BYTES)).toContain(1);
    });
  });
});

describe('the device of the log is away for a moment', () => {
  test('a round is made again, and nothing is lost', async () => {
    // What it could not read was stamped lost, for ever, though the device came back.
    const bench = await Bench.create(13);
    await bench.use(async (volume) => {
      for (let i = 0; i < 8; i++) await put(volume, i, blocksOf(i));
    });
    await bench.use(async (volume) => {
      const mend = bench.sim.log.failRead({ offset: 0, length: bench.sim.log.size });
      const mended = bench.world.sleep(1_500_000).then(mend);
      await pushRounds(volume, 1, 20, 8);
      await mended;
      expect(volume.core.counters.readErrors).toBeGreaterThan(0);
      expect(await unreadable(volume.live(), 0, 40)).toEqual(new Map());
      for (let i = 0; i < 8; i++) expect(await holds(volume.live(), i, [blocksOf(i)])).toBe(0);
    });
  });
});

describe('a read of final storage across a round', () => {
  test('that fails while versions are dropped is made again', async () => {
    // Neither the index nor the epoch had changed when it looked, so it was taken for rot.
    const bench = await Bench.create(14);
    await bench.use(async (volume) => {
      await put(volume, 3, blocksOf(1));
      await pushRounds(volume, 1, 20, 8);
      const { core } = volume;
      const read = core.final.read.bind(core.final);
      let dropping = (): void => undefined;
      const isDropping = new Promise<void>((resolve) => {
        dropping = resolve;
      });
      const dropSome = core.index.dropSome.bind(core.index);
      let steps = 0;
      core.index.dropSome = (upTo, max) => {
        steps += 1;
        if (steps === 1) return false;
        const isDone = dropSome(upTo, max);
        if (steps === 2) dropping();
        return steps > 20 && isDone;
      };
      let tries = 0;
      core.final.read = async (first, target) => {
        tries += 1;
        if (tries > 1) return await read(first, target);
        await isDropping;
        const why = 'half of it was there';
        const offset = byteOffset(3 * BLOCK_BYTES);
        throw new UnreadableError('BLOCK_CORRUPT', [
          { offset, length: byteCount(BLOCK_BYTES), why },
        ]);
      };
      let got: Promise<Uint8Array> | undefined;
      const syncFinal = core.final.syncFinal.bind(core.final);
      core.final.syncFinal = async (point) => {
        got ??= get(volume.live(), 3);
        await syncFinal(point);
      };
      await pushRounds(volume, 1, 20, 8);
      expect(Buffer.compare((await got) ?? new Uint8Array(0), blocksOf(1))).toBe(0);
      expect(tries).toBe(2);
    });
  });
});

describe('who waits for room while a snapshot is deleted', () => {
  test('is not told that there is no room for what it keeps', async () => {
    // It was woken when the record was durable, a moment before the pin was gone.
    const bench = await Bench.create(15, { undoBytes: NO_UNDO });
    await bench.use(async (volume) => {
      for (let i = 0; i < 30; i++) await put(volume, i, blocksOf(1));
      await volume.createSnapshot('kept');
      let refused = 0;
      for (let i = 0; refused === 0; i++) {
        try {
          await put(volume, 20 + (i % 8), blocksOf(i));
        } catch (error) {
          if (!isVarveError(error, 'UNDO_FULL')) throw error;
          refused += 1;
        }
      }
      const deleted = volume.deleteSnapshot('kept');
      await Promise.all([deleted, put(volume, 5, blocksOf(5))]);
      expect(await holds(volume.live(), 5, [blocksOf(5)])).toBe(0);
    });
  });
});

describe('a device that answers one read of an opening with what lies elsewhere', () => {
  // The superblock was taken for the damaged one of two, or a segment for a blank slot: the
  // opening went back to an older state, and the next one came forward again. What recovery wrote
  // again was not looked at either.
  const SHIFTS = [3, -1, 1, -7] as const;
  test.each(['close', 'cut', 'kill'] as const)('after a %s: nothing is lost', async (ending) => {
    let openings = 0;
    const refusals: string[] = [];
    for (let skipped = 0; ; skipped++) {
      const bench = await Bench.create(14);
      const work = async (volume: Volume): Promise<void> => {
        await pushRounds(volume, 1, 20, 8);
        for (let i = 0; i < 40; i++) await put(volume, i, blocksOf(i + 1), i % 8 === 7);
        if (ending !== 'kill') return;
        // In the page cache alone: recovery has to write them again.
        volume.setWriteMode('written');
        for (let i = 0; i < 8; i++) await put(volume, i, blocksOf(i + 101));
      };
      const isAgain = (i: number): boolean => ending === 'kill' && i < 8;
      await (ending === 'close' ? bench.use(work) : bench.lose(ending, work));
      const { faults } = bench.sim.log;
      const takeReadLie = faults.takeReadLie.bind(faults);
      const shift = (SHIFTS[skipped % 4] ?? 0) * BLOCK_BYTES;
      let left = skipped;
      faults.takeReadLie = () => {
        left -= 1;
        return left === -1 ? { shift, told: () => undefined } : takeReadLie();
      };
      const opening = bench.lose('cut', (volume) => {
        expect(volume.core.recovery.clean).toBe(ending === 'close');
        return Promise.resolve();
      });
      await opening.catch((error: unknown) => {
        if (!isVarveError(error, 'VOLUME_CORRUPT')) throw error;
        refusals.push(error.message);
      });
      const isLast = left >= 0;
      left = -1;
      await bench.use(async (volume) => {
        for (let i = 0; i < 40; i++) {
          const value = isAgain(i) ? i + 101 : i + 1;
          expect(await holds(volume.live(), i, [blocksOf(value)])).toBe(0);
        }
        openings += 1;
      });
      if (isLast) break;
    }
    expect(refusals).toEqual([]);
    expect(openings).toBeGreaterThan(20);
  });
});

describe('the first write into a slot is lost, and later ones are not', () => {
  test.each([
    [2, 'shows its old segment'],
    [3, 'shows its old segment'],
    [3, 'shows an old batch without its header'],
  ])('is damage, as what lies behind it states: %i, the slot %s', async (which, shows) => {
    // The slot showed the segment that it held before, or the first batch of it, so nobody looked
    // behind that, and what had been flushed was cut off as a torn tail.
    const bench = await Bench.create(15);
    await bench.lose('cut', async (volume) => {
      await pushRounds(volume, 3, 20, 8);
      const { device } = volume.core.log;
      const write = device.write.bind(device);
      let isLost = false;
      let passed = 0;
      device.write = async (offset, sources) => {
        const magic = Buffer.from(sources[0]?.subarray(0, 8) ?? []).toString('latin1');
        const isLast = magic === SEGMENT_MAGIC && (passed += 1) === which;
        if (isLast) {
          isLost = true;
          const isErased = shows !== 'shows its old segment';
          if (isErased) bench.sim.log.corrupt(offset, new Uint8Array(BLOCK_BYTES));
        } else await write(offset, sources);
      };
      for (let i = 0; !isLost; i++) await put(volume, 20 + (i % 8), blocksOf(i + 1), true);
      await put(volume, 30, blocksOf(3000), true);
      await put(volume, 31, blocksOf(3001), true);
    });
    const { code, message } = await bench.openError();
    expect(code).toBe('VOLUME_CORRUPT');
    expect(message).toContain('but batch at LSN');
  });

  test.each(['a new volume', 'a clean end'])('also after %s', async (before) => {
    // Nobody looked where there was no segment yet, or where the superblock still said "clean".
    const bench = await Bench.create(15);
    if (before === 'a clean end') {
      await bench.use(async (volume) => {
        for (let i = 0; i < 3; i++) await put(volume, i, blocksOf(i + 1), true);
      });
    }
    await bench.lose('cut', async (volume) => {
      const { device } = volume.core.log;
      const write = device.write.bind(device);
      let isLost = false;
      device.write = async (offset, sources) => {
        const magic = Buffer.from(sources[0]?.subarray(0, 8) ?? []).toString('latin1');
        if (isLost || magic !== SEGMENT_MAGIC) await write(offset, sources);
        else isLost = true;
      };
      for (let i = 0; !isLost; i++) await put(volume, 20 + (i % 8), blocksOf(i + 1), true);
      for (let i = 0; i < 4; i++) await put(volume, 30 + i, blocksOf(3000 + i), true);
    });
    expect(await bench.openError()).toMatchObject({ code: 'VOLUME_CORRUPT' });
  });
});
