/**
 * What the parts of an open volume share: log, index, final storage, catalogue, pins, and the
 * numbers that say where the window stands. The parts are reader, appender, destager, moments.
 *
 * Invariants:
 *   - settled <= horizon <= durable <= head; each only grows.
 *   - Between rounds settled equals the horizon.
 */
import { assert } from '../base/assert.ts';
import { isVarveError, VarveError } from '../base/errors.ts';
import type { Uuid } from '../base/identity.ts';
import { Mutex } from '../base/mutex.ts';
import {
  BLOCK_BYTES,
  blockCount,
  lsn,
  type Block,
  type BlockCount,
  type ByteCount,
  type Generation,
  type Lsn,
  type Micros,
  type SegmentSequence,
} from '../base/units.ts';
import type { World } from '../base/world.ts';
import type { BlockIndex } from '../../index/block-index.ts';
import { FOUND_NONE } from '../../index/found.ts';
import { Pins, type PinHandle } from '../../index/pins.ts';
import type { SegmentReferences } from '../../index/segment-references.ts';
import type { Timeline } from '../../index/timeline.ts';
import type { CheckpointContent, Log } from '../../log/log.ts';
import type { Segment } from '../../log/segments.ts';
import type { ReadSegmentHeader } from '../../log/summary.ts';
import { decodeSegmentHeader } from '../../log/summary.ts';
import type { StampedMoment } from '../../log/superblock.ts';
import type { Catalogue } from './catalogue.ts';
import { Counters } from './counters.ts';
import type { FinalStorage } from './final-storage.ts';
import type { Keeping } from './keeping.ts';
import { Repairs } from './repairs.ts';
import type { ReadCache } from './read-cache.ts';
import type { RecoveryReport, WriteMode } from './report.ts';
import type { RetentionPolicy } from './retention-policy.ts';
import type { Undo } from './undo.ts';

/** Why a moment is kept. */
export type PinReason =
  | { readonly kind: 'snapshot'; readonly label: string }
  /** What a rollback brings back, until it has ended. */
  | { readonly kind: 'rollback' }
  /** What clients see, and what a giving up brings back, until a receive has ended. */
  | { readonly kind: 'receive' }
  /** An open disk is based on the snapshot. */
  | { readonly kind: 'base'; readonly label: string }
  /** An open export: never stops writers; `end` tells it that its moment is gone. */
  | { readonly kind: 'open'; readonly end: () => void };

/** What a receive that has begun goes on from; a whole disk goes on from nothing. */
export interface UnderReceive {
  readonly base: Generation;
  readonly isWhole: boolean;
}

/** Of a snapshot. */
interface Named {
  readonly label: string;
  readonly generation: Generation;
}

export interface CoreParts {
  readonly uuid: Uuid;
  readonly size: ByteCount;
  readonly world: World;
  readonly log: Log;
  readonly index: BlockIndex;
  readonly references: SegmentReferences;
  /** Headers of live segments, as they were read or written. */
  readonly segmentHeaders: Map<SegmentSequence, ReadSegmentHeader>;
  readonly timeline: Timeline;
  readonly pins: Pins<PinReason>;
  /** Of the snapshots, by label. */
  readonly snapshotPins: Map<string, PinHandle<PinReason>>;
  /** Of what the rollback brings back that the opening found unfinished. */
  readonly rollbackPin: PinHandle<PinReason> | undefined;
  /** Of what the receive is based on that the opening found unfinished. */
  readonly receivePin: PinHandle<PinReason> | undefined;
  readonly undo: Undo;
  readonly catalogue: Catalogue;
  readonly final: FinalStorage;
  readonly cache: ReadCache;
  readonly horizon: StampedMoment;
  readonly settled: Generation;
  readonly recovery: RecoveryReport;
  readonly readOnly: boolean;
  readonly writeMode: WriteMode;
  readonly retention: RetentionPolicy;
}

