/** A round that found the undo device full, and what comes and goes before it gets further. */
import { describe, expect, test, vi } from 'vitest';
import { assert } from '../../src/base/assert.ts';
import { isVarveError, VarveError } from '../../src/base/errors.ts';
import {
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  gibibytes,
  kibibytes,
  mebibytes,
  type Generation,
} from '../../src/base/units.ts';
import type { SyncPoint } from '../../src/device/lower-device.ts';
import { RETRY_MS } from '../../src/volume/destager.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { Bench, blocksOf, holds, put, withWriteHook } from '../crash/bench.ts';

const SEGMENT = kibibytes(64);
const SIZE = byteCount(6000 * BLOCK_BYTES);
const AT_ONCE = 10;
/** Rewritten to push rounds. */
const FILLER = 5980;
const ZEROS = new Uint8Array(BLOCK_BYTES);

/** Each block with content of its own. */
async function over(volume: Volume, from: number, to: number, value: number): Promise<void> {
  for (let block = from; block < to; block += AT_ONCE) {
    const content = new Uint8Array(AT_ONCE * BLOCK_BYTES);
    for (let i = 0; i < AT_ONCE; i++) content.set(blocksOf(value + block + i), i * BLOCK_BYTES);
    await put(volume, block, content);
  }
}

async function fill(volume: Volume, until: () => boolean): Promise<void> {
  for (let i = 0; !until(); i++) await put(volume, FILLER + (i % 20), blocksOf(1));
}

async function settle(volume: Volume): Promise<void> {
  const { head } = volume.core;
  await fill(volume, () => volume.core.settled >= head);
}

/** @returns why it accepts nothing more */
async function refusal(volume: Volume): Promise<unknown> {
  try {
    await fill(volume, () => false);
    return undefined;
  } catch (error) {
    return isVarveError(error) ? error.code : error;
  }
}

/** Under a snapshot, until the undo device is full. @returns where each pass over some blocks ended */
async function passesUntilFull(volume: Volume): Promise<readonly Generation[]> {
  await over(volume, 0, 3600, 1);
  await settle(volume);
  await volume.createSnapshot('old');
  await over(volume, 300, 900, 10_000);
  const passes: Generation[] = [];
  await expect(async () => {
    for (;;) {
      await over(volume, 0, 300, passes.length * 1000);
      passes.push(volume.core.head);
    }
  }).rejects.toThrow(expect.objectContaining({ code: 'UNDO_FULL' }));
  return passes;
}

const bench = (undoSlots: number): Promise<Bench> =>
  Bench.create(5, { size: SIZE, slots: 560, undoBytes: byteCount(SEGMENT + undoSlots * SEGMENT) });

