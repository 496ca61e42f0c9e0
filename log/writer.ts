/**
 * Group commit: takes what the stream has sealed to the log device, and makes it durable.
 *
 * One write is under way at a time, and while it is, the next commit fills; syncs run beside
 * writes, one at a time on the whole device. Invariants:
 *   - durable <= written <= sealed <= next; all but `written` only grow.
 *   - A sync covers the writes that had settled when it began, and nothing later.
 *   - What is durable is stated so soon after, and that is durable itself after a second of silence: else
 *     rot in the last batch would pass for a torn tail.
 *   - A failed sync is believed in nothing: it swallowed the report for every page that was dirty.
 *     So all that was written since the last good sync is written again, in other slots, and
 *     synced, before anybody is answered. Where that fails too the writer has failed for good.
 */
import { assert } from '../src/base/assert.ts';
import { isVarveError, VarveError } from '../src/base/errors.ts';
import { Mutex } from '../src/base/mutex.ts';
import { BLOCK_BYTES, lsn, type Checksum, type Generation, type Lsn } from '../src/base/units.ts';
import type { Timers } from '../src/base/world.ts';
import type { LowerDevice, SyncPoint } from '../src/device/lower-device.ts';
import { batchChecksum } from './batch.ts';
import type { Durable, Move } from './reslot.ts';
import { SegmentWriter, type SegmentWriterOptions } from './segment-writer.ts';
import type { LogStream, SealedBatch } from './stream.ts';

/** Acknowledged writes that nobody waits for reach the device after this. */
export const LINGER_MS = 2;
/** And are durable after this, though nobody asked. */
export const SYNC_IDLE_MS = 1000;
/** After a sync with nothing behind it, the doubt about the tail lasts this long. */
export const CLAIM_MS = 5;
/** So often what is in doubt is written again, each time elsewhere; then the writer gives up. */
export const RESLOTS_MAX = 2;
/** Before the last attempt of either: what failed for a moment may work again. */
export const RESLOT_PAUSE_MS = 500;
/** So often a superblock or checkpoint is written: once, and again after each failure. */
const KEEPS_MAX = 1 + RESLOTS_MAX;

interface Waiter {
  readonly lsn: Lsn;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export interface WriterOptions extends SegmentWriterOptions {
  readonly device: LowerDevice;
  readonly timers: Timers;
  readonly durable: Durable;
  /** Checksum of the last header before the durable position. */
  readonly chain: Checksum;
  /** After `durable` grew: those who wait for room look again. */
  readonly onDurable: () => void;
  /** The stream from `from` on lies elsewhere now. */
  readonly onReslot: (from: Lsn, moves: readonly Move[]) => void;
  readonly onFail: (error: VarveError) => void;
  /**
   * States elsewhere what is durable: the segment has no room for it. Durable when it returns.
   * @throws VarveError VOLUME_FAILED
   */
  readonly state: () => Promise<void>;
}

export class LogWriter {
  readonly #options: WriterOptions;
  readonly #slots: SegmentWriter;
  /** Held by whoever syncs, from the first write that only this sync is for. */
  readonly #gate = new Mutex();
  #stream: LogStream | undefined;
  #written: Lsn;
  #durable: Durable;
  #chain: Checksum;
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
  /** After a failure, until what is in doubt was written again. */
  #mending: Promise<void> | undefined;
  #cancelLinger: (() => void) | undefined;
  #cancelIdle: (() => void) | undefined;
  #cancelClaim: (() => void) | undefined;
  #failure: VarveError | undefined;
  #closing = false;
  syncs = 0;
  /** Writes and syncs that failed, and what the last of them said. */
  faults = 0;
  lastFault: string | undefined;

  constructor(options: WriterOptions) {
    this.#options = options;
    this.#slots = new SegmentWriter(options, options.durable.lsn);
    this.#chain = options.chain;
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

  /** Checksum of the last header before the durable position. */
  get durableChain(): Checksum {
    return this.#chain;
  }

  get bytesWritten(): number {
    return this.#slots.bytesWritten;
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
    this.#syncWhenIdle();
  }

  #syncWhenIdle(): void {
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
    this.#startSync();
  }

  /**
   * Writes something beside the stream, and syncs it: superblock or checkpoint.
   * @param work - writes it; asked again after a failure, whoever it was that failed
   * @throws VarveError VOLUME_FAILED
   */
  async keep(point: SyncPoint, work: () => Promise<void>): Promise<void> {
    let attempts = 0;
    let done = false;
    while (!done) {
      await this.#mending;
      if (attempts === KEEPS_MAX - 1) await this.#pause();
      if (this.#failure !== undefined) throw this.#failure;
      await this.#gate.run(async () => {
        if (this.#mending !== undefined || this.#failure !== undefined) return;
        attempts += 1;
        try {
          await work();
          await this.#options.device.sync(point);
          done = true;
        } catch (error) {
          if (attempts < KEEPS_MAX) this.#fault(error, `the log, for "${point}"`);
          else this.#fail(error, `the log, for "${point}", ${attempts} times`);
        }
      });
    }
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
    await this.#mending;
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
    if (queue === this.#durableWaiters) this.#startSync();
    await settled;
  }

  get #stopped(): boolean {
    return this.#failure !== undefined || this.#mending !== undefined;
  }

