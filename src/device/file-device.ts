/**
 * A regular file or a raw block device as a lower device.
 *
 * Invariants:
 *   - A short read or write is gone on with, or is an error: never a part taken for the whole.
 *   - The descriptor is closed only when nothing is in flight: the system gives its number to
 *     the next file that is opened, which would then be written in its place.
 *   - A punched range reads as zeros, whether or not the platform can punch.
 */
import fs from 'node:fs';
import { dirname } from 'node:path';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { assert } from '../base/assert.ts';
import { isVarveError, VarveError } from '../base/errors.ts';
import { byteCount, byteOffset, type ByteCount, type ByteOffset } from '../base/units.ts';
import type { LowerDevice, OpenDeviceOptions, SyncPoint } from './lower-device.ts';
import { platform, type LockKind, type Platform } from './platform.ts';
import { fromSystemError, systemCode } from './system-error.ts';
import { isZero, writeZeros } from './zeros.ts';

/** The system takes no more buffers in one call. Source: IOV_MAX of linux/uio.h. */
const BUFFERS_MAX = 1024;

/** Punches on block devices go by such blocks: no device has larger logical ones. */
const PUNCH_BLOCK_BYTES = 4096;

/** What a disk holds is its owner's, as the sockets are: an umask may take more away, and gives none. */
export const NEW_FILE_MODE = 0o600;

function openFile(path: string, flags: number): Promise<number> {
  return new Promise((resolve, reject) => {
    fs.open(path, flags, NEW_FILE_MODE, (error, fd) => {
      if (error) reject(error);
      else resolve(fd);
    });
  });
}

const closeFile = promisify(fs.close);
const statFile = promisify<number, fs.Stats>(fs.fstat);
const resizeFile = promisify<number, number>(fs.ftruncate);
const syncFile = promisify(fs.fsync);
const syncFileData = promisify(fs.fdatasync);

/** Makes names in a directory durable: a new file's, or a renamed one's. */
export async function syncDirectory(path: string): Promise<void> {
  const fd = await openFile(path, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  try {
    await syncFile(fd);
  } finally {
    await closeFile(fd);
  }
}

/** In bytes: what sysfs says of the device, else blockdev(8). */
async function blockDeviceSize(path: string, stats: fs.Stats): Promise<number> {
  // Source: makedev(3) of glibc, turned around.
  const device = BigInt(stats.rdev);
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn);
  const minor = (device & 0xffn) | ((device >> 12n) & ~0xffn);
  try {
    const text = await fs.promises.readFile(`/sys/dev/block/${major}:${minor}/size`, 'utf8');
    return Number(text.trim()) * 512;
  } catch {
    const { stdout } = await promisify(execFile)('blockdev', ['--getsize64', path]);
    return Number(stdout.trim());
  }
}

function checkKind(path: string, stats: fs.Stats): void {
  if (stats.isFile() || stats.isBlockDevice()) return;
  throw new VarveError('FILE_BAD', `${path} is neither a file nor a block device`);
}

function checkSize(
  path: string,
  actual: number,
  stats: fs.Stats,
  { size: wanted, grows, sizeMin = byteCount(0) }: OpenDeviceOptions,
): void {
  if (!Number.isSafeInteger(actual)) throw new Error(`its size is ${actual}`);
  if (actual < sizeMin) {
    throw new VarveError(
      'PART_FOREIGN',
      `${path} holds ${actual} bytes, expected ${sizeMin} or more`,
    );
  }
  if (wanted === undefined || actual === wanted) return;
  if (stats.isBlockDevice() ? actual > wanted : grows === true && actual < wanted) return;
  throw new VarveError('VOLUME_FOREIGN', `${path} holds ${actual} bytes, expected ${wanted}`);
}