export class Core {
  readonly uuid: Uuid;
  readonly size: ByteCount;
  readonly blocks: BlockCount;
  readonly world: World;
  readonly log: Log;
  readonly index: BlockIndex;
  readonly references: SegmentReferences;
  /** Headers of live segments, as they were read or written. */
  readonly segmentHeaders: Map<SegmentSequence, ReadSegmentHeader>;
  readonly timeline: Timeline;
  readonly pins: Pins<PinReason>;
  /** Of the snapshots, by label. */
  readonly snapshotPins: Map<string, PinHandle<PinReason>>;
  /** Of what the rollback brings back that the opening found unfinished. */
  readonly rollbackPin: PinHandle<PinReason> | undefined;
  readonly undo: Undo;
  readonly catalogue: Catalogue;
  readonly final: FinalStorage;
  readonly repairs: Repairs;
  readonly cache: ReadCache;
  readonly recovery: RecoveryReport;
  readonly readOnly: boolean;
  readonly counters = new Counters();
  #writeMode!: WriteMode;
  retention: RetentionPolicy;
  horizon: StampedMoment;
  settled: Generation;
  /** Held while home locations and their sums are changed: by a round, or by a repair. */
  readonly home = new Mutex();
  /** Grows when a round begins to overwrite final storage and when it ends. */
  roundEpoch = 0;
  /** How far a round that did not get further has put before-images, in steps that it makes again. */
  keeping: Keeping | undefined;
  /** Labels of snapshots whose end somebody asked for, and which is not durable yet. */
  readonly ending = new Set<string>();
  /** Why nobody may read or write the live disk at present: a rollback is under way. */
  liveRefusal: (() => VarveError) | undefined;
  /** Positions of catalogue records that are put and not yet applied. */
  readonly pendingRecords = new Set<Lsn>();
  readonly #held = new Pins<undefined>();
  readonly #windows = new Map<PinHandle<PinReason>, PinHandle<undefined>>();
  #receiving: UnderReceive | undefined;
  #receivePin: PinHandle<PinReason> | undefined;
  readonly #stops = new Pins<undefined>();
  readonly #stoppedBy = new Map<PinHandle<PinReason>, PinHandle<undefined>>();
  #closed = false;
  #collecting: Promise<void> | undefined;

  constructor(parts: CoreParts) {
    this.uuid = parts.uuid;
    this.size = parts.size;
    this.blocks = blockCount(Math.ceil(parts.size / BLOCK_BYTES));
    this.world = parts.world;
    this.log = parts.log;
    this.index = parts.index;
    this.references = parts.references;
    this.segmentHeaders = parts.segmentHeaders;
    this.timeline = parts.timeline;
    this.pins = parts.pins;
    this.snapshotPins = parts.snapshotPins;
    this.rollbackPin = parts.rollbackPin;
    this.undo = parts.undo;
    this.catalogue = parts.catalogue;
    this.repairs = new Repairs(parts.final);
    this.final = parts.final;
    this.cache = parts.cache;
    this.horizon = parts.horizon;
    this.settled = parts.settled;
    this.recovery = parts.recovery;
    this.readOnly = parts.readOnly;
    this.writeMode = parts.writeMode;
    this.retention = parts.retention;
    const { receiving } = parts.catalogue;
    if (receiving !== undefined) {
      this.#receiving = { base: receiving.base, isWhole: parts.catalogue.isBlank };
    }
    this.#receivePin = parts.receivePin;
  }

  /**
   * A stream is being received: clients see the disk as it was before, and write nothing.
   * Undefined: nothing is.
   */
  get receiving(): UnderReceive | undefined {
    return this.#receiving;
  }

