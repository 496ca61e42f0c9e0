/**
 * Group commit: takes what the stream has sealed to the log device, and makes it durable.
 *
 * One write is under way at a time, and while it is, the next commit fills; syncs run beside
 * writes, one at a time. Invariants:
 *   - durable <= written <= sealed <= next, each only grows.
 *   - A sync covers the writes that had settled when it began, and nothing later.
 *   - After a failed write or sync nothing more is claimed durable: the writer has failed for good.
 */
import { assert } from '../src/base/assert.ts';
import { isVarveError, VarveError } from '../src/base/errors.ts';
import type { Uuid } from '../src/base/identity.ts';
import {
  BLOCK_BYTES,
  byteOffset,
  lsn,
  mebibytes,
  type Generation,
  type Lsn,
} from '../src/base/units.ts';
import type { Timers } from '../src/base/world.ts';
import type { LowerDevice, SyncPoint } from '../src/device/lower-device.ts';
import { slotOffset } from './geometry.ts';
import type { Ring } from './ring.ts';
import type { Segment, SegmentTable } from './segments.ts';
import type { Durable, LogStream, SealedBatch } from './stream.ts';
import { encodeSummary } from './summary.ts';

/** Acknowledged writes that nobody waits for reach the device after this. */
export const LINGER_MS = 2;
/** And are durable after this, though nobody asked. */
export const SYNC_IDLE_MS = 1000;
/** After a sync with nothing behind it, the doubt about the tail lasts this long. */
export const CLAIM_MS = 5;
const WRITE_BYTES_MAX = mebibytes(8);

interface Waiter {
  readonly lsn: Lsn;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export interface WriterOptions {
  readonly volume: Uuid;
  readonly device: LowerDevice;
  readonly ring: Ring;
  readonly segments: SegmentTable;
  readonly timers: Timers;
  readonly durable: Durable;
  /** After `durable` grew: those who wait for room look again. */
  readonly onDurable: () => void;
  readonly onFail: (error: VarveError) => void;
}

export class LogWriter {
  readonly #options: WriterOptions;
  #stream: LogStream | undefined;
  #written: Lsn;
  #durable: Durable;
  /** Where the stream's last batch with content ends. */
  #contentLsn: Lsn;
  /** A header that states durability up to here has been put. */
  #claimed: Lsn;
  #sealed: SealedBatch[] = [];
  #writtenWaiters: Waiter[] = [];
  #durableWaiters: Waiter[] = [];
  #wantDurable: Lsn;
  #urgent = false;
  #writing: Promise<void> | undefined;
  #syncing: Promise<void> | undefined;
  #cancelLinger: (() => void) | undefined;
  #cancelIdle: (() => void) | undefined;
  #cancelClaim: (() => void) | undefined;
  #failure: VarveError | undefined;
  #closing = false;
  bytesWritten = 0;
  syncs = 0;

  constructor(options: WriterOptions) {
    this.#options = options;
    this.#durable = options.durable;
    this.#written = options.durable.lsn;
    this.#contentLsn = options.durable.lsn;
    this.#claimed = lsn(0);
    this.#wantDurable = options.durable.lsn;
  }

  attach(stream: LogStream): void {
    this.#stream = stream;
  }

  get durable(): Durable {
    return this.#durable;
  }

  get written(): Lsn {
    return this.#written;
  }

  get failure(): VarveError | undefined {
    return this.#failure;
  }

  onSeal(sealed: SealedBatch): void {
    this.#sealed.push(sealed);
    if (sealed.content) this.#contentLsn = sealed.endLsn;
  }

