/**
 * A volume: the stages put together. What exists is open and recovered; what is closed says so.
 *
 * The parts and who owns which law (docs/ARCHITECTURE.md): appender (one order, atomic requests),
 * log writer (prefix), reader (nothing silent), destager (bounded, pins hold), moments (any moment).
 */
import { VarveError } from '../base/errors.ts';
import type { Uuid } from '../base/identity.ts';
import {
  byteCount,
  type BlockCount,
  type ByteCount,
  type Generation,
  type Micros,
} from '../base/units.ts';
import type { World } from '../base/world.ts';
import type { BlockDevice } from '../device/block-device.ts';
import type { RequestPage } from '../device/request-record.ts';
import { Log, type KeepAside } from '../../log/log.ts';
import { Appender } from './appender.ts';
import { checkFits } from './check-fits.ts';
import { Core } from './core.ts';
import { Destager } from './destager.ts';
import { ElapsedClock } from './elapsed-clock.ts';
import { FinalStorage, type BaseOptions } from './final-storage.ts';
import { copyBase } from './flatten.ts';
import { undoSegmentBytes, type VolumeDevices } from './devices.ts';
import { describe, historyOf, type HistoryQuery } from './info.ts';
import { pinsOf } from './kept-pins.ts';
import { Hooks, randomNumber, startLog } from './log-hooks.ts';
import { LiveDevice, type LiveParts } from './live-device.ts';
import { LiveSessions, type LiveSession } from './live-sessions.ts';
import { MomentDevice } from './moment-device.ts';
import { betweenError, Moments, type ResolvedMoment } from './moments.ts';
import { OtherCopies } from './other-copies.ts';
import { VolumePast } from './past.ts';
import { ReadCache } from './read-cache.ts';
import { Reader } from './reader.ts';
import { OriginDisk, type OriginMoment } from './origin-disk.ts';
import { Receiver } from './receiver.ts';
import { RequestHistory, type RequestRange } from './requests.ts';
import { Recovery } from './recover.ts';
import { reportOf } from './recovery-report.ts';
import { Retention } from './retention.ts';
import { NO_RETENTION, type RetentionPolicy } from './retention-policy.ts';
import { Rollbacks, type RollbackRequest } from './rollback.ts';
import type {
  CheckReport,
  HistoryInterval,
  MarkInfo,
  Progress,
  RetentionReport,
  RollbackReport,
  ScrubReport,
  SnapshotInfo,
  Vacated,
  VolumeInfo,
  WriteMode,
} from './report.ts';
import { checkVolume, scrubVolume } from './scrub.ts';
import { Status } from './status.ts';
import { Undo } from './undo.ts';
import { compareWitnesses } from './witness.ts';

export interface VolumeOptions {
  /** Identity that the log must have. */
  readonly uuid: Uuid;
  readonly name: string;
  /** Size that the log must have been made for. */
  readonly size: ByteCount;
  readonly ringBytes: ByteCount;
  readonly writeMode: WriteMode;
  /** Replays in RAM and writes nothing. */
  readonly readOnly: boolean;
  readonly cacheBytes: ByteCount;
  /** Default: none. */
  readonly retention?: RetentionPolicy | undefined;
  /** Where the bytes of a cut go that reached a flush mark; default: they are only reported. */
  readonly keepAside?: KeepAside | undefined;
  /** What is there where the volume never wrote. */
  readonly base?: BaseOptions | undefined;
  /** There was a base once, all of which lies at home now. */
  readonly hadBase?: boolean | undefined;
  /** Told how an unfinished rollback goes on, which ends before the volume is there. */
  readonly onRollback?: Progress | undefined;
}

export class Volume {
  readonly name: string;
  readonly core: Core;
  /** What changed, and when. */
  readonly past: VolumePast;
  /** Takes what another volume sent. */
  readonly receiver: Receiver;
  readonly #reader: Reader;
  readonly #appender: Appender;
  readonly #destager: Destager;
  readonly #retention: Retention;
  readonly #moments: Moments;
  readonly #copies: OtherCopies;
  readonly #status: Status;
  readonly #liveParts: LiveParts;
  readonly #live: LiveDevice;
  readonly #sessions = new LiveSessions();
  readonly #rollbacks: Rollbacks;
  readonly #requests: RequestHistory;
  #closing: Promise<void> | undefined;
  #scrubbing: Promise<unknown> | undefined;

