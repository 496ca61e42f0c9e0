/**
 * The file system below is full, and what makes room again in it: deleted snapshots, moments that end.
 */
import { expect, test, vi } from 'vitest';
import { isVarveError, VarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount } from '../../src/base/units.ts';
import type { LowerDevice } from '../../src/device/lower-device.ts';
import { RETRY_MS } from '../../src/volume/destager.ts';
import type { Volume } from '../../src/volume/volume.ts';
import type { SimDisk } from '../sim/sim-disk.ts';
import { Bench, blocksOf, get, pushRounds, put, withWriteHook } from './bench.ts';

const SIZE = byteCount(3000 * BLOCK_BYTES);

/** @returns why they are refused, or undefined */
async function puts(volume: Volume, blocks: Iterable<number>): Promise<string | undefined> {
  try {
    for (const block of blocks) await put(volume, block, blocksOf(block));
    return undefined;
  } catch (error) {
    if (!isVarveError(error)) throw error;
    return error.code;
  }
}

function* upTo(first: number, end: number): Generator<number> {
  for (let block = first; block < end; block++) yield block;
}

// A round waits in its place for room, and what deleted snapshots give back waited for the round.
test('a deleted snapshot makes room for a round that waits for it', async () => {
  const bench = await Bench.create(3, { size: SIZE });
  const { world, sim } = bench;
  let taken = Infinity;
  // One file system for both, as by default.
  const used = (): number => sim.undo.platter.allocatedBytes + sim.final.platter.allocatedBytes;
  const within = (disk: LowerDevice, { platter }: SimDisk): LowerDevice =>
    withWriteHook(disk, async (offset, length) => {
      const more = platter.newBytes(offset, length);
      if (more > 0 && used() + more > taken) throw new VarveError('DISK_FULL', 'ENOSPC');
      await Promise.resolve();
    });
  const devices = sim.devices.bind(sim);
  vi.spyOn(sim, 'devices').mockImplementation(() => {
    const all = devices();
    return { ...all, undo: within(all.undo, sim.undo), final: within(all.final, sim.final) };
  });
  await bench.lose('kill', async (volume) => {
    await puts(volume, upTo(0, 300));
    await pushRounds(volume, 4, 2900, 40);
    await volume.createSnapshot('old');
    for (const block of upTo(0, 300)) await put(volume, block, blocksOf(7000 + block));
    await pushRounds(volume, 4, 2900, 40);
    taken = used();
    expect(await puts(volume, upTo(1000, 2500))).toBe('DISK_FULL');
    await volume.deleteSnapshot('old');
    await world.sleep(3 * RETRY_MS * 1000);
    expect(await puts(volume, [2900])).toBe(undefined);
    expect(sim.undo.platter.allocatedBytes).toBe(0);
  });
});

// They say that the moment is gone; before, writers were refused for as long as somebody read it.
test('open moments end where the undo device has no room below, and writers go on', async () => {
  const bench = await Bench.create(3, { size: SIZE });
  const { sim } = bench;
  let isFull = false;
  const devices = sim.devices.bind(sim);
  vi.spyOn(sim, 'devices').mockImplementation(() => {
    const all = devices();
    const undo = withWriteHook(all.undo, async () => {
      if (isFull) throw new VarveError('DISK_FULL', 'ENOSPC');
      await Promise.resolve();
    });
    return { ...all, undo };
  });
  await bench.lose('kill', async (volume) => {
    await puts(volume, upTo(0, 300));
    await pushRounds(volume, 2, 2900, 40);
    const moment = volume.openMoment({ generation: volume.core.head });
    isFull = true;
    for (let pass = 0; pass < 3; pass++) {
      expect(await puts(volume, upTo(0, 300))).toBe(undefined);
    }
    await expect(get(moment, 0)).rejects.toThrow(expect.objectContaining({ code: 'MOMENT_GONE' }));
    await moment.close();
  });
});
