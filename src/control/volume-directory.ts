/**
 * A directory of volumes: `DIR/NAME/{volume.json,log,final.raw,final.sums,undo,lock}`.
 *
 * Invariants:
 *   - A volume is made only by `create`; nothing is made because something is missing.
 *   - A volume is open in one process at most: the one that holds its lock. Its log and final storage
 *     are locked besides: a lock file can be removed, and a copied volume.json names the same paths.
 *   - A creation that fails leaves the directory as it was; one that a crash ends leaves files that
 *     the next one of that name removes, and takes for nothing else.
 *   - What a record says is acted on only when it is durable: a process that was killed may have left
 *     it to the page cache alone.
 *
 * The code of volumes is half of the program: it is loaded where one is opened, since a command
 * that asks a server needs none of it.
 */
import { join } from 'node:path';
import { VarveError, isVarveError } from '../base/errors.ts';
import { Mutex } from '../base/mutex.ts';
import { newUuid } from '../base/identity.ts';
import { byteCount, mebibytes, type ByteCount } from '../base/units.ts';
import type { World } from '../base/world.ts';
import type { LowerDevice, OpenDevice } from '../device/lower-device.ts';
import type { FileLock, MetaFiles } from '../device/meta-files.ts';
import { LOG_BYTES_MAX } from '../../log/geometry.ts';
import type { ImageFormat } from '../image/base-image.ts';
import type { BaseOptions } from '../volume/final-storage.ts';
import { finalBytes, sumsBytes } from '../volume/devices.ts';
import type { formatVolume } from '../volume/format-volume.ts';
import { timeText } from '../volume/moment.ts';
import type { Progress } from '../volume/report.ts';
import { NO_RETENTION } from '../volume/retention-policy.ts';
import type { Volume } from '../volume/volume.ts';
import { baseText, type BaseRecord, type VolumeBase } from './base-record.ts';
import { originDisk, originName, type OpenOrigin } from './clones.ts';
import { sizeArgument } from './size-text.ts';
import { keepAside } from './keep-aside.ts';
import { openFileBase, planBase, type OpenedBase } from './open-base.ts';
import { clearUnfinished, dropSecondNames, foreignNames, secondNameOf } from './unfinished.ts';
import { needUnusedDevices } from './used-devices.ts';
import { VolumeMaker } from './volume-maker.ts';
import {
  FINAL_FILE,
  LOCK_FILE,
  LOG_FILE,
  RECORD_FILE,
  RING_BYTES_DEFAULT,
  SUMS_FILE,
  UNDO_FILE,
  undoSizeDefault,
  UNFINISHED_FILE,
  checkRingSize,
  geometryOf,
  checkVolumeName,
  isVolumeName,
  logSizeDefault,
  parseRecord,
  pathOf,
  recordText,
  ringSizeOfClone,
  type VolumeRecord,
} from './volume-record.ts';

const CACHE_BYTES = mebibytes(16);

/** What is loaded where a volume is opened. */
export interface VolumeCode {
  readonly formatVolume: typeof formatVolume;
  readonly openVolume: typeof Volume.open;
}

/** The outside world, as a directory of volumes needs it. */
export interface Surroundings {
  readonly files: MetaFiles;
  readonly openDevice: OpenDevice;
  readonly world: World;
  readonly loadVolumes: () => Promise<VolumeCode>;
  /** Told how a rollback goes on that a volume's opening found unfinished. */
  readonly onRollback?: ((name: string, done: number, total: number) => void) | undefined;
}

export interface CreateOptions {
  /** Default: that of the base. */
  readonly size?: ByteCount | undefined;
  /** An image that is read where the volume was never written: an absolute path. */
  readonly basePath?: string | undefined;
  readonly baseFormat?: ImageFormat | undefined;
  /** A snapshot of another volume of the directory, which is kept by the caller. */
  readonly origin?: VolumeBase | undefined;
  readonly logSize?: ByteCount | undefined;
  readonly ringSize?: ByteCount | undefined;
  /** Absolute paths of a new file or a blank raw device. */
  readonly logPath?: string | undefined;
  readonly finalPath?: string | undefined;
}