/** Undefined when there is nothing of that name. */
async function statPath(path: string): Promise<fs.Stats | undefined> {
  try {
    return await fs.promises.stat(path);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** A file that was not there: sparse, of that size, its name durable; or none at all. */
async function createFile(path: string, size: ByteCount): Promise<number> {
  const { O_RDWR, O_CREAT, O_EXCL } = fs.constants;
  const fd = await openFile(path, O_RDWR | O_CREAT | O_EXCL);
  try {
    await resizeFile(fd, size);
    await syncFile(fd);
    await syncDirectory(dirname(path));
    return fd;
  } catch (error) {
    await closeFile(fd);
    await fs.promises.unlink(path);
    if (systemCode(error) !== 'EFBIG') throw error;
    throw new VarveError('SIZE_BAD', `${path} can not have ${size} bytes`, { cause: error });
  }
}

async function openDescriptor(path: string, options: OpenDeviceOptions): Promise<number> {
  const found = await statPath(path);
  // Before it is opened: the opening of a pipe would wait for its other end.
  if (found !== undefined) checkKind(path, found);
  const isBlock = found?.isBlockDevice() === true;
  if (options.create === true && !isBlock) {
    assert(options.size !== undefined, 'a new file is given its size');
    return createFile(path, options.grows === true ? byteCount(0) : options.size);
  }
  const { O_RDWR, O_RDONLY, O_EXCL } = fs.constants;
  const access = options.readOnly === true ? O_RDONLY : O_RDWR;
  const isExclusive = isBlock && options.exclusiveBlockDevice !== false;
  return openFile(path, isExclusive ? access | O_EXCL : access);
}

async function lockFile(
  means: Platform,
  { path, fd, kind }: { readonly path: string; readonly fd: number; readonly kind: LockKind },
): Promise<void> {
  const isHeld = await means.lock(fd, kind);
  // Whoever held it until now may have given the file another name.
  const [locked, named] = await Promise.all([statFile(fd), statPath(path)]);
  if (isHeld && named !== undefined && locked.ino === named.ino && locked.dev === named.dev) return;
  throw new VarveError('FILE_IN_USE', path);
}

interface Opened {
  readonly path: string;
  readonly fd: number;
  readonly size: ByteCount;
  readonly readOnly: boolean;
  readonly isBlockDevice: boolean;
  readonly platform: Platform;
}

export class FileDevice implements LowerDevice {
  readonly name: string;
  readonly size: ByteCount;
  readonly isBlockDevice: boolean;
  readonly #fd: number;
  readonly #readOnly: boolean;
  readonly #platform: Platform;
  /** Of a block device: the first punch is looked at, since some devices only promise zeros. */
  #punching: 'untried' | 'works' | 'refused';
  #inFlight = 0;
  #idle: () => void = () => undefined;
  #closed: Promise<void> | undefined;

  private constructor(opened: Opened) {
    this.name = opened.path;
    this.size = opened.size;
    this.isBlockDevice = opened.isBlockDevice;
    this.#fd = opened.fd;
    this.#readOnly = opened.readOnly;
    this.#platform = opened.platform;
    this.#punching = opened.isBlockDevice ? 'untried' : 'works';
  }

  /**
   * @throws VarveError FILE_BAD (not there, a directory), FILE_EXISTS (with `create`), PERMISSION,
   *   VOLUME_FOREIGN (of another size), PART_FOREIGN (less than `sizeMin`), LOG_IN_USE (a block device
   *   in use), FILE_IN_USE (locked), DISK_FULL, DEVICE_IO
   */
  static async open(path: string, options: OpenDeviceOptions = {}): Promise<FileDevice> {
    return FileDevice.openWith(await platform(), path, options);
  }

  /** `open` by given means: a test goes without koffi. */
  static async openWith(
    means: Platform,
    path: string,
    options: OpenDeviceOptions = {},
  ): Promise<FileDevice> {
    let fd: number | undefined;
    let isMade = false;
    try {
      fd = await openDescriptor(path, options);
      const stats = await statFile(fd);
      checkKind(path, stats);
      isMade = options.create === true && !stats.isBlockDevice();
      const actual = stats.isBlockDevice() ? await blockDeviceSize(path, stats) : stats.size;
      checkSize(path, actual, stats, options);
      // A block device is claimed by its opening; udev locks it now and then, to look at it.
      if (options.locked === true && !stats.isBlockDevice()) {
        const kind = options.readOnly === true ? 'shared' : 'exclusive';
        await lockFile(means, { path, fd, kind });
      }
      return new FileDevice({
        path,
        fd,
        size: options.size ?? byteCount(actual),
        readOnly: options.readOnly === true,
        isBlockDevice: stats.isBlockDevice(),
        platform: means,
      });
    } catch (error) {
      if (fd !== undefined) await closeFile(fd);
      // Whoever has locked it already takes it for a file of before, and may have removed it.
      if (isMade && !isVarveError(error, 'FILE_IN_USE')) await fs.promises.unlink(path);
      if (systemCode(error) !== 'EBUSY') throw fromSystemError(error, `opening ${path}`);
      throw new VarveError('LOG_IN_USE', `${path} is mounted or open elsewhere`, { cause: error });
    }
  }

  async allocated(): Promise<ByteCount> {
    return this.#use(`stat of ${this.name}`, async () => {
      if (this.isBlockDevice) return this.size;
      return byteCount((await statFile(this.#fd)).blocks * 512);
    });
  }

  async read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    this.#checkRange(offset, target.length);
    await this.#use(`reading ${target.length} bytes of ${this.name} at ${offset}`, async () => {
      for (let done = 0; done < target.length;) {
        const count = await this.#readSome(offset + done, target, done);
        if (count === 0) throw new Error(`the file ends at ${offset + done}`);
        done += count;
      }
    });
  }

  async write(offset: ByteOffset, sources: readonly Uint8Array[]): Promise<void> {
    let length = 0;
    for (const source of sources) length += source.length;
    this.#checkRange(offset, length);
    this.#checkWritable();
    await this.#use(`writing ${length} bytes of ${this.name} at ${offset}`, () =>
      this.#writeAll(offset, sources),
    );
  }

  async punch(offset: ByteOffset, length: ByteCount): Promise<void> {
    this.#checkRange(offset, length);
    this.#checkWritable();
    if (length === 0) return;
    await this.#use(`punching ${length} bytes of ${this.name} at ${offset}`, async () => {
      const end = offset + length;
      const first = this.isBlockDevice ? roundUp(offset) : offset;
      const last = this.isBlockDevice ? roundDown(end) : end;
      if (last <= first || !(await this.#tryPunch(first, last - first))) {
        await this.#writeZeros(offset, length);
        return;
      }
      await this.#writeZeros(offset, first - offset);
      await this.#writeZeros(last, end - last);
    });
  }

  async sync(point: SyncPoint): Promise<void> {
    await this.#use(`syncing ${this.name} for ${point}`, () => syncFileData(this.#fd));
  }

  /** Waits for what is in flight; what comes later is refused with CLOSED. */
  async close(): Promise<void> {
    this.#closed ??= this.#closeOnce();
    await this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #closeOnce(): Promise<void> {
    if (this.#inFlight > 0) {
      await new Promise<void>((resolve) => {
        this.#idle = resolve;
      });
    }
    await closeFile(this.#fd);
  }

  /** Counts `work` as in flight, and turns its errors into ours. */
  async #use<T>(doing: string, work: () => Promise<T>): Promise<T> {
    if (this.#closed !== undefined) throw new VarveError('CLOSED', doing);
    this.#inFlight += 1;
    try {
      return await work();
    } catch (error) {
      throw fromSystemError(error, doing);
    } finally {
      this.#inFlight -= 1;
      if (this.#inFlight === 0) this.#idle();
    }
  }

  #checkRange(offset: number, length: number): void {
    const isInside = offset >= 0 && length >= 0 && offset + length <= this.size;
    assert(isInside, `bytes ${offset} to ${offset + length} lie inside ${this.name}`);
  }

  #checkWritable(): void {
    assert(!this.#readOnly, `${this.name}, opened to be read, is not written`);
  }

  #readSome(position: number, target: Uint8Array, from: number): Promise<number> {
    return new Promise((resolve, reject) => {
      fs.read(this.#fd, target, from, target.length - from, position, (error, count) => {
        if (error) reject(error);
        else resolve(count);
      });
    });
  }

  async #writeAll(offset: number, sources: readonly Uint8Array[]): Promise<void> {
    let position = offset;
    let rest = sources.filter(({ length }) => length > 0);
    while (rest.length > 0) {
      const count = await this.#writeSome(position, rest.slice(0, BUFFERS_MAX));
      if (count === 0) throw new Error('nothing could be written');
      position += count;
      rest = remaining(rest, count);
    }
  }

  #writeSome(position: number, sources: readonly Uint8Array[]): Promise<number> {
    return new Promise((resolve, reject) => {
      const done = (error: Error | null, count: number): void => {
        if (error) reject(error);
        else resolve(count);
      };
      const [only] = sources;
      if (sources.length === 1 && only !== undefined) {
        fs.write(this.#fd, only, 0, only.length, position, done);
      } else {
        fs.writev(this.#fd, sources, position, done);
      }
    });
  }

  #writeZeros(offset: number, length: number): Promise<void> {
    return writeZeros(offset, length, (at, source) => this.#writeAll(at, [source]));
  }

  /** @returns false when the range still has to be overwritten */
  async #tryPunch(offset: number, length: number): Promise<boolean> {
    const isWorthIt = length >= this.#platform.punchBytesMin;
    if (this.#punching === 'refused' || !isWorthIt) return false;
    const result = await this.#platform.punchHole(this.#fd, byteOffset(offset), byteCount(length));
    if (result === 'unsupported') {
      // Files may refuse a single place; a device that refuses does so for good.
      if (this.isBlockDevice) this.#punching = 'refused';
      return false;
    }
    if (this.#punching === 'works') return true;
    this.#punching = (await this.#readsAsZeros(offset, length)) ? 'works' : 'refused';
    return this.#punching === 'works';
  }

  /** Looks at the first, the middle and the last block. */
  async #readsAsZeros(offset: number, length: number): Promise<boolean> {
    const last = length - PUNCH_BLOCK_BYTES;
    const block = new Uint8Array(PUNCH_BLOCK_BYTES);
    for (const at of [0, roundDown(last / 2), last]) {
      const count = await this.#readSome(offset + at, block, 0);
      if (count !== block.length || !isZero(block)) return false;
    }
    return true;
  }
}

function roundUp(position: number): number {
  return Math.ceil(position / PUNCH_BLOCK_BYTES) * PUNCH_BLOCK_BYTES;
}

function roundDown(position: number): number {
  return Math.floor(position / PUNCH_BLOCK_BYTES) * PUNCH_BLOCK_BYTES;
}

/** What is left of `sources` after its first `count` bytes. */
function remaining(sources: readonly Uint8Array[], count: number): Uint8Array[] {
  let left = count;
  for (const [at, source] of sources.entries()) {
    if (left < source.length) return [source.subarray(left), ...sources.slice(at + 1)];
    left -= source.length;
  }
  return [];
}
