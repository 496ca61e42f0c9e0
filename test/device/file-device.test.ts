/** Files and block devices: opening, errors, space, and what is in flight at the close. */
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { VarveError } from '../../src/base/errors.ts';
import { byteCount, byteOffset, mebibytes } from '../../src/base/units.ts';
import { FileDevice } from '../../src/device/file-device.ts';
import type { OpenDeviceOptions } from '../../src/device/lower-device.ts';
import { koffiPlatform, programPlatform, type Platform } from '../../src/device/platform.ts';
import { fromSystemError } from '../../src/device/system-error.ts';
import { allocateZeroed } from '../../src/device/zeros.ts';
import { temporaryDirectory } from '../support/files.ts';
import { loopDevice, loopDeviceObstacle } from './loop-device.ts';

const NEW: OpenDeviceOptions = { create: true, size: mebibytes(4) };

describe('a file device', () => {
  test('is made sparse, with its size, and never over a file that is there', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'disk');
    await using device = await FileDevice.open(path, NEW);
    expect(statSync(path).size).toBe(mebibytes(4));
    expect(await device.allocated()).toBe(0);
    await device.write(byteOffset(0), [Uint8Array.of(1)]);
    await expect(FileDevice.open(path, NEW)).rejects.toMatchObject({ code: 'FILE_EXISTS' });
    expect(readFileSync(path)[0]).toBe(1);
  });

  test('says what it can not open, naming the path', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'disk');
    const refused = (options: OpenDeviceOptions, code: string, where = path): Promise<void> =>
      expect(FileDevice.open(where, options)).rejects.toMatchObject({
        code,
        detail: expect.stringContaining(where),
      });
    await refused({}, 'FILE_BAD');
    await refused(NEW, 'FILE_BAD', join(directory.path, 'none', 'disk'));
    mkdirSync(join(directory.path, 'folder'));
    await refused({}, 'FILE_BAD', join(directory.path, 'folder'));
    await refused({ readOnly: true }, 'FILE_BAD', join(directory.path, 'folder'));
    await refused({ readOnly: true }, 'FILE_BAD', '/dev/null');
    execFileSync('mkfifo', [join(directory.path, 'pipe')]);
    await refused({ readOnly: true }, 'FILE_BAD', join(directory.path, 'pipe'));
    writeFileSync(path, Buffer.alloc(1000));
    await refused({ size: byteCount(1001) }, 'VOLUME_FOREIGN');
    await refused({ size: byteCount(999) }, 'VOLUME_FOREIGN');
    expect(existsSync(join(directory.path, 'none'))).toBe(false);
  });

  test('leaves no file behind that could not be made', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'disk');
    const made = FileDevice.open(path, { create: true, size: byteCount(2 ** 53 - 1) });
    await expect(made).rejects.toMatchObject({ code: 'SIZE_BAD' });
    expect(existsSync(path)).toBe(false);
  });

  // Where the file system has no locks, the part of an export stayed without its note, and the next
  // export was refused because of it.
  test('leaves no file behind that can not be locked, unless another has locked it', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'disk');
    const means = programPlatform();
    means.lock = () => Promise.reject(new VarveError('DEVICE_IO', 'locking: ENOLCK'));
    const options = { ...NEW, locked: true };
    await expect(FileDevice.openWith(means, path, options)).rejects.toThrow(/ENOLCK/);
    expect(existsSync(path)).toBe(false);
    means.lock = () => Promise.resolve(false);
    const made = FileDevice.openWith(means, path, options);
    await expect(made).rejects.toMatchObject({ code: 'FILE_IN_USE' });
    expect(existsSync(path)).toBe(true);
  });

  test('opened to be read is never written', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'disk');
    writeFileSync(path, Buffer.alloc(1000, 7));
    await using device = await FileDevice.open(path, { readOnly: true });
    const target = new Uint8Array(1000);
    await device.read(byteOffset(0), target);
    expect(target[999]).toBe(7);
    await expect(device.write(byteOffset(0), [target])).rejects.toThrow(/to be read/);
    await expect(device.punch(byteOffset(0), byteCount(1))).rejects.toThrow(/to be read/);
    // What others wrote before, and the page cache has.
    await device.sync('recovery');
  });

  test('fails a read beyond the end of a file that was cut short', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'disk');
    await using device = await FileDevice.open(path, NEW);
    truncateSync(path, 5000);
    const read = device.read(byteOffset(4096), new Uint8Array(4096));
    await expect(read).rejects.toMatchObject({ code: 'DEVICE_IO', message: /ends at 5000/ });
  });

  test('finishes what is in flight before it closes', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'disk');
    const device = await FileDevice.open(path, NEW);
    const bytes = Buffer.alloc(1024 ** 2, 3);
    const writes = [0, 1, 2, 3].map((at) => device.write(mebibyteAt(at), [bytes]));
    const synced = device.sync('close');
    await device.close();
    await Promise.all([...writes, synced]);
    expect(readFileSync(path).every((byte) => byte === 3)).toBe(true);
  });

  test('is written whole and really by allocateZeroed, with progress to the end', async () => {
    using directory = temporaryDirectory();
    const size = byteCount(mebibytes(9) + 5000);
    await using device = await FileDevice.open(join(directory.path, 'log'), { create: true, size });
    const progress: number[] = [];
    await allocateZeroed(device, (done) => progress.push(done));
    expect(progress).toEqual([mebibytes(4), mebibytes(8), size]);
    expect(await device.allocated()).toBeGreaterThanOrEqual(size);
    const stopped = allocateZeroed(device, () => {
      throw new Error('enough');
    });
    await expect(stopped).rejects.toThrow('enough');
  });
});