  #kick(): void {
    if (this.#writing !== undefined || this.#stopped) return;
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
        if (this.#stopped) return;
        if (stream.sealedLsn > this.#written) await this.#writeOnce(stream);
        else if (this.#urgent && stream.hasOpenBatch) {
          this.#urgent = false;
          stream.seal();
        } else return;
      }
    } catch (error) {
      this.#fault(error, 'writing the log');
    }
  }

  async #writeOnce(stream: LogStream): Promise<void> {
    const to = await this.#slots.write(this.#written, stream.sealedLsn, this.#sealed);
    this.#written = to;
    wake(this.#writtenWaiters, to);
  }

  #startSync(): void {
    if (this.#syncing !== undefined || this.#stopped) return;
    const work = this.#syncAll();
    this.#syncing = work;
    void work.then(() => {
      this.#syncing = undefined;
      if (this.#failure === undefined && this.#wantDurable > this.#durable.lsn) this.#startSync();
      else this.#claimLater();
    });
  }

  async #syncAll(): Promise<void> {
    try {
      while (this.#wantDurable > this.#durable.lsn && this.#failure === undefined) {
        if (this.#written <= this.#durable.lsn) {
          const next = lsn(this.#durable.lsn + BLOCK_BYTES);
          await this.waitWritten(next);
        }
        await this.#coverWaiters();
        await this.#gate.run(() => this.#syncOnce());
        await this.#mending;
      }
    } catch (error) {
      // Who waits for a write is told when there will be none.
      if (error !== this.#failure) throw error;
    }
  }

  async #syncOnce(): Promise<void> {
    const target = this.#written;
    if (this.#stopped || target <= this.#durable.lsn) return;
    try {
      await this.#options.device.sync('commit');
      this.syncs += 1;
      this.#advance(target);
    } catch (error) {
      this.#fault(error, 'syncing the log');
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
    const last = this.#sealed[count - 1];
    if (last !== undefined) this.#chain = batchChecksum(this.#options.ring.blockAt(last.lsn));
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
      if (!quiet || this.#failure !== undefined) return;
      if (!stream.canClaim) {
        void this.#state(this.#durable.lsn);
        return;
      }
      stream.putClaim();
      this.#claimed = stream.nextLsn;
      this.#kick();
      this.#syncWhenIdle();
    });
  }

  async #state(position: Lsn): Promise<void> {
    try {
      await this.#options.state();
      if (position > this.#claimed) this.#claimed = position;
    } catch (error) {
      // It was told to who waits, and no more is claimed.
      if (error !== this.#failure) throw error;
    }
  }

  /** A write or sync failed: all since the last good sync is in doubt, whoever wrote it. */
  #fault(cause: unknown, doing: string): void {
    if (!isVarveError(cause)) throw cause;
    if (this.#failure !== undefined) return;
    this.#note(cause, doing);
    this.#mending ??= this.#mend(cause, doing).then(() => {
      this.#mending = undefined;
      this.#resume();
    });
  }

  #note(cause: VarveError, doing: string): void {
    this.faults += 1;
    this.lastFault = `${doing}: ${cause.message}`;
  }

  /** What is in doubt goes from the ring into other slots, and is synced there. */
  async #mend(first: VarveError, doing: string): Promise<void> {
    // Until then the device may still look at the ring.
    await this.#writing;
    await this.#gate.run(async () => {
      let cause = first;
      for (let attempt = 1; attempt <= RESLOTS_MAX; attempt++) {
        const { lsn: from } = this.#durable;
        if (this.#slots.touched <= from) return;
        if (!this.#options.segments.canMove(from)) {
          this.#fail(cause, `${doing}, and no slot is free to write it again`);
          return;
        }
        if (attempt === RESLOTS_MAX) await this.#pause();
        try {
          await this.#reslot(from);
          return;
        } catch (error) {
          if (!isVarveError(error)) throw error;
          cause = error;
          this.#note(cause, 'writing the log again');
        }
      }
      this.#fail(cause, `${doing}, and again in ${RESLOTS_MAX} other places`);
    });
  }

  async #pause(): Promise<void> {
    await new Promise<void>((resume) => {
      this.#options.timers.after(RESLOT_PAUSE_MS, resume);
    });
  }

  async #reslot(from: Lsn): Promise<void> {
    const stream = this.#attached();
    const moves = stream.reslot(this.#chain);
    this.#options.onReslot(from, moves);
    this.#written = from;
    const target = stream.sealedLsn;
    while (this.#written < target) await this.#writeOnce(stream);
    const written = this.#written;
    await this.#options.device.sync('reslot');
    this.syncs += 1;
    this.#options.segments.moved();
    this.#advance(written);
  }

  /** What had to wait for the mending goes on. */
  #resume(): void {
    if (this.#failure !== undefined) return;
    const stream = this.#attached();
    if (stream.sealedLsn > this.#written || (this.#urgent && stream.hasOpenBatch)) this.#kick();
    if (this.#wantDurable > this.#durable.lsn) this.#startSync();
    else this.#claimLater();
  }

  /** Nothing is claimed durable from here on. */
  #fail(cause: unknown, doing: string): void {
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
