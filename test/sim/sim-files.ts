/**
 * Small files and devices by path, in memory: a volume directory of a simulated machine.
 *
 * Invariants:
 *   - A call that has settled is durable; one in flight at a loss of power is done or not, whole.
 *   - One that a kill ends may have changed names that its directory was not synced for: all see them,
 *     and a later cut may take them back, unless somebody has synced that directory since.
 *   - Locks end with the life that took them; so do those of files that are open.
 */
import { VarveError, type ErrorCode } from '../../src/base/errors.ts';
import { crc32c } from '../../src/base/crc32c.ts';
import { byteOffset } from '../../src/base/units.ts';
import type { LowerDevice, OpenDeviceOptions } from '../../src/device/lower-device.ts';
import { SliceDevice } from '../../src/device/slice-device.ts';
import type { FileLock, MetaFiles, PathKind } from '../../src/device/meta-files.ts';
import type { SimDiskOptions } from './medium.ts';
import type { Life, Loss, PoweredPart, PowerSupply } from './power-supply.ts';
import type { SeededRandom } from './random.ts';
import { SimDisk } from './sim-disk.ts';

type Entry =
  | { readonly kind: 'file'; readonly text: string }
  | { readonly kind: 'directory' }
  | { readonly kind: 'disk'; readonly disk: SimDisk; readonly isBlock: boolean };

/** For all disks that are made here. */
export interface SimFilesOptions extends Omit<SimDiskOptions, 'name' | 'size'> {
  /** Whether a file may have a second name. On if not given. */
  readonly hasLinks?: boolean;
}

const LATENCY_US = { min: 2, max: 100 };

/** Number of the digest. */
const FILE_OPERATION = 8;

/** Of a file or device that is open and locked. */
interface Hold {
  readonly isShared: boolean;
}

/** A change of names that a kill ended before its directory was synced. */
interface Doubt {
  readonly directory: string;
  /** What the names were before it. */
  readonly before: ReadonlyMap<string, Entry | undefined>;
}

interface InFlight {
  readonly doing: string;
  readonly changes: boolean;
  readonly effect: () => void;
  readonly reject: (error: Error) => void;
}

function parentOf(path: string): string {
  const slash = path.lastIndexOf('/');
  return slash <= 0 ? '/' : path.slice(0, slash);
}

/** What outlives a life. */
class FileTable implements PoweredPart {
  readonly power: PowerSupply;
  readonly options: SimFilesOptions;
  readonly entries = new Map<string, Entry>([['/', { kind: 'directory' }]]);
  readonly random: SeededRandom;
  readonly locks = new Map<string, object>();
  readonly holds = new Map<Entry, Set<Hold>>();
  readonly inFlight = new Set<InFlight>();
  /** Oldest first; those of one directory end together. */
  #doubts: readonly Doubt[] = [];
  /** Thrown by the next change. */
  nextFault: VarveError | undefined;

  constructor(power: PowerSupply, options: SimFilesOptions) {
    this.power = power;
    this.options = options;
    this.random = power.world.fork('files');
    power.add(this);
  }

  /** What names the directory has is durable now. */
  sync(directory: string): void {
    this.#doubts = this.#doubts.filter((doubt) => doubt.directory !== directory);
  }

  lose(loss: Loss): void {
    for (const { doing, changes, effect, reject } of this.inFlight) {
      if (changes && this.random.chance(0.5)) this.#end(effect, loss);
      if (this.power.afterLoss === 'reject') reject(gone(doing));
    }
    if (loss === 'cut') this.#takeBack();
    this.inFlight.clear();
    this.locks.clear();
    this.holds.clear();
  }

