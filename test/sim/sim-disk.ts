/**
 * A disk that forgets: writes are readable at once and durable only by a sync that began after
 * they had settled. One handle of one life of the machine; `reopen` gives the next.
 *
 * Invariants:
 *   - Operations settle after a seeded virtual delay, so completions come in any order.
 *   - A buffer is borrowed until its operation settles: one that changed meanwhile is reported.
 *   - A handle of an ended life changes nothing, whatever is still asked of it.
 */
import { AssertionError } from 'node:assert';
import { assert } from '../../src/base/assert.ts';
import { crc32c } from '../../src/base/crc32c.ts';
import { VarveError } from '../../src/base/errors.ts';
import { byteCount, type ByteCount, type ByteOffset } from '../../src/base/units.ts';
import type { LowerDevice, SyncPoint } from '../../src/device/lower-device.ts';
import type { DiskFaults, FaultRange, SyncFault, WriteLie } from './disk-faults.ts';
import { Medium, type DiskCounters, type Handle, type SimDiskOptions } from './medium.ts';
import { Platter, SECTOR_BYTES, type Change } from './platter.ts';
import type { Life, Loss, PowerSupply } from './power-supply.ts';

/** Numbers of the digest. */
const OPERATION = { read: 1, write: 2, punch: 3, sync: 4 } as const;
const ANSWERED = 16;

interface Operation {
  readonly kind: keyof typeof OPERATION;
  readonly offset: number;
  readonly length: number;
  /** What a write carries, and its checksum at the beginning. */
  readonly sources: readonly Uint8Array[];
  readonly sourceChecksum: number;
  /** What it does to the disk, or to the caller's buffer, somewhere between begin and answer. */
  readonly effect: () => void;
  /** Runs when it is answered without an error. */
  readonly settle: () => void;
  /** Answered in place of success. */
  readonly fault: VarveError | undefined;
  isEffective: boolean;
  reject: (error: Error) => void;
}

export interface ReopenOptions {
  /** A write or punch is then a bug. */
  readonly readOnly?: boolean;
}

type Request = Omit<Operation, 'isEffective' | 'reject'>;

function sourcesChecksum(sources: readonly Uint8Array[]): number {
  let crc = 0;
  for (const source of sources) crc = crc32c(source, crc);
  return crc;
}

export class SimDisk implements LowerDevice, Handle {
  readonly name: string;
  readonly size: ByteCount;
  readonly #medium: Medium;
  readonly #life: Life;
  readonly #readOnly: boolean;
  readonly #inFlight = new Set<Operation>();
  #open = true;

  private constructor(medium: Medium, { readOnly = false }: ReopenOptions = {}) {
    this.#medium = medium;
    this.#readOnly = readOnly;
    this.name = medium.options.name;
    this.size = byteCount(medium.options.size);
    this.#life = medium.power.life;
    medium.addHandle(this);
  }

  /** A new disk, all zeros and all durable. */
  static create(power: PowerSupply, options: SimDiskOptions): SimDisk {
    return new SimDisk(new Medium(power, options, new Platter(options.size)));
  }

  get counters(): DiskCounters {
    return this.#medium.counters;
  }

  /** What the disk holds, past latency and faults: for models, and for damage on purpose. */
  get platter(): Platter {
    return this.#medium.platter;
  }

