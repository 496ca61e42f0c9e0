/** Flattens on a server: asked for again after a failure, or several at once. */
import { expect, test } from 'vitest';
import { VarveError } from '../../src/base/errors.ts';
import { byteOffset, mebibytes } from '../../src/base/units.ts';
import { LocalOperator } from '../../src/control/local-operator.ts';
import { VolumeDirectory } from '../../src/control/volume-directory.ts';
import { ServedVolumes } from '../../src/control/volume-pool.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import { SimFiles } from '../sim/sim-files.ts';
import { SimWorld } from '../sim/sim-world.ts';
import { loadVolumes } from '../support/volume-code.ts';

const quiet = (): void => undefined;

test('a flatten goes on when it is not known which record stands', async () => {
  // A directory that fails to sync has the new record all the same: flatten says DEVICE_IO, and is
  // asked for again, with one record or the other.
  const world = new SimWorld(1);
  const power = new PowerSupply(world);
  const files = SimFiles.create(power);
  const { openDevice } = files;
  const around = { files, openDevice, world: power.life, loadVolumes };
  const directory = new VolumeDirectory('/srv/varve', around);
  const write = files.writeAtomically.bind(files);
  await world.run(async () => {
    await directory.create('one', { size: mebibytes(1), logSize: mebibytes(80) }, quiet);
    const first = await directory.open('one', 'write');
    const content = new Uint8Array(mebibytes(1)).fill(7);
    await first.volume.live().write(byteOffset(0), content, { fua: true });
    await first.close();
    for (const failing of [1, 2]) {
      const pool = await ServedVolumes.open(directory);
      const operator = new LocalOperator(directory, pool, { isServed: true });
      const name = `clone${failing}`;
      await operator.clone(name, { of: 'one' }, quiet);
      let writes = 0;
      files.writeAtomically = async (path, text) => {
        await write(path, text);
        if (++writes === failing) throw new VarveError('DEVICE_IO', `${path}: EIO (simulated)`);
      };
      await expect(operator.flatten(name, quiet)).rejects.toMatchObject({ code: 'DEVICE_IO' });
      const base = failing === 1 ? expect.objectContaining({ isCopied: true }) : undefined;
      expect((await directory.record(name)).base).toEqual(base);
      const again = operator.flatten(name, quiet);
      if (failing === 1) await again;
      else await expect(again).rejects.toMatchObject({ code: 'BASE_NONE' });
      await pool.close();
      const opened = await directory.open(name, 'read');
      const found = new Uint8Array(mebibytes(1));
      await opened.volume.live().read(byteOffset(0), found);
      expect(Buffer.compare(found, content)).toBe(0);
      await opened.close();
    }
  });
});

test('a flatten that is asked for while another one ends never brings the base back', async () => {
  // It read the record before the first had written the one without the base, and wrote its own
  // after it: the volume named a base again, whose snapshot could be deleted meanwhile, and never
  // opened then.
  const world = new SimWorld(1);
  const power = new PowerSupply(world);
  const files = SimFiles.create(power);
  const { openDevice } = files;
  const seconds: Promise<unknown>[] = [];
  let isAsking = false;
  const write = files.writeAtomically.bind(files);
  const directory = new VolumeDirectory('/srv/varve', {
    files,
    openDevice,
    world: power.life,
    loadVolumes,
  });
  await world.run(async () => {
    await directory.create('one', { size: mebibytes(1), logSize: mebibytes(80) }, quiet);
    const pool = await ServedVolumes.open(directory);
    const operator = new LocalOperator(directory, pool, { isServed: true });
    await operator.withExport('one', 'write', async ({ device }) => {
      await device.write(byteOffset(0), new Uint8Array(mebibytes(1)).fill(7), { fua: true });
    });
    await operator.clone('two', { of: 'one' }, quiet);
    const told = (error: unknown): unknown => error;
    const ask = (): void => {
      seconds.push(operator.flatten('two', quiet).then(() => 'ended', told));
    };
    files.writeAtomically = async (path, text) => {
      const isDropped = path.includes('two') && !text.includes('"kind": "volume"');
      if (isDropped && !isAsking) {
        // Each reads the record as it is now: in time, nearly so, and too late.
        isAsking = true;
        ask();
        power.life.timers.after(29.9, ask);
        await new Promise<void>((resume) => {
          power.life.timers.after(30, resume);
        });
        ask();
      }
      await write(path, text);
    };
    await operator.flatten('two', quiet);
    for (const error of await Promise.all(seconds)) {
      expect(error).toMatchObject({ code: expect.stringMatching(/^(BASE_NONE|SCRUB_RUNS)$/) });
    }
    expect(seconds.length).toBe(3);
    expect(await directory.record('two')).toMatchObject({ base: undefined, hadBase: true });
    await operator.deleteSnapshot('one', 'clone-two');
    await pool.close();
    await (await directory.open('two', 'write')).close();
  });
});