describe('a locked file', () => {
  const platforms: [string, () => Promise<Platform | undefined>][] = [
    ['koffi', koffiPlatform],
    ['programs', async () => programPlatform()],
  ];
  for (const [name, load] of platforms) {
    test(`is one writer's, or that of any number of readers, until closed (${name})`, async (context) => {
      const means = await load();
      if (means === undefined) return context.skip('koffi has no binary here');
      using directory = temporaryDirectory();
      const path = join(directory.path, 'disk');
      const open = (more: OpenDeviceOptions): Promise<FileDevice> =>
        FileDevice.openWith(means, path, { ...more, locked: true });
      const used = { code: 'FILE_IN_USE', detail: path };
      const writer = await open(NEW);
      await expect(open({})).rejects.toMatchObject(used);
      await expect(open({ readOnly: true })).rejects.toMatchObject(used);
      await (await FileDevice.openWith(means, path)).close();
      await writer.close();
      const readers = [await open({ readOnly: true }), await open({ readOnly: true })];
      await expect(open({})).rejects.toMatchObject(used);
      for (const reader of readers) await reader.close();
      await (await open({})).close();
      return undefined;
    });
  }
});

function mebibyteAt(at: number): ReturnType<typeof byteOffset> {
  return byteOffset(mebibytes(at));
}

/** Answers as told, and counts. */
function fakePlatform(answer: 'punched' | 'unsupported'): Platform & { punches: number } {
  return {
    means: 'programs',
    punchBytesMin: 1,
    punches: 0,
    async punchHole() {
      this.punches += 1;
      return answer;
    },
    lock: async () => true,
    returnFreedBuffers: () => false,
  };
}

describe('punching', () => {
  const platforms: [string, () => Promise<Platform | undefined>][] = [
    ['koffi', koffiPlatform],
    ['programs', async () => programPlatform()],
  ];
  for (const [means, load] of platforms) {
    test(`gives the space of a file back (${means})`, async (context) => {
      const found = await load();
      if (found === undefined) return context.skip('koffi has no binary here');
      using directory = temporaryDirectory();
      await using device = await FileDevice.openWith(found, join(directory.path, 'disk'), NEW);
      await device.write(byteOffset(0), [Buffer.alloc(device.size, 1)]);
      await device.sync('final');
      const before = await device.allocated();
      await device.punch(byteOffset(0), mebibytes(2));
      expect(before - (await device.allocated())).toBe(mebibytes(2));
      return undefined;
    });
  }

  test('is done by zeros where it is not supported', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'disk');
    const means = fakePlatform('unsupported');
    await using device = await FileDevice.openWith(means, path, NEW);
    await device.write(byteOffset(0), [Buffer.alloc(device.size, 1)]);
    await device.punch(byteOffset(1), byteCount(device.size - 2));
    const content = readFileSync(path);
    expect([content[0], content[device.size - 1]]).toEqual([1, 1]);
    expect(content.subarray(1, -1).every((byte) => byte === 0)).toBe(true);
    expect(means.punches).toBe(1);
  });
});