  /** A fresh handle on the same disk, for the current life. Faults and counters stay. */
  reopen(options: ReopenOptions = {}): SimDisk {
    assert(this.#medium.power.alive, 'power is restored before a disk is opened again');
    return new SimDisk(this.#medium, options);
  }

  /** An independent copy of the disk, such as a backup or another machine's. */
  copy(power: PowerSupply, options: Partial<SimDiskOptions> = {}): SimDisk {
    const merged = { ...this.#medium.options, ...options };
    return new SimDisk(new Medium(power, merged, this.#medium.platter.clone()));
  }

  // Faults, on purpose. Offsets and lengths are bytes.

  /** All that can go wrong with the disk from now on; outlives the handle. */
  get faults(): DiskFaults {
    return this.#medium.faults;
  }

  /** Bit rot: the bytes are there from now on, durable. */
  corrupt(offset: number, bytes: Uint8Array): void {
    this.#medium.platter.corrupt(offset, bytes);
  }

  /** Flips one bit of what is there. */
  corruptBit(offset: number, bit: number): void {
    const byte = new Uint8Array(1);
    this.#medium.platter.read(offset, byte);
    this.corrupt(offset, Uint8Array.of((byte[0] ?? 0) ^ (1 << bit)));
  }

  /** Reads that touch the range fail with DEVICE_IO, until the returned function is called. */
  failRead(range: FaultRange): () => void {
    return this.#medium.faults.failRead(range);
  }

  /** Writes and punches that touch the range fail with DEVICE_IO; writes may be done in part. */
  failWrite(range: FaultRange): () => void {
    return this.#medium.faults.failWrite(range);
  }

  failNextSync(fault: SyncFault): void {
    this.#medium.faults.failNextSync(fault);
  }

  /** The disk takes so many bytes in all, as a thin one does; writes beyond fail: DISK_FULL. */
  limitSpace(bytesMax: number | undefined): void {
    this.#medium.faults.allocatedBytesMax = bytesMax;
  }

  /** While full, overwrites go on, and whatever needs a new page fails with DISK_FULL. */
  setFull(isFull: boolean): void {
    this.limitSpace(isFull ? 0 : undefined);
  }

  // The port.

  async read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    const refused = this.#refused('read');
    if (refused !== undefined) return refused;
    const { counters, platter, faults } = this.#medium;
    counters.reads += 1;
    counters.bytesRead += target.length;
    const fault = faults.readFault(this.name, offset, target.length);
    const lie = fault === undefined ? faults.takeReadLie() : undefined;
    lie?.told({ offset, length: target.length });
    const from = this.#astray(offset, target.length, lie?.shift ?? 0);
    return this.#submit({
      kind: 'read',
      offset,
      length: target.length,
      sources: [target],
      sourceChecksum: 0,
      effect: () => {
        // Whoever uses a buffer after a failed read finds garbage, not yesterday's luck.
        if (fault === undefined) platter.read(from, target);
        else target.fill(0xdb);
      },
      settle: () => undefined,
      fault,
    });
  }

  async write(offset: ByteOffset, sources: readonly Uint8Array[]): Promise<void> {
    const refused = this.#refused('write');
    if (refused !== undefined) return refused;
    const { counters, platter, faults } = this.#medium;
    const length = sources.reduce((sum, source) => sum + source.length, 0);
    counters.writes += 1;
    counters.bytesWritten += length;
    const fault = faults.writeFault(this.name, platter, offset, length);
    const lie = fault === undefined ? faults.takeWriteLie() : undefined;
    let change: Change | undefined;
    return this.#submit({
      kind: 'write',
      offset,
      length,
      sources: [...sources],
      sourceChecksum: sourcesChecksum(sources),
      effect: () => {
        if (fault !== undefined) this.#writePart(offset, length, sources);
        else if (length > 0) {
          const to = this.#arrival(lie, offset, length, sources);
          if (to !== undefined) change = platter.write(to, sources);
        }
      },
      settle: () => {
        if (change !== undefined) change.settled = true;
      },
      fault,
    });
  }

