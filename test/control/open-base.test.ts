/** Looking at a base before it is taken for the one that it was. */
import { expect, test } from 'vitest';
import { BLOCK_BYTES, mebibytes } from '../../src/base/units.ts';
import { openFileBase, planBase } from '../../src/control/open-base.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import { SimFiles } from '../sim/sim-files.ts';
import { SimWorld } from '../sim/sim-world.ts';

const PATH = '/srv/golden.raw';
const SIZE = mebibytes(16);

// One bad sector of it, even where the volume had long been written, and nothing opened any more.
test('a base of which some places are bad is opened; another one is not, nor one that is away', async () => {
  const power = new PowerSupply(new SimWorld(1));
  const files = SimFiles.create(power).reopen();
  const { openDevice } = files;
  await power.world.run(async () => {
    await files.createDirectory('/srv');
    await (await openDevice(PATH, { create: true, size: SIZE })).close();
    const disk = files.disk(PATH);
    const base = await planBase({ files, openDevice }, { path: PATH, format: 'raw' });
    const open = async (): Promise<void> => {
      await (await openFileBase({ files, openDevice }, '/srv/varve/disk', base)).close();
    };
    await open();
    const mendFirst = disk.failRead({ offset: 0, length: BLOCK_BYTES });
    const mendLast = disk.failRead({ offset: SIZE - BLOCK_BYTES, length: BLOCK_BYTES });
    await open();
    const mendAll = disk.failRead({ offset: 0, length: SIZE });
    await expect(open()).rejects.toMatchObject({ code: 'DEVICE_IO' });
    for (const mend of [mendFirst, mendAll]) mend();
    disk.corrupt(0, new Uint8Array(BLOCK_BYTES).fill(1));
    await expect(open()).rejects.toMatchObject({ code: 'BASE_CHANGED' });
    mendLast();
  });
});
