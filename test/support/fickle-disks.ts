/**
 * Disks that forget what was not flushed, as files: our own NBD server keeps what is durable and a
 * journal of all that is not, nbdfuse makes a file of each export, and whoever works on that file
 * does so by real system calls. Kernel and nbdfuse pass on each write at once, and each fdatasync
 * as a FLUSH, so the journal is the page cache that a power cut takes.
 *
 * Invariants:
 *   - A flush makes durable what was answered when it came, and nothing that was not.
 *   - After a cut nothing is answered and nothing changes: of the journal any part was kept, in any
 *     order, torn at sectors.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { realWorld } from '../../src/app/real-world.ts';
import { VarveError } from '../../src/base/errors.ts';
import { byteCount, mebibytes, type ByteCount, type ByteOffset } from '../../src/base/units.ts';
import type {
  BlockDevice,
  Done,
  ExportDirectory,
  ExportListing,
  OpenExport,
  StatusRun,
} from '../../src/device/block-device.ts';
import { listenUnix, type Listener } from '../../src/nbd/node-socket.ts';
import { NbdServer } from '../../src/nbd/server.ts';
import type { SeededRandom } from '../sim/random.ts';
import { runToEnd } from './run.ts';

const SECTOR = 512;
const MOUNT_MS_MAX = 20_000;
const CLOSE_MS = 100;

/** `forgets`: a flush is answered, and does nothing. */
export type FlushHonesty = 'keeps' | 'forgets';

/** What a cut leaves of the journal: any part, torn; or a first part, in order. */
export type Remains = 'any' | 'first';

interface Change {
  readonly disk: FickleDisk;
  readonly offset: number;
  readonly bytes: Uint8Array;
  isAnswered: boolean;
}

/** Counts of what was asked and what a cut took. */
export interface FickleCounts {
  writes: number;
  punches: number;
  flushes: number;
  cuts: number;
  /** Unflushed changes that a cut found, and those of them that it left whole, and in part. */
  unflushed: number;
  kept: number;
  torn: number;
}

class FickleDisk implements BlockDevice {
  readonly name: string;
  readonly size: ByteCount;
  readonly readOnly = false;
  readonly requestBytesMax = mebibytes(32);
  /** What is read. */
  readonly now: Buffer;
  /** What a cut can't take. */
  readonly durable: Buffer;
  readonly #disks: FickleDisks;

  constructor(disks: FickleDisks, name: string, content: Buffer) {
    this.#disks = disks;
    this.name = name;
    this.size = byteCount(content.length);
    this.now = Buffer.from(content);
    this.durable = Buffer.from(content);
  }

