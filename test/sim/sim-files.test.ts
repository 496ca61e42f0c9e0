/** Simulated files: atomic, durable once settled, with locks that die with their life. */
import { describe, expect, test } from 'vitest';
import { byteCount, byteOffset } from '../../src/base/units.ts';
import { PowerSupply } from './power-supply.ts';
import { SimFiles } from './sim-files.ts';
import { SimWorld } from './sim-world.ts';

function machine(seed: number): { world: SimWorld; power: PowerSupply; files: SimFiles } {
  const world = new SimWorld(seed);
  const power = new PowerSupply(world);
  return { world, power, files: SimFiles.create(power) };
}

describe('simulated files', () => {
  test('are the old or the new text after a cut, and the new one once it was answered', async () => {
    const found = new Set<string | undefined>();
    for (let seed = 0; seed < 40; seed++) {
      const { world, power, files } = machine(seed);
      await world.run(async () => {
        await files.writeAtomically('/a', 'old');
        files.writeAtomically('/a', 'new').catch(() => undefined);
      });
      power.cut();
      power.restore();
      found.add(await world.run(() => files.reopen().readText('/a')));
    }
    expect(found).toEqual(new Set(['new', 'old']));
  });

  test('that a kill ended are seen, and a cut may take them back until somebody syncs', async () => {
    for (const isSynced of [false, true]) {
      const found = new Set<string>();
      for (let seed = 0; seed < 80; seed++) {
        const { world, power, files } = machine(seed);
        await world.run(async () => {
          await files.createDirectory('/a');
          await files.writeAtomically('/a/new', 'x');
          files.rename('/a/new', 'name').catch(() => undefined);
        });
        power.kill();
        power.restore();
        const again = files.reopen();
        const seen = await world.run(async () => {
          // A lock is a name that nobody makes durable.
          await again.lock('/a/lock');
          if (isSynced) await again.syncNames('/a');
          return (await again.list('/a')).join(' ');
        });
        power.cut();
        power.restore();
        const left = await world.run(() => files.reopen().list('/a'));
        found.add(`${seen}, then ${left.join(' ')}`);
      }
      expect([...found].toSorted()).toEqual([
        'lock name, then lock name',
        ...(isSynced ? [] : ['lock name, then lock new']),
        'lock new, then lock new',
      ]);
    }
  });

  test('are listed, looked at and removed', async () => {
    const { world, files } = machine(1);
    await world.run(async () => {
      await expect(files.writeAtomically('/no/a', 'x')).rejects.toMatchObject({ code: 'FILE_BAD' });
      await files.createDirectory('/data/disk');
      await files.createDirectory('/data/disk');
      await files.writeAtomically('/data/disk/volume.json', '{}');
      expect(await files.list('/data')).toEqual(['disk']);
      expect(await files.list('/data/disk')).toEqual(['volume.json']);
      expect(await files.list('/elsewhere')).toEqual([]);
      expect(await files.kind('/data')).toBe('directory');
      expect(await files.kind('/data/disk/volume.json')).toBe('file');
      expect(await files.readText('/data/none')).toBeUndefined();
      await expect(files.remove('/data')).rejects.toMatchObject({ code: 'DEVICE_IO' });
      await files.remove('/data/disk/volume.json');
      await files.remove('/data/disk');
      expect(await files.kind('/data/disk')).toBe('none');
    });
  });

  test('are locked by one, until release or the end of a life', async () => {
    const { world, power, files } = machine(1);
    await world.run(async () => {
      const lock = await files.lock('/lock');
      await expect(files.lock('/lock')).rejects.toMatchObject({ code: 'VOLUME_LOCKED' });
      await lock.release();
      await lock.release();
      await files.lock('/lock');
    });
    power.kill();
    power.restore();
    await world.run(() => files.reopen().lock('/lock'));
  });

  test('open devices with the errors that real ones have', async () => {
    const { world, power, files } = machine(1);
    const size = byteCount(65_536);
    files.addBlockDevice('/dev', 100_000);
    await world.run(async () => {
      await expect(files.openDevice('/log')).rejects.toMatchObject({ code: 'FILE_BAD' });
      const log = await files.openDevice('/log', { create: true, size });
      await log.write(byteOffset(0), [Uint8Array.of(7)]);
      await log.sync('commit');
      const again = files.openDevice('/log', { create: true, size });
      await expect(again).rejects.toMatchObject({ code: 'FILE_EXISTS' });
      const other = files.openDevice('/log', { size: byteCount(5) });
      await expect(other).rejects.toMatchObject({ code: 'VOLUME_FOREIGN' });
      expect((await files.openDevice('/dev', { size })).size).toBe(size);
      files.failNext('DISK_FULL');
      const full = files.openDevice('/sums', { create: true, size });
      await expect(full).rejects.toMatchObject({ code: 'DISK_FULL' });
      expect(await files.kind('/sums')).toBe('none');
    });
    power.cut();
    power.restore();
    const byte = new Uint8Array(1);
    await world.run(async () => {
      const log = await files.reopen().openDevice('/log', { size });
      await log.read(byteOffset(0), byte);
    });
    expect(byte[0]).toBe(7);
    expect([...files.disks().keys()]).toEqual(['/dev', '/log']);
  });
});