const obstacle = loopDeviceObstacle();
describe.skipIf(obstacle !== undefined)(`a block device ${obstacle ?? ''}`, () => {
  test('has the size of the device, and may be asked for less, not for more', async () => {
    using loop = loopDevice(mebibytes(4));
    await using whole = await FileDevice.open(loop.path);
    expect([whole.size, whole.isBlockDevice]).toEqual([mebibytes(4), true]);
    await whole.close();
    await using less = await FileDevice.open(loop.path, { size: mebibytes(3) });
    expect(less.size).toBe(mebibytes(3));
    await less.close();
    const more = FileDevice.open(loop.path, { size: mebibytes(5) });
    await expect(more).rejects.toMatchObject({ code: 'VOLUME_FOREIGN' });
  });

  test('is taken as it is by `create`', async () => {
    using loop = loopDevice(mebibytes(4));
    writeFileSync(loop.path, Buffer.alloc(4096, 5), { flag: 'r+' });
    await using device = await FileDevice.open(loop.path, NEW);
    const target = new Uint8Array(4096);
    await device.read(byteOffset(0), target);
    expect(target[0]).toBe(5);
  });

  test('is opened by one only', async () => {
    using loop = loopDevice(mebibytes(4));
    await using device = await FileDevice.open(loop.path);
    const second = FileDevice.open(loop.path);
    await expect(second).rejects.toMatchObject({ code: 'LOG_IN_USE' });
    const shared = await FileDevice.open(loop.path, {
      exclusiveBlockDevice: false,
      readOnly: true,
    });
    await shared.close();
    await device.close();
    await (await FileDevice.open(loop.path)).close();
  });

  test('reaches the medium by a sync', async () => {
    using loop = loopDevice(mebibytes(4));
    await using device = await FileDevice.open(loop.path);
    await device.write(byteOffset(8192), [Buffer.alloc(4096, 6)]);
    await device.sync('commit');
    expect(readFileSync(loop.backingFile)[8192]).toBe(6);
    await device.punch(byteOffset(0), mebibytes(4));
    await device.sync('commit');
    expect(readFileSync(loop.backingFile)[8192]).toBe(0);
  });

  test('reaches the medium by a sync of who only reads', async () => {
    using loop = loopDevice(mebibytes(4));
    await using writer = await FileDevice.open(loop.path, { exclusiveBlockDevice: false });
    const options = { readOnly: true, exclusiveBlockDevice: false };
    await using reader = await FileDevice.open(loop.path, options);
    await writer.write(byteOffset(8192), [Buffer.alloc(4096, 6)]);
    await reader.sync('recovery');
    expect(readFileSync(loop.backingFile)[8192]).toBe(6);
  });

  test('that says punched and is not is overwritten, and never asked again', async () => {
    using loop = loopDevice(mebibytes(4));
    const liar = fakePlatform('punched');
    await using device = await FileDevice.openWith(liar, loop.path);
    await device.write(byteOffset(0), [Buffer.alloc(mebibytes(4), 1)]);
    await device.punch(byteOffset(100), mebibytes(1));
    await device.punch(byteOffset(mebibytes(2)), mebibytes(1));
    expect(liar.punches).toBe(1);
    const target = Buffer.alloc(mebibytes(4));
    await device.read(byteOffset(0), target);
    const expected = Buffer.alloc(mebibytes(4), 1);
    expected.fill(0, 100, mebibytes(1) + 100).fill(0, mebibytes(2), mebibytes(3));
    expect(target.equals(expected)).toBe(true);
  });
});
if (obstacle !== undefined) {
  test.skip(`block devices need losetup (package mount) and root: ${obstacle}`, () => undefined);
}

describe('errors of the system', () => {
  test('have the code that says what to do', () => {
    const codes = {
      ENOSPC: 'DISK_FULL',
      EDQUOT: 'DISK_FULL',
      EROFS: 'PERMISSION',
      EIO: 'DEVICE_IO',
    };
    for (const [name, code] of Object.entries(codes)) {
      const error = fromSystemError(Object.assign(new Error('x'), { code: name }), 'writing a');
      expect(error).toMatchObject({ code, detail: `writing a: ${name}` });
    }
  });

  test('come from a device that is full', async (context) => {
    if (!existsSync('/dev/full')) return context.skip('there is no /dev/full');
    const fs = await import('node:fs/promises');
    const full = await fs.open('/dev/full', 'w');
    const failure: unknown = await full.write('x').catch((error: unknown) => error);
    await full.close();
    expect(fromSystemError(failure, 'writing')).toMatchObject({ code: 'DISK_FULL' });
    return undefined;
  });
});