  read(offset: ByteOffset, target: Uint8Array): Done {
    if (this.#disks.isCut) return this.#disks.silence();
    this.now.copy(target, 0, offset, offset + target.length);
    return undefined;
  }

  write(offset: ByteOffset, source: Uint8Array): Done {
    this.#disks.counts.writes += 1;
    return this.#change(offset, Uint8Array.from(source));
  }

  trim(offset: ByteOffset, length: ByteCount): Done {
    return this.zero(offset, length);
  }

  zero(offset: ByteOffset, length: ByteCount): Done {
    this.#disks.counts.punches += 1;
    return this.#change(offset, new Uint8Array(length));
  }

  flush(): Done {
    return this.#disks.flush(this);
  }

  cache(): Done {
    return undefined;
  }

  contexts(): Promise<readonly string[]> {
    return Promise.resolve([]);
  }

  status(_context: string, _offset: ByteOffset, length: ByteCount): Promise<readonly StatusRun[]> {
    return Promise.resolve([{ length, flags: 0 }]);
  }

  async close(): Promise<void> {
    // It stays.
  }

  #change(offset: number, bytes: Uint8Array): Done {
    if (this.#disks.isCut) return this.#disks.silence();
    this.now.set(bytes, offset);
    return this.#disks.change({ disk: this, offset, bytes, isAnswered: false });
  }
}

/** One life of nbdfuse and server. */
interface Mounted {
  readonly server: NbdServer;
  readonly listener: Listener;
  readonly fuses: readonly ChildProcess[];
}

export interface FickleOptions {
  /** An empty directory for sockets and mounts. */
  readonly directory: string;
  /** By name: what each holds in the beginning, which is its size too. */
  readonly contents: Readonly<Record<string, Buffer>>;
  readonly flushes?: FlushHonesty;
  readonly remains?: Remains;
  readonly random: SeededRandom;
}

export class FickleDisks implements AsyncDisposable, ExportDirectory {
  readonly counts: FickleCounts = {
    writes: 0,
    punches: 0,
    flushes: 0,
    cuts: 0,
    unflushed: 0,
    kept: 0,
    torn: 0,
  };
  readonly #options: FickleOptions;
  readonly #random: SeededRandom;
  readonly #disks: ReadonlyMap<string, FickleDisk>;
  #journal: Change[] = [];
  #isCut = false;
  #plan: { disk: string; left: number; cut: () => void } | undefined;
  #mounted: Mounted | undefined;
  #lives = 0;
  readonly #unanswered: (() => void)[] = [];
  readonly #closing: Promise<void>[] = [];

  constructor(options: FickleOptions) {
    this.#options = options;
    this.#random = options.random;
    this.#disks = new Map(
      Object.entries(options.contents).map(([name, content]) => {
        mkdirSync(join(options.directory, name));
        return [name, new FickleDisk(this, name, content)];
      }),
    );
  }

  get isCut(): boolean {
    return this.#isCut;
  }