  /** After something was put and nobody waits: it is written soon, and synced later. */
  linger(): void {
    const stream = this.#attached();
    if (stream.sealedLsn > this.#written) this.#kick();
    if (this.#cancelLinger === undefined) {
      this.#cancelLinger = this.#options.timers.after(LINGER_MS, () => {
        this.#cancelLinger = undefined;
        this.#urgent = true;
        this.#kick();
      });
    }
    if (stream.nextLsn - this.#durable.lsn > this.#options.ring.size / 2) {
      this.requestDurable(stream.nextLsn);
    }
    this.#cancelIdle ??= this.#options.timers.after(SYNC_IDLE_MS, () => {
      this.#cancelIdle = undefined;
      this.requestDurable(this.#attached().nextLsn);
    });
  }

  /** Settles when the stream up to `position` was handed to the device. */
  async waitWritten(position: Lsn): Promise<void> {
    if (position <= this.#written) return;
    await this.#wait(this.#writtenWaiters, position);
  }

  /** Settles when the stream up to `position` is durable. */
  async waitDurable(position: Lsn): Promise<void> {
    if (position <= this.#durable.lsn) return;
    if (position > this.#wantDurable) this.#wantDurable = position;
    await this.#wait(this.#durableWaiters, position);
  }

  /** Starts making the stream durable up to `position`, and waits for nobody. */
  requestDurable(position: Lsn): void {
    if (position <= this.#durable.lsn || this.#failure !== undefined) return;
    if (position > this.#wantDurable) this.#wantDurable = position;
    this.#urgent = true;
    this.#kick();
    this.#startSync('commit');
  }

  /** End of what a flush has to make durable: claims behind it don't count. */
  get contentEnd(): Lsn {
    const stream = this.#attached();
    return stream.hasOpenBatch ? stream.nextLsn : this.#contentLsn;
  }

  /** Everything written and durable, with a last batch that says so; then no more. */
  async close(): Promise<void> {
    this.#closing = true;
    for (const cancel of [this.#cancelLinger, this.#cancelIdle, this.#cancelClaim]) cancel?.();
    const stream = this.#attached();
    if (this.#failure === undefined) {
      stream.seal();
      await this.waitDurable(stream.nextLsn);
      if (this.#claimed < this.#durable.lsn && stream.canClaim) {
        stream.putClaim();
        await this.waitDurable(stream.nextLsn);
      }
    }
    await this.#writing;
    await this.#syncing;
    for (const cancel of [this.#cancelLinger, this.#cancelIdle, this.#cancelClaim]) cancel?.();
  }

  #attached(): LogStream {
    assert(this.#stream !== undefined, 'the writer has its stream');
    return this.#stream;
  }

  async #wait(queue: Waiter[], position: Lsn): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    const settled = new Promise<void>((resolve, reject) => {
      queue.push({ lsn: position, resolve, reject });
    });
    this.#urgent = true;
    this.#kick();
    if (queue === this.#durableWaiters) this.#startSync('commit');
    await settled;
  }

  #kick(): void {
    if (this.#writing !== undefined || this.#failure !== undefined) return;
    const work = this.#writeAll();
    this.#writing = work;
    void work.then(() => {
      this.#writing = undefined;
      if (this.#attached().sealedLsn > this.#written || this.#urgent) {
        if (this.#attached().hasOpenBatch || this.#attached().sealedLsn > this.#written) {
          this.#kick();
        } else this.#urgent = false;
      }
    });
  }

  async #writeAll(): Promise<void> {
    // One turn of the microtask queue: what arrived together is committed together.
    await Promise.resolve();
    const stream = this.#attached();
    try {
      for (;;) {
        if (this.#failure !== undefined) return;
        if (stream.sealedLsn > this.#written) await this.#writeOnce(stream);
        else if (this.#urgent && stream.hasOpenBatch) {
          this.#urgent = false;
          stream.seal();
        } else return;
      }
    } catch (error) {
      this.fail(error, 'writing the log');
    }
  }

  async #writeOnce(stream: LogStream): Promise<void> {
    const { device, ring, segments } = this.#options;
    const from = this.#written;
    const segment = segments.find(from);
    const end = segment.endLsn ?? stream.sealedLsn;
    const to = this.#wholeBatches(from, lsn(Math.min(stream.sealedLsn, end)));
    const sources = ring.slices(from, to);
    let at = segments.place(segment, from);
    if (from === segment.firstLsn && segment.header !== undefined) {
      sources.unshift(segment.header);
      segment.header = undefined;
      at = byteOffset(at - BLOCK_BYTES);
    }
    await device.write(at, sources);
    this.bytesWritten += to - from;
    if (segment.endLsn === to) await this.#writeSummary(segment);
    this.#written = to;
    wake(this.#writtenWaiters, to);
  }

  /**
   * Where one write ends: at a batch's end, because what is written may be stated durable, and half
   * a batch that is stated durable would be taken for damage after a cut.
   */
  #wholeBatches(from: Lsn, end: Lsn): Lsn {
    if (end - from <= WRITE_BYTES_MAX) return end;
    let to = from;
    for (const { endLsn } of this.#sealed) {
      if (endLsn > from + WRITE_BYTES_MAX) break;
      if (endLsn > to) to = endLsn;
    }
    assert(to > from, 'a batch fits one write');
    return to;
  }

  async #writeSummary(segment: Segment): Promise<void> {
    const headers = segment.summary;
    segment.summary = undefined;
    if (headers === undefined || segment.endLsn === undefined) return;
    const { device, segments, volume } = this.#options;
    const bytes = encodeSummary(volume, segment.sequence, segment.endLsn, headers);
    const slotEnd = slotOffset(segments.geometry, segment.slot) + segments.geometry.segmentBytes;
    const used = segments.place(segment, lsn(segment.endLsn - BLOCK_BYTES)) + BLOCK_BYTES;
    assert(slotEnd - bytes.length >= used, 'a summary never overlaps its batches');
    await device.write(byteOffset(slotEnd - bytes.length), [bytes]);
    this.bytesWritten += bytes.length;
  }

  #startSync(point: SyncPoint): void {
    if (this.#syncing !== undefined || this.#failure !== undefined) return;
    const work = this.#syncAll(point);
    this.#syncing = work;
    void work.then(() => {
      this.#syncing = undefined;
      if (this.#failure === undefined && this.#wantDurable > this.#durable.lsn) {
        this.#startSync('commit');
      } else this.#claimLater();
    });
  }

  async #syncAll(point: SyncPoint): Promise<void> {
    try {
      while (this.#wantDurable > this.#durable.lsn && this.#failure === undefined) {
        if (this.#written <= this.#durable.lsn) {
          const next = lsn(this.#durable.lsn + BLOCK_BYTES);
          await this.waitWritten(next);
        }
        await this.#coverWaiters();
        const target = this.#written;
        await this.#options.device.sync(point);
        this.syncs += 1;
        if (this.#failure === undefined) this.#advance(target);
      }
    } catch (error) {
      this.fail(error, 'syncing the log');
    }
  }

  /** When a write that the oldest waiter needs is under way, the sync waits for it: one, not two. */
  async #coverWaiters(): Promise<void> {
    const first = this.#durableWaiters[0];
    if (first !== undefined && first.lsn > this.#written) await this.waitWritten(first.lsn);
  }

  #advance(target: Lsn): void {
    let { generation } = this.#durable;
    let count = 0;
    for (const sealed of this.#sealed) {
      if (sealed.endLsn > target) break;
      generation = sealed.generation;
      count += 1;
    }
    this.#sealed.splice(0, count);
    this.#durable = { generation: generation satisfies Generation, lsn: target };
    wake(this.#durableWaiters, target);
    this.#options.onDurable();
  }

  #claimLater(): void {
    if (this.#closing || this.#failure !== undefined || this.#cancelClaim !== undefined) return;
    this.#cancelClaim = this.#options.timers.after(CLAIM_MS, () => {
      this.#cancelClaim = undefined;
      const stream = this.#attached();
      const quiet = stream.nextLsn === this.#durable.lsn && this.#claimed < this.#durable.lsn;
      if (!quiet || this.#failure !== undefined || !stream.canClaim) return;
      stream.putClaim();
      this.#claimed = stream.nextLsn;
      this.#kick();
    });
  }

  /** Nothing is claimed durable from here on. */
  fail(cause: unknown, doing: string): void {
    if (!isVarveError(cause)) throw cause;
    if (this.#failure !== undefined) return;
    this.#failure = new VarveError('VOLUME_FAILED', `${doing}: ${cause.message}`, { cause });
    const waiters = [...this.#writtenWaiters, ...this.#durableWaiters];
    this.#writtenWaiters = [];
    this.#durableWaiters = [];
    for (const waiter of waiters) waiter.reject(this.#failure);
    this.#options.onFail(this.#failure);
  }
}

function wake(queue: Waiter[], position: Lsn): void {
  let count = 0;
  for (const waiter of queue) {
    if (waiter.lsn > position) break;
    count += 1;
  }
  for (const waiter of queue.splice(0, count)) waiter.resolve();
}
