/**
 * An opening for reading alone, after a process was killed: the page cache shows it what was never
 * synced. It told of that, to users and to the clones of a snapshot, and the next power cut took it.
 */
import { expect, test } from 'vitest';
import type { Volume } from '../../src/volume/volume.ts';
import { Bench, blocksOf, holds, put } from './bench.ts';

const SEEDS = Array.from({ length: 10 }, (_, i) => i + 1);
const WRITES = 6;

/** Written to the page cache, and answered. */
async function killed(seed: number): Promise<Bench> {
  const bench = await Bench.create(seed);
  await bench.lose('kill', async (volume) => {
    volume.setWriteMode('written');
    for (let i = 0; i < WRITES; i++) await put(volume, i, blocksOf(100 + i));
  });
  return bench;
}

async function toRead<T>(bench: Bench, work: (volume: Volume) => Promise<T>): Promise<T> {
  return await bench.world.run(async () => {
    const volume = await bench.sim.open(bench.power.life, { readOnly: true });
    const result = await work(volume);
    await volume.close();
    return result;
  });
}

test.each(SEEDS)('what it showed is there after a power cut, seed %i', async (seed) => {
  const bench = await killed(seed);
  const shown = await toRead(bench, async ({ core }) => core.head);
  expect(shown).toBe(WRITES);
  bench.power.cut();
  bench.power.restore();
  await bench.use(async (volume) => {
    expect(volume.core.head).toBe(shown);
    expect(await holds(volume.live(), WRITES - 1, [blocksOf(100 + WRITES - 1)])).toBe(0);
  });
});

test('a device that can not make it durable is refused, and says so', async () => {
  const bench = await killed(1);
  bench.sim.log.failNextSync({ point: 'recovery', dropDirty: false });
  await expect(toRead(bench, async () => undefined)).rejects.toMatchObject({
    code: 'DEVICE_IO',
    detail: expect.stringContaining('a power cut may take what it shows'),
  });
});

test('nothing is synced where nothing is in doubt', async () => {
  const bench = await Bench.create(1);
  await bench.use((volume) => put(volume, 0, blocksOf(1)));
  const { syncs } = bench.sim.log.counters;
  await toRead(bench, async (volume) => {
    expect(await holds(volume.live(), 0, [blocksOf(1)])).toBe(0);
  });
  expect(bench.sim.log.counters.syncs).toBe(syncs);
});
