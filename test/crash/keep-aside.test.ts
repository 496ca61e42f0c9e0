/** Bytes of a cut that an opening can't keep aside: nobody was promised them. */
import { expect, test } from 'vitest';
import { VarveError, type ErrorCode } from '../../src/base/errors.ts';
import type { KeepAside } from '../../log/log.ts';
import type { CutReport } from '../../src/volume/report.ts';
import { Bench, blocksOf, holds, put } from './bench.ts';

/** A power cut while flushes are under way, behind one that was answered. */
async function cutInFlushes(seed: number): Promise<Bench> {
  const bench = await Bench.create(seed);
  await bench.untilLost('cut', async (volume, plan) => {
    await put(volume, 0, blocksOf(1), true);
    const puts = Array.from({ length: 9 }, (_, i) => put(volume, i + 1, blocksOf(i + 2)));
    plan({ loss: 'cut', afterOperations: 1 + (seed % 6) });
    const flushed = volume.live().flush();
    for (let i = 10; i < 20; i++) {
      await put(volume, i, blocksOf(i + 1));
      await volume.live().flush();
    }
    await Promise.all([...puts, flushed]);
  });
  return bench;
}

/** With a cut that reaches flush marks. */
const SEED = 3;

async function opened(bench: Bench, keepAside: KeepAside): Promise<CutReport | undefined> {
  return await bench.world.run(async () => {
    const volume = await bench.sim.open(bench.power.life, { keepAside });
    expect(await holds(volume.live(), 0, [blocksOf(1)])).toBe(0);
    await volume.close();
    return volume.core.recovery.cut;
  });
}

// Each opening was refused, after a power cut like any other, until somebody made room in the folder.
test.each<ErrorCode>(['DISK_FULL', 'PERMISSION', 'DEVICE_IO'])(
  'a volume opens though its folder answers %s, and says what was not kept',
  async (code) => {
    const bench = await cutInFlushes(SEED);
    const cut = await opened(bench, () => Promise.reject(new VarveError(code, 'cut.bin')));
    expect(cut?.flushMarks).toBeGreaterThan(0);
    expect(cut?.unkept).toContain('cut.bin');
  },
);

test('a volume opens though the log can not be read there', async () => {
  let [place, size] = [-1, -1];
  const probe = await opened(await cutInFlushes(SEED), async (name, bytes) => {
    place = Number(/at-(\d+)/.exec(name)?.[1]);
    size = bytes.length;
  });
  expect(probe?.unkept).toBeUndefined();
  const bench = await cutInFlushes(SEED);
  const devices = bench.sim.devices.bind(bench.sim);
  bench.sim.devices = () => {
    const all = devices();
    const read = all.log.read.bind(all.log);
    all.log.read = async (offset, target) => {
      // Whole: as nothing but this is read.
      const isThat = offset === place && target.length === size;
      if (isThat) throw new VarveError('DEVICE_IO', 'no such sector');
      await read(offset, target);
    };
    return all;
  };
  const kept: string[] = [];
  const cut = await opened(bench, async (name) => {
    kept.push(name);
  });
  expect([cut?.unkept, kept]).toEqual([expect.stringContaining('no such sector'), []]);
});

test('an opening fails for any other reason', async () => {
  const bench = await cutInFlushes(SEED);
  const fail = (): Promise<never> => Promise.reject(new VarveError('INTERRUPTED', 'stopped'));
  await expect(opened(bench, fail)).rejects.toMatchObject({ code: 'INTERRUPTED' });
});
