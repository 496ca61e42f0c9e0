/** A directory of volumes on simulated files: made whole or not at all, opened by one at a time. */
import { describe, expect, test } from 'vitest';
import { byteOffset, mebibytes } from '../../src/base/units.ts';
import type { ErrorCode } from '../../src/base/errors.ts';
import type { OpenDevice } from '../../src/device/lower-device.ts';
import type { MetaFiles } from '../../src/device/meta-files.ts';
import { VolumeExports } from '../../src/control/export-directory.ts';
import { LocalOperator } from '../../src/control/local-operator.ts';
import { ServedVolumes } from '../../src/control/volume-pool.ts';
import { VolumeDirectory, type CreateOptions } from '../../src/control/volume-directory.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import { SimFiles } from '../sim/sim-files.ts';
import { SimWorld } from '../sim/sim-world.ts';
import { loadVolumes } from '../support/volume-code.ts';

const SMALL: CreateOptions = { size: mebibytes(1), logSize: mebibytes(80) };
const quiet = (): void => undefined;

interface Machine {
  readonly world: SimWorld;
  readonly power: PowerSupply;
  readonly files: SimFiles;
  readonly directory: VolumeDirectory;
}

function directoryOn(power: PowerSupply, files: SimFiles): VolumeDirectory {
  const { openDevice } = files;
  return new VolumeDirectory('/srv/varve', { files, openDevice, world: power.life, loadVolumes });
}

function machine(seed: number): Machine {
  const world = new SimWorld(seed);
  const power = new PowerSupply(world);
  const files = SimFiles.create(power);
  return { world, power, files, directory: directoryOn(power, files) };
}

/** Every name below the root. */
async function treeOf(files: SimFiles, path = '/'): Promise<readonly string[]> {
  const found: string[] = [];
  for (const name of await files.list(path)) {
    const at = path === '/' ? `/${name}` : `${path}/${name}`;
    found.push(at);
    if ((await files.kind(at)) === 'directory') found.push(...(await treeOf(files, at)));
  }
  return found;
}

/** The files, and devices opened there; the change of that number fails. */
function failingAt(
  files: SimFiles,
  number: number,
  code: ErrorCode,
): MetaFiles & { readonly openDevice: OpenDevice } {
  let changes = 0;
  const count = (): void => {
    if (changes++ === number) files.failNext(code);
  };
  return {
    kind: (path) => files.kind(path),
    list: (path) => files.list(path),
    readText: (path) => files.readText(path),
    remove: (path) => files.remove(path),
    syncNames: (path) => (count(), files.syncNames(path)),
    createDirectory: (path) => (count(), files.createDirectory(path)),
    writeAtomically: (path, text) => (count(), files.writeAtomically(path, text)),
    rename: (path, name) => (count(), files.rename(path, name)),
    link: (path, second) => (count(), files.link(path, second)),
    isSame: (path, other) => files.isSame(path, other),
    isSameDevice: (path, other) => files.isSameDevice(path, other),
    lock: (path) => (count(), files.lock(path)),
    openDevice: (path, options) => (count(), files.openDevice(path, options)),
  };
}

