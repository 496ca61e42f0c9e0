/** What a clone leaves at its origin: one snapshot, however often it was tried. */
import { expect, test } from 'vitest';
import { byteOffset, mebibytes } from '../../src/base/units.ts';
import { LocalOperator } from '../../src/control/local-operator.ts';
import { VolumeDirectory } from '../../src/control/volume-directory.ts';
import { ServedVolumes } from '../../src/control/volume-pool.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import { SimFiles } from '../sim/sim-files.ts';
import { SimWorld } from '../sim/sim-world.ts';
import { loadVolumes } from '../support/volume-code.ts';

const quiet = (): void => undefined;

interface Served {
  readonly operator: LocalOperator;
  readonly pool: ServedVolumes;
}

async function serve(power: PowerSupply, all: SimFiles): Promise<Served> {
  const files = all.reopen();
  const { openDevice } = files;
  const around = { files, openDevice, world: power.life, loadVolumes };
  const directory = new VolumeDirectory('/srv/varve', around);
  if (!(await directory.has('disk'))) {
    await directory.create('disk', { size: mebibytes(1), logSize: mebibytes(80) }, quiet);
  }
  const pool = await ServedVolumes.open(directory);
  return { pool, operator: new LocalOperator(directory, pool, { isServed: true }) };
}

/** One life, with a disk that was written to. */
async function onceServed(use: (served: Served) => Promise<void>): Promise<void> {
  const power = new PowerSupply(new SimWorld(1));
  const files = SimFiles.create(power);
  await power.runLife(async () => {
    const served = await serve(power, files);
    await write(served, 1);
    await use(served);
    await served.pool.close();
  });
}

async function write({ operator }: Served, value: number): Promise<void> {
  await operator.withExport('disk', 'write', async ({ device }) => {
    await device.write(byteOffset(0), new Uint8Array(4096).fill(value), { fua: true });
  });
}

async function labels({ operator }: Served): Promise<readonly string[]> {
  return (await operator.snapshots('disk')).map(({ label }) => label);
}

test('a clone that was killed and is made again has one snapshot of its origin', async () => {
  // The snapshot is made before the clone. Each kill left one, which kept its blocks for ever:
  // clone-web, clone-web-2, clone-web-3.
  const power = new PowerSupply(new SimWorld(1));
  const files = SimFiles.create(power);
  for (let kills = 0; kills < 3; kills++) {
    await power.runLife(async () => {
      const served = await serve(power, files);
      if (kills === 0) await write(served, 1);
      const kill = (): void => power.kill();
      await served.operator.clone('web', { of: 'disk' }, kill);
    });
    power.restore();
  }
  await power.runLife(async () => {
    const served = await serve(power, files);
    expect(await labels(served)).toEqual(['clone-web']);
    const made = await served.operator.clone('web', { of: 'disk' }, quiet);
    expect(made.base).toBe('disk@clone-web');
    expect(await labels(served)).toEqual(['clone-web']);
    await served.pool.close();
  });
});

test('clones of one moment share its snapshot, those of another have another', async () => {
  await onceServed(async (served) => {
    const { operator } = served;
    const bases: (string | undefined)[] = [];
    for (const name of ['one', 'two']) {
      bases.push((await operator.clone(name, { of: 'disk' }, quiet)).base);
    }
    await write(served, 2);
    bases.push((await operator.clone('three', { of: 'disk' }, quiet)).base);
    expect(bases).toEqual(['disk@clone-one', 'disk@clone-one', 'disk@clone-three']);
    const needed = { code: 'SNAPSHOT_IN_USE', message: expect.stringContaining('one, two') };
    await expect(operator.deleteSnapshot('disk', 'clone-one')).rejects.toMatchObject(needed);
  });
});

test('a clone may have as long a name as there are', async () => {
  await onceServed(async (served) => {
    const { operator } = served;
    // What is put before it made a label that was too long.
    const [one, other] = [`${'n'.repeat(63)}1`, `${'n'.repeat(63)}2`];
    expect((await operator.clone(one, { of: 'disk' }, quiet)).base).toBe(
      `disk@clone-${'n'.repeat(58)}`,
    );
    await write(served, 2);
    expect((await operator.clone(other, { of: 'disk' }, quiet)).base).toBe(
      `disk@clone-${'n'.repeat(56)}-2`,
    );
  });
});

test('a snapshot is not deleted where nobody can tell whether a clone needs it', async () => {
  const power = new PowerSupply(new SimWorld(1));
  const all = SimFiles.create(power);
  await power.runLife(async () => {
    const files = all.reopen();
    const { operator, pool } = await serve(power, all);
    await operator.createSnapshot('disk', 'old');
    await files.createDirectory('/srv/varve/other');
    await files.writeAtomically('/srv/varve/other/volume.json', '{');
    const refusal = operator.deleteSnapshot('disk', 'old');
    await expect(refusal).rejects.toMatchObject({ code: 'VOLUME_FOREIGN' });
    await expect(refusal).rejects.toThrow('volume "other", which may be a clone of it');
    await files.remove('/srv/varve/other/volume.json');
    await operator.deleteSnapshot('disk', 'old');
    await pool.close();
  });
});
