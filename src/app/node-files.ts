/**
 * A volume directory's small files, on a real file system.
 *
 * Invariant: a change settles only when it is durable: the content is synced before the name, and
 * the name's directory after it.
 */
import fs from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { isVarveError, VarveError } from '../base/errors.ts';
import { NEW_FILE_MODE, syncDirectory } from '../device/file-device.ts';
import type { FileLock, MetaFiles, PathKind } from '../device/meta-files.ts';
import { platform, type Platform } from '../device/platform.ts';
import { fromSystemError, systemCode } from '../device/system-error.ts';

/** As `NEW_FILE_MODE`: nobody else lists what volumes there are. */
const NEW_DIRECTORY_MODE = 0o700;

/** A lock file is opened again so often when it was replaced meanwhile. */
const LOCK_TRIES_MAX = 10;

/** Of a file system where a file has one name only, or that refuses this one another. */
const ONE_NAME_CODES: readonly string[] = ['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'];

/** Runs `work`; its errors name what was tried. `missing` answers for what is not there. */
async function attempt<T>(doing: string, work: () => Promise<T>, missing?: () => T): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (missing !== undefined && systemCode(error) === 'ENOENT') return missing();
    throw fromSystemError(error, doing);
  }
}

async function writeNew(path: string, text: string): Promise<void> {
  const file = await fs.open(path, 'w', NEW_FILE_MODE);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** From the top: a kill leaves the name of one in doubt at most, with nothing in it. */
async function makeDirectory(path: string): Promise<void> {
  const found = await fs.stat(path).catch((error: unknown) => {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  });
  if (found?.isDirectory() === true) return syncNameOf(path, found.dev);
  const above = dirname(path);
  await makeDirectory(above);
  // It may have come to be meanwhile: that is no error of a recursive one.
  await fs.mkdir(path, { recursive: true, mode: NEW_DIRECTORY_MODE });
  await syncDirectory(above);
}

/** @param device - of the directory */
async function syncNameOf(path: string, device: number): Promise<void> {
  const above = dirname(path);
  // A place where something is mounted was not made by us, and what is above may be unable to sync.
  if ((await fs.stat(above)).dev !== device) return;
  try {
    await syncDirectory(above);
  } catch (error) {
    // Who may not read what is above was given the directory by somebody else.
    if (systemCode(error) !== 'EACCES') throw error;
  }
}

class NodeFileLock implements FileLock {
  #file: fs.FileHandle | undefined;

  constructor(file: fs.FileHandle) {
    this.#file = file;
  }

  async release(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    if (file === undefined) return;
    await attempt('releasing a lock', async () => {
      // The number in it would mislead; the file stays, as removing it would race with the next.
      await file.truncate(0);
      await file.close();
    });
  }
}

export class NodeFiles implements MetaFiles {
  readonly #platform: Platform | undefined;

  /** @param means - the best platform there is, if not given */
  constructor(means?: Platform) {
    this.#platform = means;
  }

  async kind(path: string): Promise<PathKind> {
    return attempt<PathKind>(
      `looking at ${path}`,
      async () => {
        const stats = await fs.stat(path);
        if (stats.isFile()) return 'file';
        if (stats.isDirectory()) return 'directory';
        return stats.isBlockDevice() ? 'block-device' : 'other';
      },
      () => 'none',
    );
  }

  async readText(path: string): Promise<string | undefined> {
    return attempt<string | undefined>(
      `reading ${path}`,
      () => fs.readFile(path, 'utf8'),
      () => undefined,
    );
  }

  async writeAtomically(path: string, text: string): Promise<void> {
    const directory = dirname(path);
    const temporary = join(directory, `.${basename(path)}.new`);
    await attempt(`writing ${path}`, async () => {
      try {
        await writeNew(temporary, text);
        await fs.rename(temporary, path);
      } catch (error) {
        await fs.rm(temporary, { force: true });
        throw error;
      }
      await syncDirectory(directory);
    });
  }

  async rename(path: string, name: string): Promise<void> {
    await attempt(`renaming ${path} to ${name}`, async () => {
      await fs.rename(path, join(dirname(path), name));
      await syncDirectory(dirname(path));
    });
  }

  async link(path: string, second: string): Promise<boolean> {
    return attempt(`naming ${path} ${second}`, async () => {
      try {
        await fs.link(path, second);
      } catch (error) {
        if (ONE_NAME_CODES.includes(systemCode(error) ?? '')) return false;
        throw error;
      }
      try {
        await syncDirectory(dirname(second));
      } catch (error) {
        await fs.unlink(second);
        throw error;
      }
      return true;
    });
  }

  async isSame(path: string, other: string): Promise<boolean> {
    return attempt(
      `looking at ${path} and ${other}`,
      async () => {
        const [a, b] = await Promise.all([
          fs.lstat(path, { bigint: true }),
          fs.lstat(other, { bigint: true }),
        ]);
        // Of a file system that makes up numbers of files, two may have one; of one name each.
        return a.isFile() && a.dev === b.dev && a.ino === b.ino && a.nlink > 1n && b.nlink > 1n;
      },
      () => false,
    );
  }

  async isSameDevice(path: string, other: string): Promise<boolean> {
    return attempt(
      `looking at ${path} and ${other}`,
      async () => {
        const [a, b] = await Promise.all([fs.stat(path), fs.stat(other)]);
        return a.isBlockDevice() && b.isBlockDevice() && a.rdev === b.rdev;
      },
      () => false,
    );
  }

  async list(path: string): Promise<readonly string[]> {
    return attempt<readonly string[]>(
      `listing ${path}`,
      async () => (await fs.readdir(path)).sort(),
      () => [],
    );
  }

  async syncNames(directory: string): Promise<void> {
    await attempt(`syncing ${directory}`, async () => {
      try {
        await syncDirectory(directory);
      } catch (error) {
        // A file system that is only read, as of an image, has nothing to sync.
        if (systemCode(error) !== 'EINVAL') throw error;
      }
    });
  }

  async createDirectory(path: string): Promise<void> {
    await attempt(`making ${path}`, () => makeDirectory(resolve(path)));
  }

  async remove(path: string): Promise<void> {
    await attempt(
      `removing ${path}`,
      async () => {
        const isDirectory = (await fs.lstat(path)).isDirectory();
        await (isDirectory ? fs.rmdir(path) : fs.unlink(path));
        await syncDirectory(dirname(path));
      },
      () => undefined,
    );
  }

  async lock(path: string): Promise<FileLock> {
    return attempt(`locking ${path}`, async () => {
      for (let tries = 0; tries < LOCK_TRIES_MAX; tries++) {
        const file = await this.#tryLock(path);
        if (file !== undefined) return new NodeFileLock(file);
      }
      throw new VarveError('VOLUME_LOCKED', `${path} is being replaced all the time`);
    });
  }

  /** @returns undefined when another file has taken the name while this one was locked */
  async #tryLock(path: string): Promise<fs.FileHandle | undefined> {
    const { O_RDWR, O_CREAT } = fs.constants;
    const file = await fs.open(path, O_RDWR | O_CREAT, NEW_FILE_MODE);
    let isHeld = false;
    try {
      if (!(await (this.#platform ?? (await platform())).lock(file.fd, 'exclusive'))) {
        throw new VarveError('VOLUME_LOCKED', `${path} ${await holder(file)}`);
      }
      const [locked, named] = await Promise.all([file.stat(), fs.stat(path).catch(() => null)]);
      if (locked.ino !== named?.ino || locked.dev !== named.dev) return undefined;
      await noteHolder(file);
      isHeld = true;
      return file;
    } finally {
      if (!isHeld) await file.close();
    }
  }
}

/** For messages only: the lock is held with or without it, on a full file system too. */
async function noteHolder(file: fs.FileHandle): Promise<void> {
  try {
    await file.truncate(0);
    await file.write(`${process.pid}\n`, 0);
  } catch (error) {
    if (!isVarveError(fromSystemError(error, 'noting the holder'), 'DISK_FULL')) throw error;
  }
}

async function holder(file: fs.FileHandle): Promise<string> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(32), 0, 32, 0);
  const text = buffer.toString('utf8', 0, bytesRead).trim();
  return /^\d+$/.test(text) ? `is held by process ${text}` : 'is held by another process';
}