  private constructor(name: string, core: Core, clock: ElapsedClock, hooks: Hooks) {
    this.name = name;
    this.core = core;
    const copies = new OtherCopies(core);
    this.#copies = copies;
    this.#reader = new Reader(core, copies);
    const elapsedUs = (): Micros => clock.elapsedUs();
    this.#retention = new Retention(core, elapsedUs, () => this.#roomMayBeFree());
    this.#destager = new Destager(core, { copies, retention: this.#retention }, () =>
      this.#appender.wake(),
    );
    this.#appender = new Appender(core, this.#reader, {
      makeRoom: () => this.#destager.makeRoom(),
      failure: () => this.#destager.failure,
    });
    this.#moments = new Moments(core, elapsedUs, {
      onUnpin: () => this.#roomMayBeFree(),
      record: (put, count) => this.#appender.record(put, count),
    });
    this.#status = new Status(core, this.#moments);
    const [reader, appender, status] = [this.#reader, this.#appender, this.#status];
    this.#liveParts = { core, reader, appender, status };
    this.#live = new LiveDevice(this.#liveParts);
    this.#rollbacks = new Rollbacks(core, {
      moments: this.#moments,
      reader,
      appender,
      sessions: this.#sessions,
      onUnpin: () => this.#roomMayBeFree(),
    });
    this.past = new VolumePast(core, {
      moments: this.#moments,
      status: this.#status,
      reader: this.#reader,
      onUnpin: () => this.#roomMayBeFree(),
    });
    this.receiver = new Receiver(core, {
      appender: this.#appender,
      moments: this.#moments,
      reader: this.#reader,
    });
    this.#reader.onRelease = () => this.#destager.recycle();
    this.#requests = new RequestHistory(core, () => this.#destager.recycle());
    this.#listen(hooks);
    if (core.readOnly) return;
    this.#destager.redo();
    core.collect(true);
  }

  /** To what the log tells. */
  #listen(hooks: Hooks): void {
    const { core } = this;
    hooks.onSegment = (segment) => {
      core.references.open(segment.sequence, segment.firstLsn);
      core.keepHeader(segment);
      this.#destager.poke();
    };
    hooks.onSeal = (sealed) => {
      if (sealed.generation === hooks.timed) return;
      hooks.timed = sealed.generation;
      core.timeline.add({
        generation: sealed.generation,
        ...sealed.times,
        payloadBytes: byteCount(hooks.payloadBytes + this.#appender.payloadBytes),
        requests: sealed.generation,
        trims: hooks.trims + this.#appender.trims,
        trimmedBytes: byteCount(hooks.trimmedBytes + this.#appender.trimmedBytes),
      });
    };
    hooks.onDurable = () => {
      this.#appender.wake();
      this.#destager.poke();
    };
    hooks.onReslot = (from, moves) => {
      core.references.reslot(from, moves);
      for (const segment of core.log.segments.live) core.keepHeader(segment);
      // Slots are in use that were not.
      this.#destager.poke();
    };
    hooks.onFail = () => this.#appender.wake();
  }

  /**
   * @throws VarveError VOLUME_FOREIGN, VOLUME_CORRUPT, VERSION_UNKNOWN, RING_BAD, DEVICE_IO;
   *   nothing was written then
   */
  static async open(devices: VolumeDevices, options: VolumeOptions, world: World): Promise<Volume> {
    const startUs = world.clock.monotonicUs();
    let recovery: Recovery | undefined;
    const opened = await Log.replay(devices.log, (superblock, checkpoint) => {
      checkFits(options, superblock, devices);
      recovery = new Recovery(superblock, checkpoint, superblock.geometry.size);
      return recovery;
    });
    if (recovery === undefined) throw new VarveError('VOLUME_CORRUPT', 'nothing was replayed');
    const { uuid, size, cacheBytes } = options;
    const home = homeOf(devices, options, recovery.blocks);
    const { index, catalogue } = recovery;
    const { witnesses } = catalogue;
    const { settled } = opened.superblock;
    const horizon = opened.superblock.horizon.generation;
    home.sidecar.round = horizon;
    if (settled < horizon) home.sidecar.unfinishedAfter = settled;
    await compareWitnesses({ final: home, index, witnesses, horizon });
    const lasting = options.readOnly
      ? await Log.confirm(opened)
      : await Log.settleRecovery(opened, recovery, options.keepAside);
    const clock = new ElapsedClock(world, recovery);
    const kept = pinsOf(catalogue);
    const hooks = new Hooks(recovery);
    const log = startLog(lasting, recovery, { options, world, clock, hooks });
    const core = new Core({
      uuid,
      size,
      world,
      log,
      index,
      references: recovery.references,
      segmentHeaders: recovery.segmentHeaders,
      timeline: recovery.timeline,
      ...kept,
      undo: await Undo.open(devices.undo, {
        volume: uuid,
        segmentBytes: undoSegmentBytes(opened.superblock.geometry),
        cacheBytes: byteCount(cacheBytes / 4),
        opening: randomNumber(world.random),
        slotsUsed: opened.superblock.undoSlots,
        horizon: () => log.superblock.horizon.generation,
        readOnly: options.readOnly,
        isClean: opened.superblock.clean,
        now: () => ({ wallUs: clock.wallUs(), elapsedUs: clock.elapsedUs() }),
        pins: kept.pins,
      }),
      catalogue,
      final: home,
      cache: new ReadCache(cacheBytes),
      horizon: opened.superblock.horizon,
      settled: opened.superblock.settled,
      recovery: reportOf(
        { ...opened, unkept: lasting.unkept },
        recovery,
        (world.clock.monotonicUs() - startUs) / 1000,
      ),
      readOnly: options.readOnly,
      writeMode: options.writeMode,
      retention: options.retention ?? NO_RETENTION,
    });
    const volume = new Volume(options.name, core, clock, hooks);
    if (!options.readOnly) await volume.#rollbacks.complete(options.onRollback ?? noProgress);
    return volume;
  }

  get size(): ByteCount {
    return this.core.size;
  }

  get uuid(): Uuid {
    return this.core.uuid;
  }

  live(): BlockDevice {
    return this.#live;
  }

  /**
   * The live disk for a client, who is counted while it has it.
   * @throws VarveError ROLLBACK_RUNS, ROLLBACK_UNFINISHED
   */
  openLive(): LiveSession {
    const refusal = this.core.liveRefusal;
    if (refusal !== undefined) throw refusal();
    return this.#sessions.open((onClose) => new LiveDevice(this.#liveParts, onClose));
  }

  /**
   * The disk becomes again what it was at a moment; that is history too, and can be undone.
   * @throws VarveError as `Rollbacks.run`
   */
  rollback(request: RollbackRequest, progress: Progress): Promise<RollbackReport> {
    return this.#rollbacks.run(request, progress);
  }

  /** Nobody has the live disk open any more. @throws VarveError as `Rollbacks.vacate` */
  vacate(force: boolean): Promise<Vacated> {
    return this.#rollbacks.vacate(force);
  }

  /** @param moment - what stands behind the `@` */
  resolve(moment: string): Promise<ResolvedMoment> {
    return Promise.resolve().then(() => this.#moments.resolve(moment));
  }

  /** Pins the moment until the device is closed. */
  openMoment({ generation }: { readonly generation: Generation }): BlockDevice {
    if (!this.core.isOpenable(generation)) {
      throw new VarveError('MOMENT_OUTSIDE', `generation ${generation} left the window`);
    }
    const around = this.core.catalogue.rollbackAround(generation);
    if (around !== undefined) {
      throw betweenError(around, generation, around === this.core.catalogue.unfinished);
    }
    const onUnpin = (): void => this.#roomMayBeFree();
    return new MomentDevice(this.core, this.#reader, this.#status, { generation, onUnpin });
  }

  /**
   * A snapshot for other volumes that are based on it; it can't be deleted until that is closed.
   * @throws VarveError BASE_MISSING, BASE_CHANGED
   */
  openOrigin(moment: OriginMoment): OriginDisk {
    return new OriginDisk(this.core, this.#reader, this.#status, moment);
  }

  /**
   * Copies what is missing of what the volume is based on, and lets that go. The caller has made it
   * durable that it is under way, and makes it durable that it has ended, in `dropped`.
   * @returns blocks that were copied
   * @throws VarveError SCRUB_RUNS and as `copyBase`; it can be asked for again then
   */
  flatten(dropped: () => Promise<void>, progress: Progress): Promise<number> {
    return this.#scrubbed(async () => {
      const copied = await copyBase(this.core, progress);
      await dropped();
      await this.core.final.dropBase();
      return copied;
    });
  }

  /** A name of a metadata context that goes on to mean what this one means now. */
  fixedContext(context: string): string {
    return this.#status.fixed(context);
  }

  info(): Promise<VolumeInfo> {
    return describe(this.core, this.#moments, {
      roundFailure: this.#destager.failure,
      rollbackFailure: this.#rollbacks.failure,
      liveSessions: this.#sessions.count,
      receive: this.receiver.info(),
      retention: this.#retention.info(),
    });
  }

  history(query: HistoryQuery): readonly HistoryInterval[] {
    return historyOf(this.core, this.#moments, query);
  }

  /**
   * Requests of the window in order, a page at a time.
   * @throws VarveError MOMENT_OUTSIDE, VOLUME_CORRUPT, DEVICE_IO
   */
  requests(range: RequestRange): Promise<RequestPage> {
    return this.#requests.page(range);
  }

  snapshots(): readonly SnapshotInfo[] {
    return this.#moments.snapshots();
  }

  createSnapshot(label: string, moment?: string): Promise<SnapshotInfo> {
    return this.#moments.createSnapshot(label, moment);
  }

  async deleteSnapshot(label: string): Promise<void> {
    await this.#moments.deleteSnapshot(label);
    await this.#retention.deleted();
  }

  mark(label: string): Promise<MarkInfo> {
    return this.#moments.mark(label);
  }

  get writeMode(): WriteMode {
    return this.core.writeMode;
  }

  setWriteMode(mode: WriteMode): void {
    this.core.writeMode = mode;
  }

  /** @see Retention.apply */
  applyRetention(): Promise<void> {
    return this.#retention.apply();
  }

  /** @see Retention.setPolicy */
  setRetention(policy: RetentionPolicy): Promise<RetentionReport> {
    return this.#retention.setPolicy(policy);
  }

  /** Verifies everything; changes nothing. */
  check(progress: Progress): Promise<CheckReport> {
    const onRelease = (): void => this.#destager.recycle();
    return this.#scrubbed(() => checkVolume(this.core, this.#copies, { progress, onRelease }));
  }

  /**
   * Verifies everything, and repairs what another copy still has.
   * @param options - `bytesPerSecond`: 0 for no limit
   * @throws VarveError SCRUB_RUNS, READ_ONLY, VOLUME_FAILED, CLOSED; and what `progress` throws
   */
  async scrub(options: { bytesPerSecond: number; progress: Progress }): Promise<ScrubReport> {
    this.core.needWritable();
    const onRelease = (): void => this.#destager.recycle();
    const all = { ...options, repair: true, onRelease };
    return await this.#scrubbed(() => scrubVolume(this.core, this.#copies, all));
  }

  /** One at a time; the volume does not close under it. */
  async #scrubbed<T>(work: () => Promise<T>): Promise<T> {
    if (this.#scrubbing !== undefined) {
      throw new VarveError('SCRUB_RUNS', `of "${this.name}"`);
    }
    const running = work();
    this.#scrubbing = running;
    try {
      return await running;
    } finally {
      this.#scrubbing = undefined;
    }
  }

  /** Everything accepted becomes durable, and the superblock says that the end was in order. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.core.markClosed();
    this.#appender.wake();
    // Told first: a round that waits for space at home lets go of what a flatten waits for.
    const rounds = this.#destager.close();
    await Promise.allSettled([rounds, this.#scrubbing]);
    await this.#rollbacks.stopped();
    await rounds;
    await this.#retention.stopped();
    if (this.core.readOnly) return;
    let isUndoClosed = false;
    try {
      isUndoClosed = await this.core.closeUndo();
    } finally {
      // Whatever became of that: what was accepted is not in the undo device.
      await this.core.log.close(isUndoClosed);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #roomMayBeFree(): void {
    this.#destager.unpinned();
    this.#appender.wake();
  }
}

const noProgress: Progress = () => undefined;

function homeOf(
  { final, sums }: VolumeDevices,
  { uuid, cacheBytes, base, hadBase }: VolumeOptions,
  blocks: BlockCount,
): FinalStorage {
  // Sums are a 256th of what they stand for.
  const sumsCacheBytes = byteCount(cacheBytes / 4);
  const options = { final, sums, volume: uuid, blocks, base, hadBase };
  return new FinalStorage({ ...options, cacheBytes: sumsCacheBytes });
}
