/** The data path as its clients see it, in a simulated world without faults. */
import { describe, expect, test } from 'vitest';
import { BLOCK_BYTES, byteCount, byteOffset, kibibytes } from '../../src/base/units.ts';
import type { BlockDevice } from '../../src/device/block-device.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { VolumeModel } from '../model/volume-model.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import type { SeededRandom } from '../sim/random.ts';
import { SimVolume, type SimVolumeOptions } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';

const NO = { fua: false };

async function inWorld(
  seed: number,
  work: (volume: Volume, random: SeededRandom, sim: SimVolume) => Promise<void>,
  options: SimVolumeOptions = {},
): Promise<void> {
  const world = new SimWorld(seed);
  const power = new PowerSupply(world);
  const sim = new SimVolume(power, options);
  await world.run(async () => {
    await sim.format(power.life);
    const volume = await sim.open(power.life);
    await work(volume, world.random, sim);
    await volume.close();
  });
}

async function read(device: BlockDevice, offset: number, length: number): Promise<Uint8Array> {
  const target = new Uint8Array(length);
  await device.read(byteOffset(offset), target);
  return target;
}

async function expectEqual(
  device: BlockDevice,
  model: VolumeModel,
  generation: number,
): Promise<void> {
  const got = await read(device, 0, model.size);
  expect(Buffer.compare(got, model.bytesAt(0, model.size, generation))).toBe(0);
}

