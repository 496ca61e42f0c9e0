/** The bytes of a cut, kept beside a volume before recovery erases them: whole, or not yet. */
import { describe, expect, test } from 'vitest';
import { BLOCK_BYTES, mebibytes, slot } from '../../src/base/units.ts';
import { keepAside } from '../../src/control/keep-aside.ts';
import { VolumeDirectory } from '../../src/control/volume-directory.ts';
import { planGeometry, slotOffset } from '../../log/geometry.ts';
import { blocksOf, get, put } from '../crash/bench.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import { SimFiles } from '../sim/sim-files.ts';
import { SimWorld } from '../sim/sim-world.ts';
import { loadVolumes } from '../support/volume-code.ts';

const SIZE = { size: mebibytes(1), logSize: mebibytes(80) };
const FOLDER = '/srv/varve/disk';
/** After the first generation, which has a header, its content and a block of flush. */
const CUT_LSN = 3 * BLOCK_BYTES;
const CUT_OFFSET = slotOffset(planGeometry(SIZE), slot(0)) + BLOCK_BYTES + CUT_LSN;
const NAME = `cut-${CUT_LSN}-at-${CUT_OFFSET}.bin`;
const PART = `.${NAME}.part`;

const quiet = (): void => undefined;

function directoryOn(power: PowerSupply, files: SimFiles): VolumeDirectory {
  const { openDevice } = files;
  return new VolumeDirectory('/srv/varve', { files, openDevice, world: power.life, loadVolumes });
}

/** A volume whose second batch is lost, while those behind it reached a flush mark. */
async function damaged(): Promise<SimFiles> {
  const power = new PowerSupply(new SimWorld(1));
  const files = SimFiles.create(power);
  await power.world.run(async () => {
    const directory = directoryOn(power, files);
    await directory.create('disk', SIZE, quiet);
    const { volume } = await directory.open('disk', 'write');
    const { log } = volume.core;
    await put(volume, 0, blocksOf(0), true);
    expect(log.stream.nextLsn).toBe(CUT_LSN);
    for (let i = 1; i < 5; i++) {
      await put(volume, i, blocksOf(i));
      log.stream.seal();
    }
    put(volume, 5, blocksOf(5), true).catch(() => undefined);
    log.stream.seal();
    await log.writer.waitWritten(log.stream.nextLsn);
  });
  power.kill();
  power.restore();
  const disk = files.disk(`${FOLDER}/log`).reopen();
  // Whether the next cut takes what nobody synced is another story.
  await power.world.run(() => disk.sync('commit'));
  disk.corruptBit(CUT_OFFSET + 20, 0);
  return files;
}

/** The same directory, on a machine of its own. */
function machineOf(
  before: SimFiles,
  seed: number,
): { readonly world: SimWorld; readonly power: PowerSupply; readonly files: SimFiles } {
  const world = new SimWorld(seed);
  const power = new PowerSupply(world);
  return { world, power, files: before.copy(power) };
}

async function open(power: PowerSupply, files: SimFiles): Promise<void> {
  const opened = await directoryOn(power, files).open('disk', 'write');
  expect(Buffer.compare(await get(opened.volume.live(), 0), blocksOf(0))).toBe(0);
  await opened.close();
}

function bytesOf(files: SimFiles, name: string): Uint8Array {
  const { platter, size } = files.disk(`${FOLDER}/${name}`);
  const bytes = new Uint8Array(size);
  platter.read(0, bytes);
  return bytes;
}

async function kept(files: SimFiles): Promise<readonly string[]> {
  const own = ['final.raw', 'final.sums', 'lock', 'log', 'undo', 'volume.json'];
  return (await files.list(FOLDER)).filter((name) => !own.includes(name));
}

describe('bytes of a cut', () => {
  test('are whole under their name, wherever the opening that kept them was cut', async () => {
    // They were written under that name at once, and a part of them was taken for all the next time.
    const before = await damaged();
    const calm = machineOf(before, 0);
    await calm.world.run(() => open(calm.power, calm.files));
    expect(await calm.world.run(() => kept(calm.files))).toEqual([NAME]);
    const bytes = bytesOf(calm.files, NAME);
    const expected = new Uint8Array(bytes.length);
    before.disk(`${FOLDER}/log`).platter.read(CUT_OFFSET, expected);
    expect(Buffer.compare(bytes, expected)).toBe(0);
    const { operations } = calm.power;
    let parts = 0;
    for (let at = 1; at <= operations; at++) {
      // The first ones read the log; one is as good as the other.
      if (at % (at < operations - 80 ? 20 : 3) !== 0) continue;
      const { world, power, files } = machineOf(before, at);
      power.plan({ loss: at % 2 === 0 ? 'cut' : 'kill', afterOperations: at });
      await power.runLife(() => open(power, files));
      if (power.alive) power.cut();
      power.restore();
      const again = files.reopen();
      await world.run(async () => {
        if ((await kept(again)).includes(PART)) parts += 1;
        await open(power, again);
        const names = await kept(again);
        expect(names).toContain(NAME);
        expect(names).not.toContain(PART);
      });
      expect(Buffer.compare(bytesOf(again, NAME), bytes)).toBe(0);
    }
    expect(parts).toBeGreaterThan(0);
  });

  test('never replace others, and are kept once', async () => {
    const power = new PowerSupply(new SimWorld(1));
    const files = SimFiles.create(power);
    const { openDevice } = files;
    const keep = (value: number): Promise<void> =>
      keepAside({ files, openDevice }, '/kept', { name: 'cut.bin', bytes: blocksOf(value) });
    await power.world.run(async () => {
      await files.createDirectory('/kept');
      for (const value of [1, 2, 1, 3, 2, 3]) await keep(value);
      expect(await files.list('/kept')).toEqual(['cut.2.bin', 'cut.3.bin', 'cut.bin']);
    });
  });

  test('leave nothing behind when there is no room for them, and come the next time', async () => {
    const power = new PowerSupply(new SimWorld(1));
    const files = SimFiles.create(power);
    await power.world.run(async () => {
      await files.createDirectory('/kept');
      const bytes = blocksOf(7, 4);
      const full = keepAside(
        {
          files,
          openDevice: async (path, options) => {
            const device = await files.openDevice(path, options);
            files.disk(path).limitSpace(BLOCK_BYTES);
            return device;
          },
        },
        '/kept',
        { name: 'cut.bin', bytes },
      );
      await expect(full).rejects.toMatchObject({ code: 'DISK_FULL' });
      expect(await files.list('/kept')).toEqual([]);
      const { openDevice } = files;
      await keepAside({ files, openDevice }, '/kept', { name: 'cut.bin', bytes });
      expect(await files.list('/kept')).toEqual(['cut.bin']);
    });
  });
});