  /** What a receive goes on from is kept for as long as it is under way. */
  set receiving(receiving: UnderReceive | undefined) {
    if (receiving === this.#receiving) return;
    const before = this.#receivePin;
    this.#receiving = receiving;
    const isOfNothing = receiving === undefined || receiving.isWhole;
    this.#receivePin = isOfNothing ? undefined : this.pin(receiving.base, { kind: 'receive' });
    if (before !== undefined) this.unpin(before);
  }

  /** When a write is answered that asks for nothing else. */
  get writeMode(): WriteMode {
    return this.#writeMode;
  }

  set writeMode(mode: WriteMode) {
    this.#writeMode = mode;
    this.log.stream.answersWritten = mode === 'written';
  }

  get head(): Generation {
    return this.log.stream.generation;
  }

  /** The lineage that is written to. */
  get lineage(): Uuid {
    return this.catalogue.lineageOf(this.head, this.horizon.lineage);
  }

  /** The newest generation that is a state of the disk. */
  get shown(): Generation {
    return this.receiving?.base ?? this.head;
  }

  get closed(): boolean {
    return this.#closed;
  }

  markClosed(): void {
    this.#closed = true;
  }

  /** A segment was opened: its header is kept in memory while the segment lives. */
  keepHeader({ sequence, header }: Segment): void {
    // One that was written is known already.
    if (header === undefined) return;
    const decoded = decodeSegmentHeader(header, this.uuid);
    if (decoded !== undefined) this.segmentHeaders.set(sequence, decoded);
    const oldest = this.log.segments.oldest?.sequence ?? sequence;
    for (const known of this.segmentHeaders.keys()) {
      if (known >= oldest) break;
      this.segmentHeaders.delete(known);
    }
  }

  /** Lets others run: a round is long, and clients come first. */
  async yieldTurn(): Promise<void> {
    await new Promise<void>((resume) => {
      this.world.timers.after(0, resume);
    });
  }

  get failure(): VarveError | undefined {
    return this.log.writer.failure;
  }

  /** @throws VarveError CLOSED, READ_ONLY, VOLUME_FAILED */
  needWritable(): void {
    if (this.#closed) throw new VarveError('CLOSED', 'the volume is closed');
    if (this.readOnly) throw new VarveError('READ_ONLY', 'the volume was opened read-only');
    if (this.failure !== undefined) throw this.failure;
  }

  /** @throws VarveError RECEIVE_UNFINISHED */
  needNoReceive(what: string): void {
    if (this.receiving === undefined) return;
    const kept = this.receiving.isWhole ? 'it holds nothing whole yet' : 'it is as it was before';
    throw new VarveError('RECEIVE_UNFINISHED', `${what}; ${kept}`);
  }

  /** Every record of the catalogue before it is durable and applied. */
  get recordedLsn(): Lsn {
    return lsn(Math.min(this.log.writer.durable.lsn, ...this.pendingRecords));
  }

  /** What a checkpoint of the catalogue holds now. */
  checkpoint(): CheckpointContent {
    return { entries: this.catalogue.entries(), streamLsn: this.recordedLsn };
  }

  /** Whether reads at this generation find all that they need: it is in the window, or pinned. */
  isOpenable(generation: Generation): boolean {
    if (generation > this.head) return false;
    return generation >= this.horizon.generation || this.pins.isPinned(generation);
  }

  pin(generation: Generation, reason: PinReason): PinHandle<PinReason> {
    const { keeping, pins } = this;
    const isBelow = keeping !== undefined && generation < keeping.target;
    if (isBelow && !pins.isPinned(generation)) keeping.added.add(generation);
    return pins.add(generation, reason);
  }

  /** How many open disks are based on it. */
  basedOn({ label, generation }: Named): number {
    const reasons = this.pins.at(generation)?.reasons ?? [];
    return reasons.filter((reason) => reason.kind === 'base' && reason.label === label).length;
  }

  /** Whether retention may let it go: nobody stands on it, and nobody ends it already. */
  mayGo(snapshot: Named): boolean {
    const isBase = this.basedOn(snapshot) > 0 || this.receiving?.base === snapshot.generation;
    return !isBase && !this.ending.has(snapshot.label);
  }

  /**
   * Keeps a moment for somebody who reads it, and the window from there on until space is short.
   * @param end - when nothing can be kept for it any more
   */
  pinOpen(generation: Generation, end: () => void): PinHandle<PinReason> {
    const handle = this.pin(generation, { kind: 'open', end });
    this.#windows.set(handle, this.#held.add(generation, undefined));
    return handle;
  }

  /**
   * Keeps what a rollback brings back, and lets no round pass it, or the horizon when that is later:
   * what has to be put, and what was put, is known from the index.
   * @param known - the pin, when it is there already
   */
  pinRollback(generation: Generation, known?: PinHandle<PinReason>): PinHandle<PinReason> {
    const handle = known ?? this.pin(generation, { kind: 'rollback' });
    const { generation: horizon } = this.horizon;
    const stop = generation < horizon ? horizon : generation;
    this.#stoppedBy.set(handle, this.#stops.add(stop, undefined));
    return handle;
  }

  /** No round passes this generation, because of a rollback; or undefined. */
  get heldBack(): Generation | undefined {
    return this.#stops.smallest()?.generation;
  }

  /** A round was cut or failed, and writes the block again from the log: home may have a part of it. */
  isRedone(block: Block): boolean {
    const { generation } = this.horizon;
    return this.settled < generation && this.index.find(block, generation) !== FOUND_NONE;
  }

  /** The oldest moment of the window that is open: what is looked through from there on. */
  get oldestOpen(): Generation | undefined {
    const { generation } = this.horizon;
    if (this.#held.isPinned(generation)) return generation;
    return this.#held.smallestAbove(generation)?.generation;
  }

  /** A reason to keep a moment is gone; what only it needed is given back in the background. */
  unpin(handle: PinHandle<PinReason>): void {
    this.pins.remove(handle);
    const window = this.#windows.get(handle);
    if (window !== undefined) this.#held.remove(window);
    this.#windows.delete(handle);
    const stop = this.#stoppedBy.get(handle);
    if (stop !== undefined) this.#stops.remove(stop);
    this.#stoppedBy.delete(handle);
    if (this.pins.isPinned(handle.generation)) return;
    this.keeping?.added.delete(handle.generation);
    this.undo.unpinned(handle.generation);
    this.collect(false);
  }

  /**
   * Gives back segments of the undo device that nobody needs, when no round is under way.
   * @param joins - and looks whether some are better joined, which costs a look at all
   */
  collect(joins: boolean): void {
    const isIdle = !this.undo.hasGarbage && !(joins && this.undo.segments > 1);
    // Once it is closed: the next opening does it.
    if (this.readOnly || this.#closed || isIdle || this.#collecting !== undefined) return;
    const work = this.home.run(async () => {
      this.#collecting = undefined;
      await this.#collect();
    });
    this.#collecting = work.catch((error: unknown) => {
      // What can't be given back now is given back with what comes next.
      if (!isVarveError(error)) throw error;
    });
  }

  async #collect(): Promise<void> {
    const { undo } = this;
    await undo.collect();
    await undo.join(() => this.#recordUndoSlots());
    await undo.collect();
  }

  /** So that the next opening looks at all that were used. */
  async #recordUndoSlots(): Promise<void> {
    const { slotsUsed } = this.undo;
    if (slotsUsed <= this.log.superblock.undoSlots) return;
    await this.log.publish({ undoSlots: slotsUsed }, 'horizon');
  }

  /**
   * A round found no slot on the undo device.
   * @returns whether one was made
   */
  async makeUndoRoom(): Promise<boolean> {
    return await this.#frees(() => this.home.run(() => this.#collect()));
  }

  /**
   * A round that has `home` found no room: what nobody needs by now takes some.
   * @returns whether there was any
   */
  async freeUndo(): Promise<boolean> {
    return await this.#frees(() => this.undo.collect());
  }

  async #frees(work: () => Promise<void>): Promise<boolean> {
    const before = this.undo.segments;
    try {
      await work();
    } catch (error) {
      if (!isVarveError(error)) throw error;
    }
    return this.undo.segments < before;
  }