  #end(effect: () => void, loss: Loss): void {
    const doubts = this.#doubts;
    const old = new Map(this.entries);
    try {
      effect();
    } catch {
      // It would have failed: nothing is changed.
    }
    if (loss === 'cut') return;
    const before = new Map<string, Entry | undefined>();
    for (const path of new Set([...old.keys(), ...this.entries.keys()])) {
      if (old.get(path) !== this.entries.get(path)) before.set(path, old.get(path));
    }
    const [changed] = before.keys();
    // Its own sync never came.
    this.#doubts =
      changed === undefined ? doubts : [...doubts, { directory: parentOf(changed), before }];
  }

  /** As a journal does: nothing stays that is newer than what goes. */
  #takeBack(): void {
    if (this.#doubts.length === 0) return;
    const kept = this.random.below(this.#doubts.length + 1);
    for (const { directory, before } of this.#doubts.slice(kept).reverse()) {
      if (!this.entries.has(directory)) continue;
      for (const [path, entry] of before) {
        if (entry !== undefined) this.entries.set(path, entry);
        else this.#forget(path);
      }
    }
    this.#doubts = [];
  }

  /** With all that is below it. */
  #forget(path: string): void {
    for (const other of this.entries.keys()) {
      if (other === path || other.startsWith(`${path}/`)) this.entries.delete(other);
    }
  }
}

/** @param release - of the lock, which ends with the device's use */
function lockedDevice(device: LowerDevice, release: () => void): LowerDevice {
  return {
    name: device.name,
    size: device.size,
    read: (offset, target) => device.read(offset, target),
    write: (offset, sources) => device.write(offset, sources),
    punch: (offset, length) => device.punch(offset, length),
    sync: (point) => device.sync(point),
    allocated: () => device.allocated(),
    close: () => {
      release();
      return device.close();
    },
  };
}

function gone(doing: string): VarveError {
  return new VarveError('DEVICE_IO', `${doing}: the machine is gone (simulated)`);
}

export class SimFiles implements MetaFiles {
  readonly #table: FileTable;
  readonly #life: Life;

  private constructor(table: FileTable) {
    this.#table = table;
    this.#life = table.power.life;
  }

  static create(power: PowerSupply, options: SimFilesOptions = {}): SimFiles {
    return new SimFiles(new FileTable(power, options));
  }

  /** The same files, for the current life. */
  reopen(): SimFiles {
    return new SimFiles(this.#table);
  }

  /** An independent copy of all files and disks, on another machine or as a backup. */
  copy(power: PowerSupply, options: SimFilesOptions = this.#table.options): SimFiles {
    const table = new FileTable(power, options);
    const copies = new Map<Entry, Entry>();
    for (const [path, entry] of this.#table.entries) {
      const copied =
        copies.get(entry) ??
        (entry.kind === 'disk' ? { ...entry, disk: entry.disk.copy(power, options) } : entry);
      copies.set(entry, copied);
      table.entries.set(path, copied);
    }
    return new SimFiles(table);
  }

  /** The disk at a path, whoever made it: for damage on purpose. */
  disk(path: string): SimDisk {
    const entry = this.#table.entries.get(path);
    if (entry?.kind !== 'disk') throw new VarveError('FILE_BAD', `${path} is no disk`);
    return entry.disk;
  }

  /** Every disk by its path. */
  disks(): ReadonlyMap<string, SimDisk> {
    const found = new Map<string, SimDisk>();
    for (const [path, entry] of this.#table.entries) {
      if (entry.kind === 'disk') found.set(path, entry.disk);
    }
    return found;
  }

  addBlockDevice(path: string, size: number): SimDisk {
    const disk = SimDisk.create(this.#table.power, { ...this.#table.options, name: path, size });
    this.#table.entries.set(path, { kind: 'disk', disk, isBlock: true });
    return disk;
  }

  /** Another name of it, as a link in /dev/disk/by-id is. */
  linkBlockDevice(path: string, second: string): void {
    const entry = this.#table.entries.get(path);
    if (entry !== undefined) this.#table.entries.set(second, entry);
  }

  /** The next change fails, and changes nothing. */
  failNext(code: ErrorCode): void {
    this.#table.nextFault = new VarveError(code, 'simulated');
  }

  /** `OpenDevice`, with the errors of `FileDevice.open`. */
  readonly openDevice = (path: string, options: OpenDeviceOptions = {}): Promise<LowerDevice> =>
    this.#submit(`opening ${path}`, options.create === true, () => this.#openNow(path, options));

  kind(path: string): Promise<PathKind> {
    return this.#submit(`looking at ${path}`, false, () => {
      const entry = this.#table.entries.get(path);
      if (entry?.kind === 'disk') return entry.isBlock ? 'block-device' : 'file';
      return entry?.kind ?? 'none';
    });
  }