  async punch(offset: ByteOffset, length: ByteCount): Promise<void> {
    const refused = this.#refused('punch');
    if (refused !== undefined) return refused;
    const { counters, platter, faults } = this.#medium;
    counters.punches += 1;
    counters.bytesPunched += length;
    const fault = faults.punchFault(this.name, offset, length);
    const lie = fault === undefined ? faults.takeWriteLie() : undefined;
    let change: Change | undefined;
    return this.#submit({
      kind: 'punch',
      offset,
      length,
      sources: [],
      sourceChecksum: 0,
      effect: () => {
        if (fault !== undefined || length === 0) return;
        const to = this.#arrival(lie, offset, length, []);
        if (to !== undefined) change = platter.punch(to, length);
      },
      settle: () => {
        if (change !== undefined) change.settled = true;
      },
      fault,
    });
  }

  async sync(point: SyncPoint): Promise<void> {
    const refused = this.#refused('sync');
    if (refused !== undefined) return refused;
    const { counters, platter, faults, options } = this.#medium;
    counters.syncs += 1;
    counters.syncsBy.set(point, (counters.syncsBy.get(point) ?? 0) + 1);
    const covered = options.skipSyncs?.has(point) === true ? [] : platter.settledChanges();
    const fault = faults.takeSyncFault(point);
    if (fault?.dropDirty === true) platter.forget(covered, { evict: fault.evict === true });
    return this.#submit({
      kind: 'sync',
      offset: 0,
      length: 0,
      sources: [],
      sourceChecksum: 0,
      effect: () => undefined,
      settle: () => {
        platter.makeDurable(covered);
      },
      fault: fault && new VarveError('DEVICE_IO', `${this.name}: sync ${point}: EIO (simulated)`),
    });
  }

  /** At once: it is not counted as an operation. */
  async allocated(): Promise<ByteCount> {
    await this.#refused('space');
    return byteCount(this.platter.allocatedBytes);
  }

  async close(): Promise<void> {
    this.#open = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** The life of this handle has ended, with operations in flight. */
  abandon(loss: Loss): void {
    this.#open = false;
    for (const operation of this.#inFlight) {
      if (!operation.isEffective) this.#abandonEffect(operation, loss);
      if (this.#medium.power.afterLoss === 'reject') operation.reject(this.#gone(operation.kind));
    }
    this.#inFlight.clear();
  }

  /** Before a cut all may have reached the cache; the cut takes from there. A kill stops midway. */
  #abandonEffect(operation: Operation, loss: Loss): void {
    if (operation.kind === 'read' || operation.kind === 'sync') return;
    this.#checkSources(operation);
    const { offset, length, sources, kind } = operation;
    const fate = loss === 'cut' ? 'whole' : this.#medium.random.pick(['none', 'whole', 'part']);
    if (fate === 'whole') operation.effect();
    if (fate === 'part' && kind === 'write') this.#writePart(offset, length, sources);
  }

  /** A beginning of the write, up to a sector's end, reaches the cache. */
  #writePart(offset: number, length: number, sources: readonly Uint8Array[]): void {
    const { random, platter } = this.#medium;
    const sectors = Math.floor(length / SECTOR_BYTES);
    const part = sectors === 0 ? 0 : random.below(sectors) * SECTOR_BYTES;
    if (part === 0) return;
    // In the cache like any other data: it never lands on top of what is written there later.
    platter.write(offset, [Buffer.concat(sources, length).subarray(0, part)]).settled = true;
  }

  /** Where a write or punch arrives; undefined: nowhere, whatever it claims. */
  #arrival(
    lie: WriteLie | undefined,
    offset: number,
    length: number,
    sources: readonly Uint8Array[],
  ): number | undefined {
    if (lie === undefined) {
      this.#medium.faults.watch?.(offset, length);
      return offset;
    }
    const { shift, told } = lie;
    const astray = shift === undefined ? undefined : this.#astray(offset, length, shift);
    const bytes = new Uint8Array(length);
    bytes.set(Buffer.concat(sources));
    told({ offset, length, bytes, astray });
    return astray;
  }

  #astray(offset: number, length: number, shift: number): number {
    return Math.max(0, Math.min(this.size - length, offset + shift));
  }

  /** Undefined for a handle that can be used. */
  #refused(kind: string): Promise<void> | undefined {
    if (!this.#life.alive) {
      if (this.#medium.power.afterLoss === 'reject') return Promise.reject(this.#gone(kind));
      return new Promise(() => {
        // Never: the machine that would answer is gone.
      });
    }
    if (this.#open) return undefined;
    return Promise.reject(new VarveError('CLOSED', `${this.name}: ${kind} after close`));
  }

  #gone(kind: string): VarveError {
    return new VarveError('DEVICE_IO', `${this.name}: ${kind}: the machine is gone (simulated)`);
  }

  #submit(request: Request): Promise<void> {
    const { kind, offset, length, sourceChecksum } = request;
    const { power, random, nameChecksum } = this.#medium;
    const { world } = power;
    const isInside = offset >= 0 && length >= 0 && offset + length <= this.size;
    assert(isInside, `${kind} at ${offset} of ${length} bytes lies inside ${this.name}`);
    const isChange = kind === 'write' || kind === 'punch';
    assert(!isChange || !this.#readOnly, `${this.name}, opened to be read, is not written`);
    this.#countOverlap(request);
    world.note(OPERATION[kind], nameChecksum, offset, length, sourceChecksum);
    return new Promise((resolve, reject) => {
      const operation: Operation = { ...request, isEffective: false, reject };
      this.#inFlight.add(operation);
      // Readers may see a write, and a read may look, long before the answer; or just before it.
      if (random.chance(0.5)) this.#takeEffect(operation);
      world.schedule(this.#medium.latencyUs(kind), () => {
        if (!this.#inFlight.has(operation)) return;
        this.#takeEffect(operation);
        this.#inFlight.delete(operation);
        this.#answer(operation, resolve);
      });
      power.count();
    });
  }

  #takeEffect(operation: Operation): void {
    if (operation.isEffective) return;
    operation.isEffective = true;
    operation.effect();
  }

  #answer(operation: Operation, resolve: () => void): void {
    const { kind, offset, length, sources, fault } = operation;
    this.#checkSources(operation);
    const read = kind === 'read' ? sourcesChecksum(sources) : 0;
    const { power, nameChecksum } = this.#medium;
    power.world.note(OPERATION[kind] + ANSWERED, nameChecksum, offset, length, read);
    if (fault !== undefined) {
      operation.reject(fault);
      return;
    }
    operation.settle();
    resolve();
  }

  /** Borrowed means unchanged: a real device may read the buffer at any time, and twice. */
  #checkSources({ kind, sources, sourceChecksum, offset }: Operation): void {
    if (kind !== 'write' || sourcesChecksum(sources) === sourceChecksum) return;
    const where = `${this.name}, write at ${offset}`;
    const message = `broken invariant: a buffer keeps its content until it is written (${where})`;
    this.#medium.power.world.fail(new AssertionError({ message }));
  }

  #countOverlap({ kind, offset, length }: Request): void {
    if (kind !== 'write' && kind !== 'punch') return;
    for (const other of this.#inFlight) {
      if (other.kind !== 'write' && other.kind !== 'punch') continue;
      if (offset < other.offset + other.length && other.offset < offset + length) {
        this.#medium.counters.overlaps += 1;
      }
    }
  }
}