  /** The file that stands for a disk, while mounted. */
  path(name: string): string {
    return join(this.#options.directory, name, 'disk');
  }

  list(): Promise<readonly ExportListing[]> {
    return Promise.resolve([]);
  }

  open(name: string): Promise<OpenExport> {
    const device = this.#disks.get(name);
    if (device === undefined) return Promise.reject(new VarveError('VOLUME_UNKNOWN', name));
    return Promise.resolve({
      device,
      canonicalName: name,
      description: '',
      multipleConnections: true,
    });
  }

  /** Power is back; files are there when it settles. */
  async mount(): Promise<void> {
    this.#isCut = false;
    const timers = realWorld.timers;
    const server = NbdServer.create({ exports: this, timers, payloadBudget: mebibytes(128) });
    const socket = join(this.#options.directory, `${++this.#lives}.sock`);
    const listener = await listenUnix(server, socket);
    const names = [...this.#disks.keys()];
    const fuses = names.map((name) =>
      spawn('nbdfuse', [this.path(name), `nbd+unix:///${name}?socket=${socket}`], {
        stdio: 'ignore',
      }),
    );
    this.#mounted = { server, listener, fuses };
    for (const name of names) await isThere(this.path(name));
  }

  /** Cuts the power at the n-th change or flush from now on, of one disk or of `any`. */
  cutAt(count: number, disk: string): Promise<void> {
    return new Promise((cut) => {
      this.#plan = { disk, left: count, cut };
    });
  }

  /** From here on nothing is answered. */
  cut(): void {
    if (this.#isCut) return;
    this.#isCut = true;
    this.counts.cuts += 1;
    const lost = this.#journal.splice(0);
    this.counts.unflushed += lost.length;
    if (this.#options.remains === 'first') {
      for (const change of lost.slice(0, this.#random.below(lost.length + 1))) {
        change.disk.durable.set(change.bytes, change.offset);
      }
    } else {
      const likelihood = this.#random.pick([0, 0.1, 0.5, 0.9, 1]);
      for (const change of this.#random.shuffle(lost)) {
        if (this.#random.chance(likelihood)) this.#keep(change);
      }
    }
    for (const disk of this.#disks.values()) disk.durable.copy(disk.now);
    this.#plan?.cut();
    this.#plan = undefined;
  }

  /** Whoever has files open must be gone, or be ended by SIGKILL already. */
  async unmount(): Promise<void> {
    const mounted = this.#mounted;
    this.#mounted = undefined;
    this.#plan = undefined;
    if (mounted === undefined) return;
    for (const fuse of mounted.fuses) await killed(fuse);
    for (const name of this.#disks.keys()) await unmounted(this.path(name));
    await mounted.listener.close();
    // It waits for answers that never come; nobody waits for it until the end.
    this.#closing.push(mounted.server.close(CLOSE_MS));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await this.unmount();
    await Promise.all(this.#closing);
  }

  /** For its disks: an answer that does not come. */
  silence(): Promise<void> {
    return new Promise((answer) => {
      this.#unanswered.push(answer);
    });
  }

  /** For its disks: notes a change, and settles when it is answered. */
  change(change: Change): Done {
    this.#journal.push(change);
    this.#count(change.disk);
    if (this.#isCut) return this.silence();
    if (this.#random.chance(0.8)) {
      change.isAnswered = true;
      return undefined;
    }
    return this.#later(() => {
      change.isAnswered = true;
    });
  }

  /** For its disks. */
  flush(disk: FickleDisk): Done {
    if (this.#isCut) return this.silence();
    this.counts.flushes += 1;
    const covered = this.#journal.filter((one) => one.disk === disk && one.isAnswered);
    this.#count(disk);
    if (this.#isCut) return this.silence();
    if (this.#options.flushes === 'forgets') return undefined;
    return this.#later(() => {
      for (const { offset, bytes } of covered) disk.durable.set(bytes, offset);
      const gone = new Set(covered);
      this.#journal = this.#journal.filter((one) => !gone.has(one));
    });
  }

  #count(disk: FickleDisk): void {
    const plan = this.#plan;
    if (plan === undefined || (plan.disk !== 'any' && plan.disk !== disk.name)) return;
    plan.left -= 1;
    if (plan.left <= 0) this.cut();
  }

  /** Runs and answers a moment later, unless the power is cut until then. */
  async #later(work: () => void): Promise<void> {
    await delay(this.#random.below(3));
    if (this.#isCut) return this.silence();
    work();
  }

  #keep({ disk, offset, bytes }: Change): void {
    if (bytes.length <= SECTOR || this.#random.chance(0.7)) {
      disk.durable.set(bytes, offset);
      this.counts.kept += 1;
      return;
    }
    this.counts.torn += 1;
    const likelihood = this.#random.pick([0.1, 0.5, 0.9]);
    for (let at = 0; at < bytes.length; at += SECTOR) {
      if (!this.#random.chance(likelihood)) continue;
      disk.durable.set(bytes.subarray(at, at + SECTOR), offset + at);
    }
  }
}

/** Asked on a thread: the answer comes from this process, by way of nbdfuse. */
async function isThere(path: string): Promise<void> {
  for (let waitedMs = 0; waitedMs < MOUNT_MS_MAX; waitedMs += 10) {
    const found = await stat(path).catch(() => undefined);
    if (found !== undefined && found.size > 0) return;
    await delay(10);
  }
  throw new Error(`nbdfuse does not make ${path}`);
}

async function killed(fuse: ChildProcess): Promise<void> {
  if (fuse.exitCode !== null || fuse.signalCode !== null) return;
  const gone = once(fuse, 'exit');
  fuse.kill('SIGKILL');
  await gone;
}

async function unmounted(path: string): Promise<void> {
  const mountPoint = join(path, '..');
  for (let tries = 0; tries < 100; tries++) {
    const { code } = await runToEnd('fusermount3', ['-u', mountPoint]);
    if (code === 0) return;
    await delay(50);
  }
  throw new Error(`${mountPoint} can not be unmounted`);
}
