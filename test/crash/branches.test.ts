/** A log that was laid out again after a failed sync: which branch counts, and what that costs. */
import { describe, expect, test } from 'vitest';
import { BLOCK_BYTES, kibibytes, mebibytes } from '../../src/base/units.ts';
import type { Volume } from '../../src/volume/volume.ts';
import type { SimVolumeOptions } from '../sim/sim-volume.ts';
import { Bench, blocksOf, holds, put } from './bench.ts';

const BIG: SimVolumeOptions = {
  size: mebibytes(1),
  slots: 40,
  requestBytesMax: kibibytes(512),
  ringBytes: mebibytes(2),
};

async function expectGroups(volume: Volume, first: number, count: number): Promise<void> {
  for (let i = first; i < count; i++) {
    expect(await holds(volume.live(), i * 4, [blocksOf(100 + i, 4)])).toBe(0);
  }
}

describe('a branch that was given up', () => {
  test('does not come back when its erasure was lost in a failed sync', async () => {
    // The opening that decided for the older branch failed in its sync, and the next one saw zeros
    // in the cache. After a power cut the newer branch was there again, and was believed.
    let forks = 0;
    for (let operations = 1; operations <= 24; operations++) {
      const bench = await Bench.create(operations, BIG);
      const end = await bench.untilLost('kill', async (volume, plan) => {
        volume.setWriteMode('written');
        await put(volume, 200, blocksOf(1), true);
        bench.sim.log.failNextSync({ dropDirty: false, point: 'commit' });
        for (let i = 0; i < 40; i++) await put(volume, i * 4, blocksOf(100 + i, 4));
        plan({ loss: 'kill', afterOperations: operations });
        await volume.live().flush();
        await bench.world.sleep(1000);
      });
      if (end.kind !== 'lost') continue;
      forks += 1;
      // The kernel writes dirty pages back by itself.
      const { platter } = bench.sim.log;
      platter.settleAll();
      platter.makeDurable(platter.settledChanges());
      bench.sim.log.failNextSync({ dropDirty: true, point: 'recovery' });
      expect((await bench.openError()).code).toBe('DEVICE_IO');
      bench.power.kill();
      bench.power.restore();
      await bench.use((volume) => put(volume, 0, blocksOf(1000), true));
      bench.power.cut();
      bench.power.restore();
      await bench.use(async (volume) => {
        expect(await holds(volume.live(), 0, [blocksOf(1000)])).toBe(0);
        await expectGroups(volume, 1, 40);
      });
    }
    expect(forks).toBeGreaterThan(10);
  });
});

describe('a fork', () => {
  test('is not decided by one read that goes astray', async () => {
    // The branch that had been synced and answered seemed to be shorter, and was erased.
    const shifts = [3, -1, 1, -7];
    // Each third read of the opening: all of them would be hundreds of openings.
    for (let skipped = 0, isLast = false; !isLast; skipped += 3) {
      const bench = await Bench.create(14, BIG);
      await bench.lose('cut', async (volume) => {
        volume.setWriteMode('written');
        await put(volume, 200, blocksOf(1), true);
        for (let i = 0; i < 6; i++) await put(volume, i * 4, blocksOf(100 + i, 4));
        bench.sim.log.failNextSync({ dropDirty: false, point: 'commit' });
        const { device } = volume.core.log;
        const sync = device.sync.bind(device);
        const more: Promise<void>[] = [];
        device.sync = async (point) => {
          try {
            await sync(point);
          } catch (error) {
            for (let i = 6; i < 20; i++) more.push(put(volume, i * 4, blocksOf(100 + i, 4), true));
            throw error;
          }
        };
        await volume.live().flush();
        await Promise.all(more);
      });
      const { faults } = bench.sim.log;
      const takeReadLie = faults.takeReadLie.bind(faults);
      const shift = (shifts[skipped % 4] ?? 0) * BLOCK_BYTES;
      let left = skipped;
      faults.takeReadLie = () => {
        left -= 1;
        return left === -1 ? { shift, told: () => undefined } : takeReadLie();
      };
      await bench.lose('cut', () => Promise.resolve());
      isLast = left >= 0;
      left = -1;
      await bench.use((volume) => expectGroups(volume, 0, 20));
      if (skipped > 400) throw new Error('an opening never ends to read');
    }
  });
});

describe('an opening', () => {
  test('reads what no sync vouches for a few times, however much it is', async () => {
    // At the end of each segment all that follows was walked to its end.
    const bench = await Bench.create(4, {
      size: mebibytes(8),
      slots: 40,
      segmentBytes: kibibytes(256),
      requestBytesMax: kibibytes(128),
      ringBytes: mebibytes(16),
    });
    await bench.lose('kill', async (volume) => {
      volume.setWriteMode('written');
      for (let i = 0; i < 450; i++) await put(volume, (i % 400) * 4, blocksOf(100 + i, 4));
    });
    const { counters } = bench.sim.log;
    const before = counters.bytesRead;
    await bench.lose('kill', (volume) => {
      expect(volume.core.head).toBe(450);
      return Promise.resolve();
    });
    expect(counters.bytesRead - before).toBeLessThan(8 * 450 * 5 * BLOCK_BYTES);
  });

  test('does without a window of the log where one of its sectors is bad', async () => {
    const bench = await Bench.create(6, { slots: 6, segmentBytes: kibibytes(256) });
    await bench.lose('cut', async (volume) => {
      for (let i = 0; i < 4; i++) await put(volume, i, blocksOf(i + 1), true);
    });
    const { logBytes, segmentBytes } = bench.sim.geometry;
    bench.sim.log.failRead({ offset: logBytes - segmentBytes - 9 * BLOCK_BYTES, length: 1 });
    await bench.lose('cut', async (volume) => {
      expect(await holds(volume.live(), 3, [blocksOf(4)])).toBe(0);
    });
  });
});