describe('a volume directory', () => {
  test('makes a volume, names it, and opens it for one at a time', async () => {
    const { world, directory } = machine(1);
    await world.run(async () => {
      expect(await directory.names()).toEqual([]);
      const record = await directory.create('disk', SMALL, quiet);
      expect(await directory.names()).toEqual(['disk']);
      expect(await directory.record('disk')).toEqual(record);
      const opened = await directory.open('disk', 'write');
      await expect(directory.open('disk', 'read')).rejects.toMatchObject({ code: 'VOLUME_LOCKED' });
      await opened.close();
      await opened.close();
      await (await directory.open('disk', 'read')).close();
    });
  });

  test('is opened by one at a time though its lock file was removed', async () => {
    // Somebody tidied up under a running server. The next command made a new lock file, wrote to
    // the same log, and the volume never opened again.
    const { world, files, directory } = machine(1);
    const locked = {
      code: 'VOLUME_LOCKED',
      message: expect.stringContaining('/srv/varve/disk/log is open elsewhere'),
      next: expect.stringContaining('stop what has that path open'),
    };
    await world.run(async () => {
      await directory.create('disk', SMALL, quiet);
      const opened = await directory.open('disk', 'write');
      await files.remove('/srv/varve/disk/lock');
      for (const access of ['write', 'read', 'write'] as const) {
        await expect(directory.open('disk', access)).rejects.toMatchObject(locked);
      }
      await opened.close();
      await (await directory.open('disk', 'write')).close();
    });
  });

  test('never has a log or final storage open for two, whatever record names them', async () => {
    // `cp -a DIR DIR2` copies the absolute paths in volume.json: two servers wrote to one log, and
    // neither volume opened again, for ever.
    const { world, power, files, directory } = machine(1);
    files.addBlockDevice('/dev/a', mebibytes(90));
    const { openDevice } = files;
    const second = new VolumeDirectory('/srv/copy', {
      files,
      openDevice,
      world: power.life,
      loadVolumes,
    });
    const outside = [
      ['log', { ...SMALL, logPath: '/srv/log' }],
      ['final', { ...SMALL, finalPath: '/srv/final' }],
      ['raw', { ...SMALL, logPath: '/dev/a' }],
    ] as const;
    await world.run(async () => {
      await files.createDirectory('/srv');
      for (const [name, options] of outside) {
        const { log, final } = await directory.create(name, options, quiet);
        const own = await second.create(name, SMALL, quiet);
        const record = await files.readText(`/srv/varve/${name}/volume.json`);
        // What lies in its folder is copied, so it has that of its own.
        await files.writeAtomically(`/srv/copy/${name}/volume.json`, record ?? '');
        const path = [log, final].find((stored) => ![own.log, own.final].includes(stored)) ?? '';
        const locked = { code: 'VOLUME_LOCKED', message: expect.stringContaining(path) };
        const opened = await directory.open(name, 'write');
        await expect(second.open(name, 'write')).rejects.toMatchObject(locked);
        await expect(second.open(name, 'read')).rejects.toMatchObject(locked);
        await opened.close();
        await (await directory.open(name, 'write')).close();
      }
    });
  });

  test('leaves nothing behind when a creation fails, whatever fails', async () => {
    let failed = 0;
    for (const code of ['DISK_FULL', 'PERMISSION', 'DEVICE_IO'] as const) {
      for (let at = 0; at < 9; at++) {
        const { world, files, directory } = machine(at);
        await world.run(async () => {
          const { openDevice, ...around } = failingAt(files, at, code);
          const error = await new VolumeDirectory('/srv/varve', {
            files: around,
            openDevice,
            world,
            loadVolumes,
          })
            .create('disk', SMALL, quiet)
            .then(
              () => undefined,
              (reason: unknown) => reason,
            );
          failed += error === undefined ? 0 : 1;
          if (error === undefined) return;
          expect(error).toMatchObject({ code });
          expect(await directory.names()).toEqual([]);
          expect((await treeOf(files)).filter((path) => path !== '/srv')).toEqual([]);
        });
      }
    }
    // Two directories, the lock, the record, four devices, its name; the tenth is none of its.
    expect(failed).toBe(3 * 9);
  });

  test("leaves a user's own empty folder when a creation fails", async () => {
    // Who had made it, with its owner and mode, found it gone.
    const { world, files, directory } = machine(1);
    await world.run(async () => {
      await files.createDirectory('/srv/varve/disk');
      const stop = (): never => {
        throw new RangeError('enough');
      };
      for (let again = 0; again < 2; again++) {
        await expect(directory.create('disk', SMALL, stop)).rejects.toThrow('enough');
        expect(await treeOf(files)).toEqual(['/srv', '/srv/varve', '/srv/varve/disk']);
      }
      await directory.create('disk', SMALL, quiet);
    });
  });

  test('stops a creation whose progress throws, and clears it away', async () => {
    const { world, files, directory } = machine(1);
    await world.run(async () => {
      const stop = (): never => {
        throw new RangeError('enough');
      };
      await expect(directory.create('disk', SMALL, stop)).rejects.toThrow('enough');
      expect(await files.kind('/srv/varve')).toBe('none');
    });
  });

  test('has a whole volume or none after a power cut in its making, and makes one then', async () => {
    // The folder that was left stood in the way of a volume of that name, until it was removed.
    const calm = machine(0);
    await calm.world.run(() => calm.directory.create('disk', SMALL, quiet));
    const operations = calm.power.operations;
    const outcomes = new Set<string>();
    // Most of them are writes of the blank log, one as good as the other. The last one is on time
    // or not, by its seed.
    const points = Array.from({ length: operations }, (_, i) => i + 1).filter(
      (at) => at % 6 === 0 || at < 12 || at > operations - 12,
    );
    points.push(...Array.from({ length: 4 }, () => operations));
    for (const [seed, at] of points.entries()) {
      const { world, power, files, directory } = machine(seed);
      power.plan({ loss: 'cut', afterOperations: at });
      await power.runLife(() => directory.create('disk', SMALL, quiet));
      if (power.alive) power.cut();
      power.restore();
      const again = files.reopen();
      const after = directoryOn(power, again);
      outcomes.add(
        await world.run(async () => {
          const isWhole = (await after.names()).includes('disk');
          if (isWhole) {
            await expect(after.create('disk', SMALL, quiet)).rejects.toMatchObject({
              code: 'VOLUME_EXISTS',
            });
          } else await after.create('disk', SMALL, quiet);
          await (await after.open('disk', 'write')).close();
          const names = ['final.raw', 'final.sums', 'lock', 'log', 'undo', 'volume.json'];
          expect(await again.list('/srv/varve/disk')).toEqual(names);
          return isWhole ? 'whole' : 'none';
        }),
      );
    }
    expect(outcomes).toEqual(new Set(['none', 'whole']));
  });

  test('takes no folder for an unfinished creation that may be more', async () => {
    const { world, files, directory } = machine(1);
    await world.run(async () => {
      await directory.create('disk', SMALL, quiet);
      const folder = '/srv/varve/disk';
      const exists = { code: 'VOLUME_EXISTS' };
      // Somebody has moved volume.json away: there may be a volume around what is left.
      await files.rename(`${folder}/volume.json`, 'volume.json.bak');
      await expect(directory.create('disk', SMALL, quiet)).rejects.toMatchObject(exists);
      await files.remove(`${folder}/volume.json.bak`);
      await expect(directory.create('disk', SMALL, quiet)).rejects.toMatchObject(exists);
      await files.writeAtomically(`${folder}/volume.json.unfinished`, '');
      await files.writeAtomically(`${folder}/notes`, 'mine');
      await expect(directory.create('disk', SMALL, quiet)).rejects.toMatchObject(exists);
      expect(await files.list(folder)).toContain('log');
    });
  });

  test('leaves an unfinished creation to the process that is at it', async () => {
    const { world, files, directory } = machine(1);
    await world.run(async () => {
      const making = directory.create('disk', SMALL, quiet);
      while ((await files.kind('/srv/varve/disk/log')) === 'none');
      const locked = { code: 'VOLUME_LOCKED' };
      await expect(directory.create('disk', SMALL, quiet)).rejects.toMatchObject(locked);
      await making;
      await (await directory.open('disk', 'write')).close();
    });
  });

  test('changes the mode of a volume that nobody has open, and of no other', async () => {
    // A server that opened the volume meanwhile had one mode, and its record another.
    const { world, directory } = machine(1);
    const through = () => ({ writeMode: 'through' }) as const;
    const written = () => ({ writeMode: 'written' }) as const;
    await world.run(async () => {
      await directory.create('disk', SMALL, quiet);
      const opened = await directory.open('disk', 'write');
      await expect(directory.change('disk', 'free', through)).rejects.toMatchObject({
        code: 'VOLUME_LOCKED',
      });
      await directory.change('disk', 'locked', written);
      await opened.close();
      expect((await directory.change('disk', 'free', through)).writeMode).toBe('through');
      expect((await directory.record('disk')).writeMode).toBe('through');
    });
  });

  test('never makes a volume because one is missing', async () => {
    const { world, files, directory } = machine(1);
    await world.run(async () => {
      await files.createDirectory('/srv/varve/disk');
      for (const name of ['disk', 'nope', '../x']) {
        await expect(directory.open(name, 'write')).rejects.toMatchObject({
          code: 'VOLUME_UNKNOWN',
        });
      }
      expect(await treeOf(files, '/srv/varve')).toEqual(['/srv/varve/disk']);
    });
  });

  test('refuses a log that is used already, as a file or as a device', async () => {
    const { world, files, directory } = machine(1);
    files.addBlockDevice('/dev/a', mebibytes(80));
    files.addBlockDevice('/dev/small', mebibytes(1));
    await world.run(async () => {
      await directory.create('one', { size: mebibytes(1), logPath: '/dev/a' }, quiet);
      expect((await directory.record('one')).logSize).toBe(mebibytes(80));
      const before = await treeOf(files);
      for (const logPath of ['/dev/a', '/srv/varve/one/final.raw', '/srv/varve/one/volume.json']) {
        await expect(directory.create('two', { ...SMALL, logPath }, quiet)).rejects.toMatchObject({
          code: 'LOG_IN_USE',
        });
      }
      await expect(
        directory.create('two', { ...SMALL, logPath: '/dev/small' }, quiet),
      ).rejects.toMatchObject({ code: 'SIZE_BAD' });
      expect(await treeOf(files)).toEqual(before);
      await (await directory.open('one', 'read')).close();
    });
  });

  test('takes a raw device that is all zeros, and no more of it than it needs', async () => {
    const { world, files, directory } = machine(1);
    const disk = files.addBlockDevice('/dev/b', mebibytes(40));
    const options = { ...SMALL, size: mebibytes(16), finalPath: '/dev/b' };
    const put = (at: number, value: number): Promise<void> =>
      disk.write(byteOffset(at), [new Uint8Array(512).fill(value)]);
    await world.run(async () => {
      for (const at of [0, mebibytes(9) + 512, mebibytes(40) - 512]) {
        await put(at, 7);
        await expect(directory.create('disk', options, quiet)).rejects.toMatchObject({
          code: 'LOG_IN_USE',
          message: expect.stringContaining(`/dev/b holds data at byte ${at}`),
          next: expect.stringContaining('blkdiscard'),
        });
        await put(at, 0);
      }
      await put(mebibytes(30), 7);
      const told: number[] = [];
      await directory.create('disk', options, (done, total) => told.push(done / total));
      expect(told.slice(0, 4)).toEqual([0, 0.25, 0.5, 0.75]);
      const beyond = new Uint8Array(512);
      await disk.read(byteOffset(mebibytes(30)), beyond);
      expect(beyond[511]).toBe(7);
      expect(disk.counters.bytesPunched).toBe(0);
      const opened = await directory.open('disk', 'write');
      const found = new Uint8Array(8192).fill(1);
      await opened.volume.live().read(byteOffset(mebibytes(9)), found);
      expect(found.every((byte) => byte === 0)).toBe(true);
      await opened.close();
    });
  });

  test('never takes a raw device that another volume has, however blank it is', async () => {
    // Only the first and the last MiB were looked at, and final storage has no header: the same
    // command for another volume erased the first one's. What was not taken home yet is in the
    // log, so its final storage may be zeros all over.
    const { world, files, directory } = machine(1);
    files.addBlockDevice('/dev/b', mebibytes(8));
    files.linkBlockDevice('/dev/b', '/dev/by-id/b');
    const blankDevice = files.addBlockDevice('/dev/c', mebibytes(8));
    const on = (finalPath: string): CreateOptions => ({ ...SMALL, finalPath });
    const used = (path: string, name: string): object => ({
      code: 'LOG_IN_USE',
      message: expect.stringContaining(`${path} is the final storage of volume "${name}"`),
      next: expect.stringContaining('give another device'),
    });
    await world.run(async () => {
      await directory.create('one', on('/dev/b'), quiet);
      const before = await treeOf(files);
      for (const path of ['/dev/b', '/dev/by-id/b']) {
        const second = directory.create('two', on(path), quiet);
        await expect(second).rejects.toMatchObject(used(path, 'one'));
      }
      expect(await treeOf(files)).toEqual(before);
      // Also while the other one is being made.
      const making = directory.create('three', on('/dev/c'), quiet);
      while ((await files.kind('/srv/varve/three/volume.json.unfinished')) === 'none');
      const second = directory.create('four', on('/dev/c'), quiet);
      await expect(second).rejects.toMatchObject(used('/dev/c', 'three'));
      await making;
      expect(blankDevice.counters.bytesPunched).toBe(0);
      await (await directory.open('one', 'read')).close();
    });
  });

  test('serves what can be opened, and tells why the others are not', async () => {
    const { world, files, directory } = machine(1);
    await world.run(async () => {
      for (const name of ['a', 'b', 'c']) await directory.create(name, SMALL, quiet);
      await files.remove('/srv/varve/b/log');
      await files.writeAtomically('/srv/varve/c/volume.json', 'not one');
      const served = await ServedVolumes.open(directory);
      expect([served.names(), served.failed()]).toEqual([['a'], ['b', 'c']]);
      expect(served.failure('b')).toMatchObject({
        code: 'VOLUME_FOREIGN',
        message: expect.stringContaining('volume "b" is not served: /srv/varve/b/log is missing'),
      });
      const used = served.use('b', 'read', async () => undefined);
      await expect(used).rejects.toBe(served.failure('b'));
      const exports = new VolumeExports(served);
      expect((await exports.list()).map(({ name }) => name)).toEqual(['a']);
      await expect(exports.open('b@-1m')).rejects.toBe(served.failure('b'));
      // It is not the only one, though it is the only one that is open.
      await expect(exports.open('')).rejects.toMatchObject({ code: 'VOLUME_AMBIGUOUS' });
      const listed = await new LocalOperator(directory, served, { isServed: true }).list();
      expect(listed.map(({ name, failure }) => [name, failure === undefined])).toEqual([
        ['a', true],
        ['b', false],
        ['c', false],
      ]);
      await served.close();
    });
  });

  test('serves nothing where nothing can be opened', async () => {
    const { world, files, directory } = machine(1);
    await world.run(async () => {
      await directory.create('a', SMALL, quiet);
      await files.remove('/srv/varve/a/log');
      await expect(ServedVolumes.open(directory)).rejects.toMatchObject({ code: 'VOLUME_FOREIGN' });
    });
  });

  test('serves all volumes or none while another process has one', async () => {
    const { world, directory } = machine(1);
    await world.run(async () => {
      await directory.create('a', SMALL, quiet);
      await directory.create('b', SMALL, quiet);
      const held = await directory.open('b', 'read');
      await expect(ServedVolumes.open(directory)).rejects.toMatchObject({ code: 'VOLUME_LOCKED' });
      await held.close();
      const served = await ServedVolumes.open(directory);
      expect(served.names()).toEqual(['a', 'b']);
      await served.close();
      await (await directory.open('a', 'write')).close();
    });
  });
});
