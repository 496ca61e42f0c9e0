/** Every lower device, by the one suite. */
import { join } from 'node:path';
import { describe, test } from 'vitest';
import { byteCount, byteOffset } from '../../src/base/units.ts';
import { FileDevice } from '../../src/device/file-device.ts';
import { platform, programPlatform, type Platform } from '../../src/device/platform.ts';
import { SliceDevice } from '../../src/device/slice-device.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import { SimDisk } from '../sim/sim-disk.ts';
import { SimWorld } from '../sim/sim-world.ts';
import { temporaryDirectory } from '../support/files.ts';
import { loopDevice, loopDeviceObstacle } from './loop-device.ts';
import {
  BENCH_BYTES,
  describeLowerDevice,
  inThisWorld,
  type Bench,
} from './lower-device.conformance.ts';

async function fileBench(means: Platform): Promise<Bench> {
  const directory = temporaryDirectory();
  const device = await FileDevice.openWith(means, join(directory.path, 'disk'), {
    create: true,
    size: BENCH_BYTES,
  });
  return {
    device,
    run: inThisWorld,
    async [Symbol.asyncDispose](): Promise<void> {
      await device.close();
      directory[Symbol.dispose]();
    },
  };
}

async function blockBench(means: Platform): Promise<Bench> {
  const loop = loopDevice(BENCH_BYTES);
  const device = await FileDevice.openWith(means, loop.path);
  return {
    device,
    run: inThisWorld,
    async [Symbol.asyncDispose](): Promise<void> {
      await device.close();
      loop[Symbol.dispose]();
    },
  };
}

function simDisk(): { readonly world: SimWorld; readonly disk: SimDisk } {
  const world = new SimWorld(1);
  const size = BENCH_BYTES + 10_000;
  return { world, disk: SimDisk.create(new PowerSupply(world), { name: 'disk', size }) };
}

/** A slice that begins at no block's border, in a disk full of other bytes. */
async function sliceBench(): Promise<Bench> {
  const { world, disk } = simDisk();
  disk.corrupt(0, new Uint8Array(5000).fill(0xaa));
  disk.corrupt(BENCH_BYTES + 5000, new Uint8Array(5000).fill(0xaa));
  const offset = byteOffset(5000);
  const device = new SliceDevice(disk, { offset, size: BENCH_BYTES });
  return {
    device,
    run: (work) => world.run(work),
    async [Symbol.asyncDispose](): Promise<void> {
      for (const at of [0, BENCH_BYTES + 5000]) {
        const outside = new Uint8Array(5000);
        disk.platter.read(at, outside);
        if (!outside.every((byte) => byte === 0xaa)) throw new Error('a slice stays in its window');
      }
      await device.close();
    },
  };
}

async function simBench(): Promise<Bench> {
  const world = new SimWorld(2);
  const size = byteCount(BENCH_BYTES);
  const device = SimDisk.create(new PowerSupply(world), { name: 'disk', size });
  return {
    device,
    run: (work) => world.run(work),
    [Symbol.asyncDispose]: () => device.close(),
  };
}

describeLowerDevice('a file', async () => fileBench(await platform()));
describeLowerDevice('a file, without koffi', () => fileBench(programPlatform()));
describeLowerDevice('a slice', sliceBench);
describeLowerDevice('a simulated disk', simBench);

const obstacle = loopDeviceObstacle();
if (obstacle === undefined) {
  describeLowerDevice('a block device', async () => blockBench(await platform()));
  describeLowerDevice('a block device, without koffi', () => blockBench(programPlatform()));
} else {
  describe('a block device', () => {
    test.skip(`needs losetup (package mount) and root: ${obstacle}`, () => undefined);
  });
}