describe('a volume', () => {
  test('a new one reads as zeros', async () => {
    await inWorld(1, async (volume) => {
      expect((await read(volume.live(), 0, 8192)).every((byte) => byte === 0)).toBe(true);
    });
  });

  test('gives back what was written, at any offset and length', async () => {
    await inWorld(2, async (volume, random) => {
      const model = new VolumeModel(volume.size);
      for (let i = 0; i < 60; i++) {
        const length = 1 + random.below(20_000);
        const offset = random.below(volume.size - length);
        const bytes = random.bytes(length);
        await volume.live().write(byteOffset(offset), bytes, NO);
        model.write(offset, bytes);
        const got = await read(volume.live(), offset, length);
        expect(Buffer.compare(got, bytes)).toBe(0);
      }
      await expectEqual(volume.live(), model, model.head);
      volume.core.check();
    });
  });

  test('every moment of the window opens after the fact', async () => {
    await inWorld(3, async (volume, random) => {
      const model = new VolumeModel(volume.size);
      for (let i = 0; i < 40; i++) {
        const length = 1 + random.below(9000);
        const offset = random.below(volume.size - length);
        const bytes = random.bytes(length);
        await volume.live().write(byteOffset(offset), bytes, NO);
        model.write(offset, bytes);
      }
      for (let generation = 0; generation <= model.head; generation++) {
        const device = volume.openMoment(await volume.resolve(`gen=${generation}`));
        await expectEqual(device, model, generation);
        await device.close();
      }
    });
  });

  test('trims and zeroes read as zeros, and their history stays', async () => {
    await inWorld(4, async (volume) => {
      const model = new VolumeModel(volume.size);
      const live = volume.live();
      const bytes = new Uint8Array(64 * 1024).fill(7);
      await live.write(byteOffset(0), bytes, NO);
      model.write(0, bytes);
      await live.trim(byteOffset(100), byteCount(20_000), NO);
      model.trim(100, 20_000);
      await live.zero(byteOffset(30_001), byteCount(9000), { fua: true, allocate: false });
      model.zero(30_001, 9000);
      await live.zero(byteOffset(50_000), byteCount(10), { fua: true, allocate: true });
      model.zero(50_000, 10);
      for (let generation = 0; generation <= model.head; generation++) {
        const device = volume.openMoment(await volume.resolve(`gen=${generation}`));
        await expectEqual(device, model, generation);
        await device.close();
      }
    });
  });

  test('the log wraps many times: head and window stay right, final storage is the horizon', async () => {
    await inWorld(5, async (volume, random, sim) => {
      const model = new VolumeModel(volume.size);
      const live = volume.live();
      for (let i = 0; i < 2500; i++) {
        const kind = random.below(20);
        const length = 1 + random.below(kind === 0 ? 60_000 : 9000);
        const offset = random.below(volume.size - length);
        if (kind === 1) {
          await live.trim(byteOffset(offset), byteCount(length), NO);
          model.trim(offset, length);
        } else if (kind === 2) {
          await live.zero(byteOffset(offset), byteCount(length), {
            fua: false,
            allocate: kind > 3,
          });
          model.zero(offset, length);
        } else {
          const bytes = random.bytes(length);
          await live.write(byteOffset(offset), bytes, NO);
          model.write(offset, bytes);
        }
        if (i % 100 === 0) await live.flush();
      }
      const info = await volume.info();
      expect(info.counters.rounds).toBeGreaterThan(10);
      const written = info.counters.logBytes / info.log.sizeBytes;
      expect(written).toBeGreaterThan(10);
      await expectEqual(live, model, model.head);
      // A round that is under way would take the oldest moments out of our hands.
      await new Promise<void>((done) => {
        sim.power.life.timers.after(10_000, done);
      });
      for (let i = 0; i < 50; i++) {
        // A round under way may move the horizon; what it is now can be opened now.
        const horizon = volume.core.horizon.generation;
        const generation = horizon + random.below(model.head - horizon + 1);
        const device = volume.openMoment(await volume.resolve(`gen=${generation}`));
        await expectEqual(device, model, generation);
        await device.close();
      }
      volume.core.check();
      await volume.close();
      const settled = volume.core.settled;
      const image = new Uint8Array(volume.size);
      await sim.final.reopen().read(byteOffset(0), image);
      expect(Buffer.compare(image, model.bytesAt(0, model.size, settled))).toBe(0);
    });
  });

  test('a snapshot stops nothing, and reads as it was while the log wraps', async () => {
    await inWorld(6, async (volume, random) => {
      const model = new VolumeModel(volume.size);
      const live = volume.live();
      const put = async (): Promise<void> => {
        const bytes = random.bytes(BLOCK_BYTES);
        const offset = random.below(model.blocks) * BLOCK_BYTES;
        await live.write(byteOffset(offset), bytes, NO);
        model.write(offset, bytes);
      };
      for (let i = 0; i < 20; i++) await put();
      const snapshot = await volume.createSnapshot('keep', 'gen=10');
      expect(snapshot.generation).toBe(10);
      for (let i = 0; i < 1000; i++) await put();
      expect(volume.core.horizon.generation).toBeGreaterThan(10);
      const kept = volume.openMoment(await volume.resolve('keep'));
      await expectEqual(kept, model, 10);
      await kept.close();
      await expectEqual(live, model, model.head);
      await volume.core.undo.check();
      const [info] = volume.snapshots();
      expect(info?.exclusiveBytes).toBe(volume.core.undo.held.bytes);
      await volume.deleteSnapshot('keep');
      await volume.core.collected();
      expect(volume.core.undo.held).toEqual({ images: 0, bytes: 0 });
      expect(volume.core.undo.segments).toBe(0);
      for (let i = 0; i < 300; i++) await put();
      await expectEqual(live, model, model.head);
    });
  });

  test('an open moment goes on below the horizon', async () => {
    await inWorld(7, async (volume, random) => {
      const live = volume.live();
      const content = random.bytes(BLOCK_BYTES);
      await live.write(byteOffset(0), content, NO);
      const moment = volume.openMoment(await volume.resolve('gen=1'));
      for (let i = 0; i < 500; i++) {
        await live.write(byteOffset(random.below(90) * 4096), random.bytes(BLOCK_BYTES), NO);
      }
      expect((await volume.info()).horizon.generation).toBeGreaterThan(100);
      expect(await read(moment, 0, 4096)).toEqual(content);
      expect(await read(moment, 4096, 4096)).toEqual(new Uint8Array(4096));
      await moment.close();
    });
  });

  test('an open moment never stops writers: where nothing can be kept it ends, and says so', async () => {
    const work = async (volume: Volume, random: SeededRandom): Promise<void> => {
      const live = volume.live();
      await live.write(byteOffset(0), random.bytes(BLOCK_BYTES), NO);
      const moment = volume.openMoment(await volume.resolve('gen=1'));
      for (let i = 0; i < 500; i++) {
        await live.write(byteOffset(random.below(90) * 4096), random.bytes(BLOCK_BYTES), NO);
      }
      await expect(read(moment, 0, 4096)).rejects.toMatchObject({
        code: 'MOMENT_GONE',
        errno: 'EIO',
      });
      await moment.close();
    };
    await inWorld(7, work, { undoBytes: kibibytes(64) });
  });

  test('closes and opens again with everything, and names snapshots and marks', async () => {
    const world = new SimWorld(8);
    const power = new PowerSupply(world);
    const sim = new SimVolume(power, { slots: 40 });
    const model = new VolumeModel(sim.geometry.size);
    await world.run(async () => {
      await sim.format(power.life);
      for (let round = 0; round < 5; round++) {
        const volume = await sim.open(power.life);
        const info = await volume.info();
        expect(info.head.generation).toBe(model.head);
        expect(info.recovery.clean).toBe(true);
        for (let i = 0; i < 30; i++) {
          const bytes = world.random.bytes(1 + world.random.below(9000));
          const offset = world.random.below(volume.size - bytes.length);
          await volume.live().write(byteOffset(offset), bytes, NO);
          model.write(offset, bytes);
        }
        await volume.createSnapshot(`s${round}`);
        await volume.mark(`m${round}`);
        await volume.close();
      }
      const volume = await sim.open(power.life);
      expect(volume.snapshots().map(({ label }) => label)).toEqual(['s0', 's1', 's2', 's3', 's4']);
      for (const { label, generation } of volume.snapshots()) {
        const device = volume.openMoment(await volume.resolve(label));
        await expectEqual(device, model, generation);
      }
      await volume.close();
    });
  });

  test('requests of the largest size fit, and longer ones are refused', async () => {
    await inWorld(9, async (volume, random) => {
      const live = volume.live();
      const bytes = random.bytes(kibibytes(64));
      for (let i = 0; i < 40; i++) await live.write(byteOffset(4096 * (i % 7)), bytes, NO);
      const tooLong = new Uint8Array(kibibytes(64) + 1);
      expect(() => live.write(byteOffset(0), tooLong, NO)).toThrow('longer than the largest');
    });
  });
});
