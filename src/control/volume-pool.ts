/**
 * Where an operator's volumes come from: opened for one command, or served all the time.
 *
 * Invariant: a volume is closed by the pool that opened it, once.
 */
import { isVarveError, VarveError } from '../base/errors.ts';
import { Mutex } from '../base/mutex.ts';
import { inParallel } from '../base/parallel.ts';
import type { Volume } from '../volume/volume.ts';
import { originDisk, originName } from './clones.ts';
import type { Access, OpenedVolume, VolumeDirectory } from './volume-directory.ts';

export interface VolumePool {
  /** @throws VarveError VOLUME_UNKNOWN and whatever opening throws */
  use<T>(name: string, access: Access, work: (volume: Volume) => Promise<T>): Promise<T>;
  /** A volume of that name was made. */
  added(name: string): Promise<void>;
  /** The volume, if it is open already. */
  find(name: string): Volume | undefined;
  /** Why a volume that is there is not served. */
  failure(name: string): VarveError | undefined;
}

/** Volumes that are opened at once when a server starts. */
const OPENING_MAX = 8;

/** Opens for each use, and closes after it. */
export class TransientVolumes implements VolumePool {
  readonly #directory: VolumeDirectory;

  constructor(directory: VolumeDirectory) {
    this.#directory = directory;
  }

  async use<T>(name: string, access: Access, work: (volume: Volume) => Promise<T>): Promise<T> {
    const opened = await this.#directory.open(name, access);
    try {
      return await work(opened.volume);
    } finally {
      await opened.close();
    }
  }

  async added(): Promise<void> {
    // It is opened when it is used.
  }

  find(): undefined {
    return undefined;
  }

  failure(): undefined {
    return undefined;
  }
}

/**
 * All volumes of a directory, open for as long as they are served. Clones of one volume share it; they
 * are opened after it, and closed before it.
 */
export class ServedVolumes implements VolumePool {
  readonly #directory: VolumeDirectory;
  readonly #opened = new Map<string, OpenedVolume>();
  /** On how many others each stands. */
  readonly #depths = new Map<string, number>();
  readonly #opening = new Mutex();
  readonly #failures = new Map<string, VarveError>();

  private constructor(directory: VolumeDirectory) {
    this.#directory = directory;
  }

  /**
   * Opens all that can be opened; what is wrong with one is no reason not to serve the others.
   * @throws VarveError when none can be; VOLUME_LOCKED when another process has one, which ends
   */
  static async open(directory: VolumeDirectory): Promise<ServedVolumes> {
    const pool = new ServedVolumes(directory);
    try {
      for (const level of await levelsOf(directory, await directory.names())) {
        await inParallel(level, OPENING_MAX, (name) => pool.#try(name));
      }
      const [first] = pool.#failures.values();
      if (first !== undefined && pool.#opened.size === 0) throw first;
      return pool;
    } catch (error) {
      await pool.close();
      throw error;
    }
  }

  /** Sorted. */
  names(): readonly string[] {
    return [...this.#opened.keys()].sort();
  }

  find(name: string): Volume | undefined {
    return this.#opened.get(name)?.volume;
  }

  /** Those that are not served, sorted. */
  failed(): readonly string[] {
    return [...this.#failures.keys()].sort();
  }

  failure(name: string): VarveError | undefined {
    return this.#failures.get(name);
  }

  async use<T>(name: string, _access: Access, work: (volume: Volume) => Promise<T>): Promise<T> {
    const volume = this.find(name);
    if (volume === undefined) {
      const failure = this.failure(name);
      if (failure !== undefined) throw failure;
      const known = this.names();
      const told = known.length === 0 ? 'nothing' : known.join(', ');
      throw new VarveError('VOLUME_UNKNOWN', `"${name}"; the server has ${told}`);
    }
    return work(volume);
  }

  async added(name: string): Promise<void> {
    await this.#opening.run(() => this.#open(name));
  }

  async #try(name: string): Promise<void> {
    try {
      await this.#open(name);
    } catch (error) {
      if (!isVarveError(error)) throw error;
      if (error.code === 'VOLUME_LOCKED') throw error;
      const next = `${error.next}; then start the server again`;
      const why = `volume "${name}" is not served: ${error.detail}`;
      this.#failures.set(name, new VarveError(error.code, why, { cause: error, next }));
    }
  }

  async #open(name: string): Promise<Volume> {
    const known = this.find(name);
    if (known !== undefined) return known;
    let depth = 0;
    const opened = await this.#directory.open(name, 'write', async (base) => {
      const origin = await originName(this.#directory, base);
      const failure = this.#failures.get(origin);
      if (failure !== undefined) throw failure;
      const disk = originDisk(await this.#open(origin), base);
      depth = (this.#depths.get(origin) ?? 0) + 1;
      return { disk, close: () => disk.close() };
    });
    this.#opened.set(name, opened);
    this.#depths.set(name, depth);
    await opened.volume.applyRetention();
    return opened.volume;
  }

  /** Closes all, also when one fails; the first failure is thrown. */
  async close(): Promise<void> {
    await this.#opening.run(async () => {
      const all = [...this.#opened];
      this.#opened.clear();
      const failures: unknown[] = [];
      for (let depth = Math.max(0, ...this.#depths.values()); depth >= 0; depth--) {
        const level = all.filter(([name]) => this.#depths.get(name) === depth);
        const ends = await Promise.allSettled(level.map(([, opened]) => opened.close()));
        for (const end of ends) if (end.status === 'rejected') failures.push(end.reason);
      }
      if (failures.length > 0) throw failures[0];
    });
  }
}

/** Undefined also where that can't be told: opening it tells. */
async function originOf(directory: VolumeDirectory, name: string): Promise<string | undefined> {
  try {
    const { base } = await directory.record(name);
    return base?.kind === 'volume' ? await originName(directory, base) : undefined;
  } catch (error) {
    if (isVarveError(error)) return undefined;
    throw error;
  }
}

/** Names in groups, each after the group with what it is based on. */
async function levelsOf(
  directory: VolumeDirectory,
  names: readonly string[],
): Promise<readonly (readonly string[])[]> {
  const origins = new Map<string, string | undefined>();
  for (const name of names) origins.set(name, await originOf(directory, name));
  const levels: string[][] = [];
  for (let left = names; left.length > 0;) {
    const waiting = new Set(left);
    const isReady = (name: string): boolean => !waiting.has(origins.get(name) ?? '');
    const ready = left.filter(isReady);
    // Records that name each other: opening them tells.
    levels.push(ready.length > 0 ? ready : [...left]);
    left = ready.length > 0 ? left.filter((name) => !isReady(name)) : [];
  }
  return levels;
}