  readText(path: string): Promise<string | undefined> {
    return this.#submit(`reading ${path}`, false, () => {
      const entry = this.#table.entries.get(path);
      if (entry === undefined) return undefined;
      if (entry.kind !== 'file') throw new VarveError('FILE_BAD', `${path} is no text file`);
      return entry.text;
    });
  }

  writeAtomically(path: string, text: string): Promise<void> {
    return this.#submit(`writing ${path}`, true, () => {
      this.#checkParent(path);
      if (this.#table.entries.get(path)?.kind === 'directory') {
        throw new VarveError('FILE_BAD', `writing ${path}: EISDIR`);
      }
      this.#table.entries.set(path, { kind: 'file', text });
      this.#table.sync(parentOf(path));
    });
  }

  rename(path: string, name: string): Promise<void> {
    return this.#submit(`renaming ${path} to ${name}`, true, () => {
      const { entries } = this.#table;
      const entry = entries.get(path);
      if (entry === undefined) throw new VarveError('FILE_BAD', `renaming ${path}: ENOENT`);
      entries.delete(path);
      entries.set(`${parentOf(path)}/${name}`, entry);
      this.#table.sync(parentOf(path));
    });
  }

  link(path: string, second: string): Promise<boolean> {
    return this.#submit(`naming ${path} ${second}`, true, () => {
      const { entries } = this.#table;
      const entry = entries.get(path);
      if (entry === undefined) throw new VarveError('FILE_BAD', `naming ${path}: ENOENT`);
      this.#checkParent(second);
      if (entries.has(second)) throw new VarveError('FILE_EXISTS', `naming ${second}: EEXIST`);
      if (this.#table.options.hasLinks === false) return false;
      entries.set(second, entry);
      this.#table.sync(parentOf(second));
      return true;
    });
  }

  isSame(path: string, other: string): Promise<boolean> {
    return this.#submit(`looking at ${path} and ${other}`, false, () => {
      const { entries } = this.#table;
      const entry = entries.get(path);
      return entry !== undefined && entry.kind !== 'directory' && entry === entries.get(other);
    });
  }

  isSameDevice(path: string, other: string): Promise<boolean> {
    return this.#submit(`looking at ${path} and ${other}`, false, () => {
      const { entries } = this.#table;
      const entry = entries.get(path);
      return entry?.kind === 'disk' && entry.isBlock && entry === entries.get(other);
    });
  }

  list(path: string): Promise<readonly string[]> {
    return this.#submit(`listing ${path}`, false, () =>
      [...this.#table.entries.keys()]
        .filter((other) => other !== '/' && parentOf(other) === path)
        .map((other) => other.slice(other.lastIndexOf('/') + 1))
        .sort(),
    );
  }

  syncNames(directory: string): Promise<void> {
    return this.#submit(`syncing ${directory}`, true, () => {
      this.#checkParent(`${directory}/`);
      this.#table.sync(directory);
    });
  }

  async createDirectory(path: string): Promise<void> {
    const { entries } = this.#table;
    if (entries.get(path)?.kind !== 'directory') await this.createDirectory(parentOf(path));
    await this.#submit(`making ${path}`, true, () => {
      const entry = entries.get(path);
      if (entry === undefined) entries.set(path, { kind: 'directory' });
      else if (entry.kind !== 'directory') {
        throw new VarveError('FILE_EXISTS', `making ${path}: EEXIST`);
      }
      this.#table.sync(parentOf(path));
    });
  }

  remove(path: string): Promise<void> {
    return this.#submit(`removing ${path}`, true, () => {
      for (const other of this.#table.entries.keys()) {
        if (parentOf(other) !== path || other === '/') continue;
        throw new VarveError('DEVICE_IO', `removing ${path}: ENOTEMPTY`);
      }
      this.#table.entries.delete(path);
      this.#table.sync(parentOf(path));
      // A lock is its file's: who has that one open keeps it, and the next one is another.
      this.#table.locks.delete(path);
    });
  }

  lock(path: string): Promise<FileLock> {
    return this.#submit(`locking ${path}`, true, () => {
      const { locks, entries } = this.#table;
      this.#checkParent(path);
      if (locks.has(path)) {
        throw new VarveError('VOLUME_LOCKED', `${path} is held by another process`);
      }
      if (!entries.has(path)) entries.set(path, { kind: 'file', text: '' });
      const own = {};
      locks.set(path, own);
      return {
        release: async () => {
          if (locks.get(path) === own) locks.delete(path);
        },
      };
    });
  }

  #openNow(path: string, options: OpenDeviceOptions): LowerDevice {
    const device = this.#openUnlocked(path, options);
    const entry = this.#table.entries.get(path);
    if (options.locked !== true || entry?.kind !== 'disk') return device;
    const holds = this.#table.holds.get(entry) ?? new Set();
    this.#table.holds.set(entry, holds);
    const hold: Hold = { isShared: options.readOnly === true && !entry.isBlock };
    if ([...holds].some(({ isShared }) => !isShared || !hold.isShared)) {
      throw new VarveError(entry.isBlock ? 'LOG_IN_USE' : 'FILE_IN_USE', path);
    }
    holds.add(hold);
    return lockedDevice(device, () => holds.delete(hold));
  }

  #openUnlocked(path: string, { create, size, readOnly }: OpenDeviceOptions): LowerDevice {
    const { entries, power, options } = this.#table;
    const entry = entries.get(path);
    if (entry?.kind === 'disk') {
      if (create === true && !entry.isBlock) {
        throw new VarveError('FILE_EXISTS', `opening ${path}: EEXIST`);
      }
      const actual = entry.disk.size;
      if (size !== undefined && (entry.isBlock ? actual < size : actual !== size)) {
        throw new VarveError('VOLUME_FOREIGN', `${path} holds ${actual} bytes, expected ${size}`);
      }
      const disk = power.alive ? entry.disk.reopen({ readOnly: readOnly === true }) : entry.disk;
      if (size === undefined || size === actual) return disk;
      return new SliceDevice(disk, { offset: byteOffset(0), size, name: path });
    }
    if (entry !== undefined) throw new VarveError('FILE_BAD', `opening ${path}: ${entry.kind}`);
    if (create !== true) throw new VarveError('FILE_BAD', `opening ${path}: ENOENT`);
    this.#checkParent(path);
    if (size === undefined) throw new VarveError('SIZE_BAD', `${path} is given no size`);
    const disk = SimDisk.create(power, { ...options, name: path, size });
    entries.set(path, { kind: 'disk', disk, isBlock: false });
    this.#table.sync(parentOf(path));
    return disk;
  }

  #checkParent(path: string): void {
    if (this.#table.entries.get(parentOf(path))?.kind === 'directory') return;
    throw new VarveError('FILE_BAD', `${path}: ENOENT`);
  }

  #submit<T>(doing: string, changes: boolean, effect: () => T): Promise<T> {
    const { power, random, inFlight } = this.#table;
    if (!this.#life.alive) {
      if (power.afterLoss === 'reject') return Promise.reject(gone(doing));
      return new Promise(() => {
        // Never: the machine that would answer is gone.
      });
    }
    const fault = changes ? this.#table.nextFault : undefined;
    if (fault !== undefined) this.#table.nextFault = undefined;
    power.world.note(FILE_OPERATION, crc32c(Buffer.from(doing)));
    return new Promise((resolve, reject) => {
      const operation: InFlight = { doing, changes: changes && !fault, effect, reject };
      inFlight.add(operation);
      power.world.schedule(random.between(LATENCY_US.min, LATENCY_US.max), () => {
        if (!inFlight.delete(operation)) return;
        try {
          if (fault !== undefined) throw fault;
          resolve(effect());
        } catch (error) {
          reject(error instanceof Error ? error : new Error(String(error)));
        }
      });
      power.count();
    });
  }
}