export type Access = 'read' | 'write';

/** An open volume, with all that ends when it is closed. */
export interface OpenedVolume {
  readonly name: string;
  readonly record: VolumeRecord;
  readonly volume: Volume;
  close(): Promise<void>;
}

export class VolumeDirectory {
  readonly path: string;
  readonly #around: Surroundings;
  /** Of records: one is read, changed and written at a time. */
  readonly #changes = new Mutex();

  /** @param path - absolute; looked at only when something is asked */
  constructor(path: string, around: Surroundings) {
    this.path = path;
    this.#around = around;
  }

  async exists(): Promise<boolean> {
    const kind = await this.#around.files.kind(this.path);
    if (kind === 'none' || kind === 'directory') return kind === 'directory';
    throw new VarveError('FILE_BAD', `${this.path} is not a directory`);
  }

  /** Sorted. */
  async names(): Promise<readonly string[]> {
    if (!(await this.exists())) return [];
    const names: string[] = [];
    for (const name of (await this.#around.files.list(this.path)).filter(isVolumeName)) {
      if ((await this.#around.files.kind(join(this.path, name))) !== 'directory') continue;
      const found = await this.#around.files.kind(join(this.path, name, RECORD_FILE));
      if (found !== 'none') names.push(name);
    }
    return names;
  }

  /** Whether there is a volume of that name, without a look at the others. */
  async has(name: string): Promise<boolean> {
    return (await this.#around.files.kind(join(this.path, name, RECORD_FILE))) !== 'none';
  }

  /** @throws VarveError VOLUME_UNKNOWN, VOLUME_FOREIGN, VERSION_UNKNOWN, PERMISSION */
  async record(name: string): Promise<VolumeRecord> {
    const { files } = this.#around;
    if (!isVolumeName(name)) throw new VarveError('VOLUME_UNKNOWN', `"${name}" in ${this.path}`);
    const folder = join(this.path, name);
    if (!(await this.exists()) || (await files.kind(folder)) !== 'directory') {
      throw new VarveError('VOLUME_UNKNOWN', `"${name}" in ${this.path}`);
    }
    const path = join(folder, RECORD_FILE);
    const source = await files.readText(path);
    if (source === undefined) {
      throw new VarveError('VOLUME_UNKNOWN', `"${name}": ${folder} has no ${RECORD_FILE}`);
    }
    return parseRecord(source, path);
  }

  /**
   * As no power cut takes it back.
   * @throws VarveError as `record`; DEVICE_IO
   */
  async durableRecord(name: string): Promise<VolumeRecord> {
    const record = await this.record(name);
    await this.#around.files.syncNames(join(this.path, name));
    return record;
  }

  /**
   * @throws VarveError VOLUME_NAME_BAD, VOLUME_EXISTS, SIZE_BAD, LOG_TOO_SMALL, RING_BAD,
   *   LOG_IN_USE, PERMISSION, DISK_FULL, FILE_BAD, DEVICE_IO, BASE_MISSING, IMAGE_*; nothing was
   *   changed then
   */
  async create(name: string, options: CreateOptions, progress: Progress): Promise<VolumeRecord> {
    const { files, openDevice } = this.#around;
    const folder = join(this.path, checkVolumeName(name));
    const record = await this.#plan(options);
    const kind = await files.kind(folder);
    if (kind !== 'none' && kind !== 'directory') {
      throw new VarveError('VOLUME_EXISTS', `${folder} is there, and is no directory`);
    }
    const hasRemains = await this.#needUnmade(name);
    const maker = new VolumeMaker(files, openDevice);
    let lock: FileLock | undefined;
    try {
      await maker.directory(this.path);
      await maker.directory(folder);
      lock = await files.lock(join(folder, LOCK_FILE));
      // Asked again under the lock: another process may have been faster.
      await this.#needUnmade(name);
      await clearUnfinished(this.#around, folder);
      if (hasRemains) maker.adopt(folder);
      maker.adopt(join(folder, LOCK_FILE));
      maker.adopt(join(folder, UNFINISHED_FILE));
      await files.writeAtomically(join(folder, UNFINISHED_FILE), recordText(record));
      await needUnusedDevices(files, this.path, { own: name, record });
      await this.#format(maker, folder, { record, progress });
      await maker.close();
      maker.adopt(join(folder, RECORD_FILE));
      await files.rename(join(folder, UNFINISHED_FILE), RECORD_FILE);
      await dropSecondNames(files, folder, record);
      return record;
    } catch (error) {
      const left = await maker.undo();
      if (left.length === 0 || !isVarveError(error)) throw error;
      const told = `${error.detail}; ${left.join(', ')} could not be removed`;
      throw new VarveError(error.code, told, { cause: error });
    } finally {
      await lock?.release();
    }
  }

  /**
   * Opens with the volume's lock; `read` replays in RAM and writes nothing.
   * @throws VarveError VOLUME_UNKNOWN, VOLUME_LOCKED, VOLUME_FOREIGN, VOLUME_CORRUPT,
   *   VERSION_UNKNOWN, PERMISSION, DEVICE_IO, BASE_MISSING, BASE_CHANGED, IMAGE_*
   */
  async open(
    name: string,
    access: Access,
    openOrigin: OpenOrigin = (base) => this.#openOrigin(base),
  ): Promise<OpenedVolume> {
    const { files, world } = this.#around;
    await this.record(name);
    const folder = join(this.path, name);
    const lock = await files.lock(join(folder, LOCK_FILE));
    const opened: { close(): Promise<void> }[] = [];
    const closeAll = async (): Promise<void> => {
      for (const one of opened) await one.close();
      await lock.release();
    };
    try {
      const record = await this.durableRecord(name);
      const readOnly = access === 'read';
      const device = async (stored: string, size: ByteCount): Promise<LowerDevice> => {
        const found = await this.#existing(pathOf(folder, stored), { size, readOnly });
        opened.push(found);
        return found;
      };
      const { uuid, size, ringSize: ringBytes, writeMode, retention } = record;
      const devices = {
        log: await device(record.log, record.logSize),
        final: await device(record.final, finalBytes(size)),
        sums: await device(record.sums, sumsBytes(size)),
        undo: await device(record.undo, record.undoSize),
      };
      if (!readOnly) await dropSecondNames(files, folder, record);
      const options = { uuid, name, size, ringBytes, writeMode, retention, readOnly };
      const keep = (cut: string, bytes: Uint8Array): Promise<void> =>
        keepAside(this.#around, folder, { name: cut, bytes });
      const onRollback: Progress = (done, total) => this.#around.onRollback?.(name, done, total);
      const base = record.base && (await this.#openBase(folder, record.base, openOrigin));
      if (base !== undefined) opened.push(base);
      const based = {
        base: base && record.base && baseOptions(base, record.base),
        hadBase: record.hadBase,
      };
      const all = { ...options, ...based, cacheBytes: CACHE_BYTES, keepAside: keep, onRollback };
      const { openVolume } = await this.#around.loadVolumes();
      const volume = await openVolume(devices, all, world);
      const closeOnce = async (): Promise<void> => {
        try {
          await volume.close();
        } finally {
          await closeAll();
        }
      };
      let closing: Promise<void> | undefined;
      const close = (): Promise<void> => (closing ??= closeOnce());
      return { name, record, volume, close };
    } catch (error) {
      await closeAll();
      throw error;
    }
  }

  #openBase(folder: string, base: BaseRecord, openOrigin: OpenOrigin): Promise<OpenedBase> {
    return base.kind === 'file' ? openFileBase(this.#around, folder, base) : openOrigin(base);
  }

  /** The origin is opened for this clone alone. */
  async #openOrigin(base: VolumeBase): Promise<OpenedBase> {
    const opened = await this.open(await originName(this, base), 'read');
    try {
      const disk = originDisk(opened.volume, base);
      return { disk, close: () => disk.close().then(() => opened.close()) };
    } catch (error) {
      await opened.close();
      throw error;
    }
  }

  /**
   * What is to hold at later openings.
   * @param access - `locked`: the caller has the volume open, and tells it; `free`: nobody may
   * @throws VarveError VOLUME_UNKNOWN, VOLUME_LOCKED, what `change` throws; the old record stands
   *   then. DISK_FULL, PERMISSION, DEVICE_IO: the old one or the new one does, whole
   */
  async change(
    name: string,
    access: 'locked' | 'free',
    change: (record: VolumeRecord) => Partial<Pick<VolumeRecord, 'writeMode' | 'retention'>>,
  ): Promise<VolumeRecord> {
    return await this.#change(name, access, (record) => ({ ...record, ...change(record) }));
  }

  /**
   * That the base of a volume is being copied. The caller has it open.
   * @returns the base
   * @throws VarveError as `change`; BASE_NONE, also when what was copied has just been dropped
   */
  async copyBase(name: string): Promise<BaseRecord> {
    const { base } = await this.#change(name, 'locked', (record) => {
      if (record.base === undefined) throw new VarveError('BASE_NONE', `"${name}"`);
      return { ...record, base: { ...record.base, isCopied: true } };
    });
    return base;
  }

  /**
   * That the base of a volume is not needed any more: all of it is copied. The caller has it open.
   * @throws VarveError as `change`
   */
  async dropBase(name: string): Promise<void> {
    await this.#change(name, 'locked', (record) => ({
      ...record,
      base: undefined,
      hadBase: true,
    }));
  }

  async #change<R extends VolumeRecord>(
    name: string,
    access: 'locked' | 'free',
    change: (record: VolumeRecord) => R,
  ): Promise<R> {
    const { files } = this.#around;
    await this.record(name);
    const folder = join(this.path, name);
    const lock = access === 'free' ? await files.lock(join(folder, LOCK_FILE)) : undefined;
    try {
      return await this.#changes.run(async () => {
        const record = change(await this.record(name));
        await files.writeAtomically(join(folder, RECORD_FILE), recordText(record));
        return record;
      });
    } finally {
      await lock?.release();
    }
  }

  /** What is to be made, checked as far as that goes without making anything. */
  async #plan(options: CreateOptions): Promise<VolumeRecord> {
    const { world } = this.#around;
    const { logPath, finalPath } = options;
    const base = await this.#planBase(options);
    const size = options.size ?? base?.size;
    if (size === undefined) throw new VarveError('USAGE', 'the size is missing');
    if (base !== undefined && size < base.size) {
      const both = `got ${size} bytes, ${options.basePath ?? ''} has ${base.size}`;
      const next = `give at least ${sizeArgument(base.size)}, or no --size for that of the base`;
      throw new VarveError('SIZE_BAD', `${both}: the end of the base would be lost`, { next });
    }
    const isClone = options.origin !== undefined;
    const wanted =
      options.logSize ?? (await this.#rawSize(logPath)) ?? logSizeDefault(size, isClone);
    const geometry = geometryOf({ size, logSize: wanted, isClone });
    if (!Number.isSafeInteger(finalBytes(size))) {
      throw new VarveError('SIZE_BAD', `got ${size} bytes, which whole blocks can not hold`);
    }
    return {
      uuid: newUuid(world.random),
      size,
      logSize: geometry.logBytes,
      ringSize: isClone
        ? ringSizeOfClone(geometry)
        : checkRingSize(options.ringSize ?? RING_BYTES_DEFAULT),
      ...(isClone && { isClone }),
      writeMode: 'back',
      createdAt: timeText(world.clock.wallUs()),
      log: logPath ?? LOG_FILE,
      final: finalPath ?? FINAL_FILE,
      sums: SUMS_FILE,
      undo: UNDO_FILE,
      undoSize: undoSizeDefault(size),
      base,
      hadBase: base !== undefined,
      retention: NO_RETENTION,
    };
  }

  async #planBase({
    basePath,
    baseFormat,
    origin,
  }: CreateOptions): Promise<BaseRecord | undefined> {
    if (origin !== undefined) return origin;
    if (basePath === undefined) return undefined;
    if (baseFormat === undefined) throw new VarveError('IMAGE_FORMAT_UNSAID', basePath);
    return await planBase(this.#around, { path: basePath, format: baseFormat });
  }

  /** A raw device is used whole. */
  async #rawSize(path: string | undefined): Promise<ByteCount | undefined> {
    if (path === undefined) return undefined;
    if ((await this.#around.files.kind(path)) !== 'block-device') return undefined;
    const device = await this.#around.openDevice(path, { readOnly: true });
    await device.close();
    return byteCount(Math.min(device.size, LOG_BYTES_MAX));
  }

  /**
   * @returns whether the folder holds a creation's remains; an empty one is whoever's who made it
   * @throws VarveError VOLUME_EXISTS when it holds anything else
   */
  async #needUnmade(name: string): Promise<boolean> {
    const folder = join(this.path, name);
    const names = await this.#around.files.list(folder);
    if (names.includes(RECORD_FILE)) {
      throw new VarveError('VOLUME_EXISTS', `"${name}" in ${this.path}`);
    }
    const [other] = foreignNames(names);
    if (other === undefined) return names.length > 0;
    throw new VarveError('VOLUME_EXISTS', `${folder} holds no volume, but holds ${other}`);
  }

  async #format(
    maker: VolumeMaker,
    folder: string,
    { record, progress }: { readonly record: VolumeRecord; readonly progress: Progress },
  ): Promise<void> {
    const { uuid, size, logSize, undoSize } = record;
    const made = (
      stored: string,
      bytes: ByteCount,
      part?: 'log' | 'final',
    ): Promise<LowerDevice> => {
      const path = pathOf(folder, stored);
      const secondName = part && secondNameOf(folder, path, { uuid, part });
      return maker.device(path, bytes, { secondName, progress });
    };
    const devices = {
      log: await made(record.log, logSize, 'log'),
      final: await made(record.final, finalBytes(size), 'final'),
      sums: await made(record.sums, sumsBytes(size)),
      undo: await made(record.undo, undoSize),
    };
    const geometry = geometryOf(record);
    const { formatVolume } = await this.#around.loadVolumes();
    await formatVolume(devices, { uuid, geometry }, this.#around.world, progress);
  }

  /** A file of a volume that should be there: a missing one is as bad as a foreign one. */
  async #existing(
    path: string,
    options: { readonly size: ByteCount; readonly readOnly: boolean },
  ): Promise<LowerDevice> {
    if ((await this.#around.files.kind(path)) === 'none') {
      throw new VarveError('VOLUME_FOREIGN', `${path} is missing`);
    }
    return this.#around.openDevice(path, { ...options, locked: true }).catch(refuseUsed);
  }
}

function refuseUsed(error: unknown): never {
  if (!isVarveError(error, 'FILE_IN_USE') && !isVarveError(error, 'LOG_IN_USE')) throw error;
  const next =
    'stop what has that path open; volumes whose volume.json name one path, as a copied one does,' +
    ' are never open at once';
  const isFile = error.code === 'FILE_IN_USE';
  const detail = isFile ? `${error.detail} is open elsewhere` : error.detail;
  throw new VarveError('VOLUME_LOCKED', detail, { cause: error, next });
}

function baseOptions(opened: OpenedBase, base: BaseRecord): BaseOptions {
  const { disk } = opened;
  return { disk, isCopied: base.isCopied, text: baseText(base), close: () => opened.close() };
}