describe('a round that found the undo device full', () => {
  test('puts nothing twice because somebody looks at the disk as it is now', async () => {
    // All was put again, beside the first copies: a snapshot's deletion then freed too little.
    const { world, sim, power } = await bench(206);
    await world.run(async () => {
      const volume = await sim.open(power.life);
      const { core } = volume;
      await over(volume, 0, 3600, 1);
      await settle(volume);
      await volume.createSnapshot('old');
      await over(volume, 0, 600, 10_000);
      await settle(volume);
      await volume.createSnapshot('young');
      await over(volume, 700, 3600, 20_000);
      expect(await refusal(volume)).toBe('UNDO_FULL');
      const { images } = core.undo.held;
      const moment = volume.openMoment(await volume.resolve(`gen=${core.head}`));
      await world.sleep(3 * RETRY_MS * 1000);
      await moment.close();
      expect(core.undo.held.images).toBe(images);
      await volume.deleteSnapshot('old');
      await world.sleep(20 * RETRY_MS * 1000);
      await put(volume, FILLER, blocksOf(2));
      await volume.close();
    });
  });

  test('keeps what a moment needs that was opened since', async () => {
    const { world, sim, power } = await bench(40);
    await world.run(async () => {
      const volume = await sim.open(power.life);
      const { core } = volume;
      const passes = await passesUntilFull(volume);
      const { target = core.settled, steps = 0 } = core.keeping ?? {};
      const pass = passes.findLastIndex((at) => at < target);
      const generation = passes[pass] ?? core.head;
      expect(steps).toBeGreaterThan(0);
      expect(generation).toBeGreaterThan(core.settled);
      const moment = volume.openMoment({ generation });
      await volume.deleteSnapshot('old');
      while (core.settled < target) await world.sleep(RETRY_MS * 1000);
      for (let block = 0; block < 300; block++) {
        expect(await holds(moment, block, [blocksOf(pass * 1000 + block)])).toBe(0);
      }
      await volume.close();
    });
  });

  test('tells so though readers come and go, and lets snapshots be deleted', async () => {
    // Each moment that was closed had writers wait for another attempt, for as long as readers came.
    const { world, sim, power } = await bench(40);
    await world.run(async () => {
      const volume = await sim.open(power.life);
      await passesUntilFull(volume);
      let isOver = false;
      const read = async (): Promise<void> => {
        while (!isOver) {
          const moment = volume.openMoment(await volume.resolve(`gen=${volume.core.head}`));
          await world.sleep(RETRY_MS * 200);
          await moment.close();
        }
      };
      const reading = read();
      await world.sleep(RETRY_MS * 500);
      const never = world.sleep(60 * RETRY_MS * 1000).then(() => 'never');
      expect(await Promise.race([refusal(volume), never])).toBe('UNDO_FULL');
      expect(await Promise.race([refusal(volume), never])).toBe('UNDO_FULL');
      const deleted = volume.deleteSnapshot('old').then(() => 'deleted');
      expect(await Promise.race([deleted, never])).toBe('deleted');
      isOver = true;
      await reading;
      await volume.close();
    });
  });

  test('goes less far when a rollback begins, and nothing spins', async () => {
    // Who waited for room was told that a round may make some, and the round had nothing to do: in
    // one turn, without a timer or a signal, for ever.
    const { world, sim, power } = await bench(40);
    await world.run(async () => {
      const volume = await sim.open(power.life);
      const { core } = volume;
      const passes = await passesUntilFull(volume);
      const target = core.keeping?.target ?? 0;
      const to = passes.findLast((at) => at < target - 5);
      // A client that takes its time to go.
      const session = volume.openLive();
      session.onRevoke(() => {
        void world.sleep(2 * RETRY_MS * 1000).then(() => session.device.close());
      });
      const { stream } = core.log;
      const room = stream.room.bind(stream);
      let asked = 0;
      stream.room = (...parts) => {
        asked += 1;
        assert(asked < 10_000, 'nobody asks for room for ever');
        return room(...parts);
      };
      const options = { to: `gen=${to}`, force: true, dryRun: false };
      const result = await volume
        .rollback(options, () => undefined)
        .catch((error: unknown) => error);
      expect(result).toMatchObject({ code: 'ROLLBACK_UNFINISHED' });
    });
  });

  test('puts again what a failed sync took, whatever the device says of it', async () => {
    // ENOSPC of fsync, as of NFS and thin volumes: the round went on, and home was overwritten.
    const { world, sim, power } = await bench(190);
    let isArmed = false;
    let fired = 0;
    const devices = sim.devices.bind(sim);
    vi.spyOn(sim, 'devices').mockImplementation(() => {
      const undo = withWriteHook(devices().undo, () => Promise.resolve());
      const sync = async (point: SyncPoint): Promise<void> => {
        if (!isArmed) return await undo.sync(point);
        isArmed = false;
        fired += 1;
        sim.undo.failNextSync({ dropDirty: true, evict: true, point: 'undo' });
        await expect(undo.sync(point)).rejects.toThrow(VarveError);
        throw new VarveError('DISK_FULL', 'ENOSPC');
      };
      return { ...devices(), undo: { ...undo, sync } };
    });
    await world.run(async () => {
      const volume = await sim.open(power.life);
      const { core } = volume;
      await over(volume, 0, 3600, 1);
      await settle(volume);
      await volume.createSnapshot('first');
      await over(volume, 0, 300, 10_000);
      await volume.createSnapshot('second');
      await over(volume, 0, 300, 30_000);
      await settle(volume);
      await over(volume, 400, 3600, 20_000);
      expect(await refusal(volume)).toBe('UNDO_FULL');
      const target = core.keeping?.target ?? 0;
      const join = core.undo.join.bind(core.undo);
      core.undo.join = async (record) => {
        isArmed = fired === 0;
        await join(record).finally(() => (isArmed = false));
      };
      await volume.deleteSnapshot('first');
      for (let i = 0; i < 60 && core.settled < target; i++) {
        await world.sleep(RETRY_MS * 500);
        await put(volume, FILLER + 1, blocksOf(2)).catch(() => undefined);
      }
      expect(fired).toBe(1);
      const moment = volume.openMoment(await volume.resolve('second'));
      for (let block = 0; block < 3600; block += 7) {
        const content = blocksOf(block < 300 ? 10_000 + block : 1 + block);
        expect(await holds(moment, block, [content])).toBe(0);
      }
    });
  });
});

// Each MiB of zeros took a batch of its own: trims of a blank disk filled the undo device with headers.
describe('a trim of what is blank, under a snapshot', () => {
  test('takes next to nothing of the undo device', async () => {
    const size = gibibytes(1);
    const undoBytes = byteCount(kibibytes(64) + 4 * mebibytes(1));
    const bench = await Bench.create(1, { size, segmentBytes: mebibytes(1), undoBytes });
    await bench.use(async (volume) => {
      await put(volume, 1, blocksOf(1), true);
      await volume.createSnapshot('fresh');
      for (let times = 0; times < 2; times++) {
        await volume.live().trim(byteOffset(0), size, { fua: true });
        await volume.createSnapshot(`trimmed-${times}`);
      }
      const { head } = volume.core;
      for (let i = 0; volume.core.settled < head; i++) await put(volume, i % 10, blocksOf(i));
      await volume.core.collected();
      expect(volume.core.undo.held.images).toBeLessThan(60);
      expect(volume.core.undo.segments).toBe(1);
      // The first page of sums, and what is beside the blocks that were written.
      expect(bench.sim.sums.platter.allocatedBytes).toBeLessThanOrEqual(kibibytes(16));
      for (const name of ['fresh', 'trimmed-0', 'trimmed-1']) {
        const moment = volume.openMoment(await volume.resolve(name));
        const was = name === 'fresh' ? blocksOf(1) : ZEROS;
        expect(await holds(moment, 1, [was]), name).toBe(0);
        for (const block of [0, 255, 256, 70_000])
          expect(await holds(moment, block, [ZEROS])).toBe(0);
        await moment.close();
      }
    });
    await bench.use(async (volume) => {
      await volume.core.undo.check();
      const moment = volume.openMoment(await volume.resolve('fresh'));
      expect(await holds(moment, 1, [blocksOf(1)])).toBe(0);
      await moment.close();
    });
  });
});
