/** Snapshots, their pins and their checkpoints; and moments that no volume has. */
import { describe, expect, test } from 'vitest';
import { isVarveError } from '../../src/base/errors.ts';
import { kibibytes } from '../../src/base/units.ts';
import type { Volume } from '../../src/volume/volume.ts';
import type { SimVolumeOptions } from '../sim/sim-volume.ts';
import { Bench, blocksOf, NO_UNDO, put } from '../crash/bench.ts';

const LABELS = Array.from({ length: 26 }, (_, i) => `s${i}`);

/** Writes until the log has no room. */
async function fill(volume: Volume): Promise<void> {
  for (let i = 0; i < 1000; i++) {
    try {
      await put(volume, i % 90, blocksOf(i));
    } catch (error) {
      if (isVarveError(error, 'UNDO_FULL')) return;
      throw error;
    }
  }
  throw new Error('the log never got full');
}

const labelsOf = (volume: Volume): string[] => volume.snapshots().map(({ label }) => label);

describe('snapshots in a full log', () => {
  /** The smallest log there is, and all of its space, with the reserve, taken. */
  const FULL: SimVolumeOptions = {
    slots: 7,
    requestBytesMax: kibibytes(48),
    undoBytes: NO_UNDO,
  };
  const FIRST = 20;

  test('are deleted side by side, and a cut in between leaves a volume that opens', async () => {
    // Two deletes wrote their checkpoints into the same area: the one that the superblock named was
    // torn, or was not the one that it named.
    let cutInside = 0;
    for (let seed = 1; seed <= 60; seed++) {
      const bench = await Bench.create(seed, FULL);
      const gone = new Set<string>();
      const asked = new Set<string>();
      const end = await bench.untilLost('cut', async (volume, plan) => {
        await put(volume, 0, blocksOf(1));
        for (const label of LABELS) await volume.createSnapshot(label);
        await fill(volume);
        const drop = async (label: string): Promise<void> => {
          asked.add(label);
          await volume.deleteSnapshot(label);
          gone.add(label);
        };
        for (const label of LABELS.slice(0, FIRST)) await drop(label);
        plan({ loss: 'cut', afterOperations: 1 + (seed % 14) });
        const last = LABELS.slice(FIRST, FIRST + 3).map(async (label, i) => {
          await bench.world.sleep((i * seed * 13) % 120);
          await drop(label);
        });
        await Promise.all(last);
      });
      if (end.kind === 'lost') cutInside += 1;
      await bench.use(async (volume) => {
        const found = new Set(labelsOf(volume));
        for (const label of LABELS) {
          if (!asked.has(label)) expect(found.has(label)).toBe(true);
          if (gone.has(label)) expect(found.has(label)).toBe(false);
        }
        volume.core.check();
      });
    }
    expect(cutInside).toBeGreaterThan(20);
  });

  test('are all gone after the last was deleted, and writes go on', async () => {
    const bench = await Bench.create(1, FULL);
    await bench.use(async (volume) => {
      await put(volume, 0, blocksOf(1));
      for (const label of LABELS) await volume.createSnapshot(label);
      await fill(volume);
      await Promise.all(LABELS.map((label) => volume.deleteSnapshot(label)));
      expect(volume.snapshots()).toEqual([]);
      expect(volume.core.pins.count).toBe(0);
      for (let i = 0; i < 200; i++) await put(volume, i % 90, blocksOf(i));
    });
    await bench.use(async (volume) => expect(volume.snapshots()).toEqual([]));
  });
});

describe('a label that is used again', () => {
  test('keeps its pin, though an older delete of it is still under way', async () => {
    // The second delete took the pin of the new snapshot: the next round would have passed it.
    const bench = await Bench.create(2);
    await bench.use(async (volume) => {
      await put(volume, 0, blocksOf(1));
      await volume.createSnapshot('one');
      const first = volume.deleteSnapshot('one');
      const second = volume.deleteSnapshot('one').catch((error: unknown) => error);
      await first;
      await volume.createSnapshot('one');
      expect(await second).toMatchObject({ code: 'SNAPSHOT_UNKNOWN' });
      expect(labelsOf(volume)).toEqual(['one']);
      expect(volume.core.pins.count).toBe(1);
      expect(volume.core.pins.smallest()?.reasons).toEqual([{ kind: 'snapshot', label: 'one' }]);
    });
    await bench.use(async (volume) => {
      expect(labelsOf(volume)).toEqual(['one']);
      expect(volume.core.pins.count).toBe(1);
    });
  });

  test('is no way out where it is that of a mark, which can not be deleted', async () => {
    const bench = await Bench.create(3);
    await bench.use(async (volume) => {
      await put(volume, 0, blocksOf(1));
      await volume.mark('one');
      const again = await volume.mark('one').catch((error: unknown) => error);
      expect(again).toMatchObject({ code: 'SNAPSHOT_EXISTS', detail: '"one" is a mark' });
      expect(again).toMatchObject({ next: expect.not.stringContaining('delete the old one') });
      const gone = await volume.deleteSnapshot('one').catch((error: unknown) => error);
      expect(gone).toMatchObject({ code: 'SNAPSHOT_UNKNOWN', detail: '"one" is a mark' });
      await expect(volume.resolve('none')).rejects.toMatchObject({
        code: 'MOMENT_UNKNOWN',
        detail: '"none"; there are one',
      });
    });
  });

  test('is made once, however many ask at the same time', async () => {
    const bench = await Bench.create(3);
    await bench.use(async (volume) => {
      await put(volume, 0, blocksOf(1));
      const made = await Promise.allSettled([
        volume.createSnapshot('one'),
        volume.createSnapshot('one'),
        volume.mark('one'),
      ]);
      expect(made.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'rejected']);
      expect(volume.core.pins.count).toBe(1);
    });
  });
});

describe('a moment before the volume was made', () => {
  test('is outside the window, and not its beginning', async () => {
    // Time before the first second of the volume became that first second.
    const bench = await Bench.create(4);
    await bench.use(async (volume) => {
      await put(volume, 0, blocksOf(1));
      await bench.world.sleep(3_000_000);
      for (const text of ['-1d', '-1h', '2025-12-31T00:00:00Z']) {
        await expect(volume.resolve(text)).rejects.toMatchObject({ code: 'MOMENT_OUTSIDE' });
      }
      expect((await volume.resolve('-1s')).generation).toBe(1);
    });
    await bench.use(async (volume) => {
      await expect(volume.resolve('-1d')).rejects.toMatchObject({ code: 'MOMENT_OUTSIDE' });
      expect((await volume.resolve('-1s')).generation).toBe(1);
    });
  });
});