  /** What is being given back has been. */
  async collected(): Promise<void> {
    await this.#collecting;
    await this.home.run(() => Promise.resolve());
  }

  /**
   * What was freed on the undo device stays free.
   * @returns false when the device refuses or is full: the next opening has to look for leftovers, as
   *   after a crash. No data is lost.
   */
  async closeUndo(): Promise<boolean> {
    await this.collected();
    try {
      await this.#recordUndoSlots();
      await this.undo.close();
      return true;
    } catch (error) {
      if (!isVarveError(error)) throw error;
      return false;
    }
  }

  /** The oldest moment that opens: a round may end inside a rollback, whose end it is then. */
  get oldestMoment(): { readonly generation: Generation; readonly wallUs: Micros } {
    const { generation, wallUs } = this.horizon;
    return this.#behindRollback(generation) ?? { generation, wallUs };
  }

  /** What the oldest moment is when the horizon comes here. */
  momentFrom(generation: Generation): { readonly generation: Generation; readonly wallUs: Micros } {
    const wallUs = this.timeline.wallAt(generation);
    return this.#behindRollback(generation) ?? { generation, wallUs };
  }

  #behindRollback(at: Generation): ReturnType<Core['momentFrom']> | undefined {
    const generation = this.catalogue.rollbackAround(at)?.bound;
    return generation && { generation, wallUs: this.timeline.wallAt(generation) };
  }

  check(): void {
    assert(this.settled <= this.horizon.generation, 'settled never passes the horizon');
    assert(this.horizon.generation <= this.log.writer.durable.generation, 'a horizon is durable');
    assert(this.log.writer.durable.generation <= this.head, 'durable never passes the head');
    this.log.segments.check();
    this.index.check();
  }
}
