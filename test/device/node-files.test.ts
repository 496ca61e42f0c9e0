/** A volume directory's small files on a real file system, and locks between processes. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { NodeFiles } from '../../src/app/node-files.ts';
import { realWorld } from '../../src/app/real-world.ts';
import { mebibytes } from '../../src/base/units.ts';
import { FileDevice } from '../../src/device/file-device.ts';
import { koffiPlatform, programPlatform, type Platform } from '../../src/device/platform.ts';
import { temporaryDirectory } from '../support/files.ts';

describe('small files', () => {
  const files = new NodeFiles();

  test('are replaced whole, with nothing left beside them', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'volume.json');
    expect(await files.readText(path)).toBeUndefined();
    await files.writeAtomically(path, 'one');
    await files.writeAtomically(path, 'zwei ü');
    expect(await files.readText(path)).toBe('zwei ü');
    expect(await files.list(directory.path)).toEqual(['volume.json']);
  });

  test('keep the old text when the new one can not be written', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'taken');
    await files.createDirectory(join(path, 'below'));
    await expect(files.writeAtomically(path, 'x')).rejects.toMatchObject({ code: 'FILE_BAD' });
    expect(readdirSync(directory.path)).toEqual(['taken']);
    const nowhere = files.writeAtomically(join(directory.path, 'no', 'a'), 'x');
    await expect(nowhere).rejects.toMatchObject({ code: 'FILE_BAD' });
  });

  test('are made, looked at, listed and removed', async () => {
    using directory = temporaryDirectory();
    const deep = join(directory.path, 'a', 'b', 'c');
    await files.createDirectory(deep);
    await files.createDirectory(deep);
    expect(await files.kind(deep)).toBe('directory');
    expect(await files.kind(join(deep, 'd'))).toBe('none');
    expect(await files.kind('/dev/null')).toBe('other');
    writeFileSync(join(deep, 'd'), '');
    expect(await files.kind(join(deep, 'd'))).toBe('file');
    await expect(files.remove(deep)).rejects.toMatchObject({ code: 'DEVICE_IO' });
    await files.remove(join(deep, 'd'));
    await files.remove(join(deep, 'd'));
    await files.remove(deep);
    expect(await files.list(join(directory.path, 'a', 'b'))).toEqual([]);
    expect(await files.list(deep)).toEqual([]);
  });

  test('have a second name, and no name that is taken', async () => {
    using directory = temporaryDirectory();
    const one = join(directory.path, 'one');
    const two = join(directory.path, 'two');
    const three = join(directory.path, 'three');
    writeFileSync(one, 'same');
    writeFileSync(three, 'same');
    symlinkSync(join(directory.path, 'nowhere'), join(directory.path, 'link'));
    expect(await files.isSame(one, two)).toBe(false);
    expect(await files.link(one, two)).toBe(true);
    expect(await files.isSame(one, two)).toBe(true);
    expect(await files.isSame(one, three)).toBe(false);
    expect(await files.isSame(three, three)).toBe(false);
    for (const name of ['two', 'three', 'link']) {
      const taken = files.link(one, join(directory.path, name));
      await expect(taken).rejects.toMatchObject({ code: 'FILE_EXISTS' });
    }
    const nowhere = files.link(one, join(directory.path, 'no', 'a'));
    await expect(nowhere).rejects.toMatchObject({ code: 'FILE_BAD' });
    await files.remove(one);
    expect(readFileSync(two, 'utf8')).toBe('same');
    expect(await files.isSame(one, two)).toBe(false);
  });

  test("are their owner's alone, whatever the umask gives others", async () => {
    using directory = temporaryDirectory();
    const umask = process.umask(0);
    try {
      const folder = join(directory.path, 'varve-data', 'disk');
      await files.createDirectory(folder);
      await files.writeAtomically(join(folder, 'volume.json'), '{}');
      await (await files.lock(join(folder, 'lock'))).release();
      const log = await FileDevice.open(join(folder, 'log'), { create: true, size: mebibytes(1) });
      await log.close();
    } finally {
      process.umask(umask);
    }
    const modes = readdirSync(directory.path, { recursive: true, encoding: 'utf8' }).map((name) => {
      const { mode } = statSync(join(directory.path, name));
      return `${name} ${(mode & 0o777).toString(8)}`;
    });
    expect(modes.toSorted()).toEqual([
      'varve-data 700',
      'varve-data/disk 700',
      'varve-data/disk/lock 600',
      'varve-data/disk/log 600',
      'varve-data/disk/volume.json 600',
    ]);
  });

  test('say when the file system refuses access', async () => {
    // sysfs lets nobody make files, not even root.
    const refused = { code: 'PERMISSION', detail: expect.stringContaining('/sys/varve') };
    await expect(files.writeAtomically('/sys/varve', 'x')).rejects.toMatchObject(refused);
    await expect(files.lock('/sys/varve')).rejects.toMatchObject(refused);
    await expect(files.createDirectory('/sys/varve')).rejects.toMatchObject(refused);
  });
});

describe('locks', () => {
  const platforms: [string, () => Promise<Platform | undefined>][] = [
    ['koffi', koffiPlatform],
    ['programs', async () => programPlatform()],
  ];
  for (const [means, load] of platforms) {
    test(`are held by one, and name the holder (${means})`, async (context) => {
      const found = await load();
      if (found === undefined) return context.skip('koffi has no binary here');
      using directory = temporaryDirectory();
      const path = join(directory.path, 'lock');
      const files = new NodeFiles(found);
      const lock = await files.lock(path);
      await expect(files.lock(path)).rejects.toMatchObject({
        code: 'VOLUME_LOCKED',
        detail: `${path} is held by process ${process.pid}`,
      });
      await lock.release();
      await lock.release();
      expect(readFileSync(path, 'utf8')).toBe('');
      await (await files.lock(path)).release();
      expect(existsSync(path)).toBe(true);
      return undefined;
    });
  }

  test('of a killed process are free', async (context) => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'lock');
    const script = `flock -x -n 9 || exit 9; echo locked; exec sleep 60`;
    const holder = spawn('sh', ['-c', `exec 9>>"$0"; ${script}`, path], { stdio: 'pipe' });
    const started = await Promise.race([once(holder.stdout, 'data'), once(holder, 'exit')]);
    if (String(started[0]).trim() !== 'locked') return context.skip('flock(1) is not installed');
    const files = new NodeFiles();
    await expect(files.lock(path)).rejects.toMatchObject({ code: 'VOLUME_LOCKED' });
    holder.kill('SIGKILL');
    await once(holder, 'exit');
    await (await files.lock(path)).release();
    return undefined;
  });

  test('are taken on the file that has the name, not on one that was removed', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'lock');
    const files = new NodeFiles();
    const removed = await files.lock(path);
    rmSync(path);
    const lock = await files.lock(path);
    await expect(files.lock(path)).rejects.toMatchObject({ code: 'VOLUME_LOCKED' });
    await removed.release();
    await expect(files.lock(path)).rejects.toMatchObject({ code: 'VOLUME_LOCKED' });
    await lock.release();
  });
});

describe('the real world', () => {
  test('has a clock that goes on, and microseconds since 1970', async () => {
    const before = realWorld.clock.monotonicUs();
    await new Promise<void>((resolve) => {
      // Kept alive by this timer, as those of the world keep nothing alive.
      const keeper = setTimeout(() => undefined, 10_000);
      realWorld.timers.after(20, () => {
        clearTimeout(keeper);
        resolve();
      });
    });
    expect(realWorld.clock.monotonicUs() - before).toBeGreaterThanOrEqual(19_000);
    expect(Math.abs(realWorld.clock.wallUs() / 1000 - Date.now())).toBeLessThan(1000);
  });

  test('cancels a timer, however long, and draws bytes', async () => {
    let fired = false;
    const cancels = [0, 2 ** 40].map((delayMs) =>
      realWorld.timers.after(delayMs, () => {
        fired = true;
      }),
    );
    cancels[0]?.();
    await new Promise((resolve) => {
      setTimeout(resolve, 20);
    });
    expect(fired).toBe(false);
    cancels[1]?.();
    expect(realWorld.random.bytes(16)).toHaveLength(16);
  });
});
