/**
 * Destaging: rounds that take the oldest segments' newest versions into final storage.
 *
 * A round: the new horizon is durable; then blocks and their sums are written and synced; then
 * `settled` and the new tail are durable; only then versions are dropped and slots recycled.
 * Redo from the log makes it idempotent, so a crash anywhere loses nothing.
 *
 * Invariants:
 *   - A round ends at a request boundary that is durable, and never behind the horizon.
 *   - Before it overwrites anything, what pins below its end need is kept on the undo device. Where
 *     that is full, automatic snapshots go, then open moments end, and then snapshots stop it.
 *   - Where the file system below is full, a round waits in its place, and goes on by itself.
 */
import { assert } from '../base/assert.ts';
import { isVarveError, VarveError } from '../base/errors.ts';
import { segmentSequence, type Generation } from '../base/units.ts';
import type { Segment } from '../../log/segments.ts';
import type { Core, PinReason } from './core.ts';
import { RANGE_RECORDS_MAX } from './water.ts';
import type { OtherCopies } from './other-copies.ts';
import { keepImages } from './keep-images.ts';
import type { Retention } from './retention.ts';
import { isDone, isPressed, roundTarget } from './round-target.ts';
import { planRound, settleBlocks, type Attempt, type Means, type RoundPlan } from './settle.ts';

/** Versions that are dropped in one go. */
const DROP_STEP = 2000;
/** After a failure of final storage: nothing is lost, so it is tried again. */
export const RETRY_MS = 1000;
/** So often it may fail before those who wait for room are told, and those who come at once. */
export const FAILURES_MAX = 3;

type OpenReason = Extract<PinReason, { kind: 'open' }>;

export class Destager {
  readonly #core: Core;
  readonly #copies: OtherCopies;
  readonly #retention: Retention;
  /** After slots or the index got room. */
  readonly #onRoom: () => void;
  #running: Promise<void> | undefined;
  #closing = false;
  /** Stands until what failed has worked. */
  #failure: VarveError | undefined;
  /** How often since then. */
  #failures = 0;
  /** Since the last good round: how often the log could not be read, by the chunk's first block. */
  readonly #unread = new Map<string, number>();
  #endPause: (() => void) | undefined;

  constructor(
    core: Core,
    { copies, retention }: { readonly copies: OtherCopies; readonly retention: Retention },
    onRoom: () => void,
  ) {
    this.#core = core;
    this.#copies = copies;
    this.#retention = retention;
    this.#onRoom = onRoom;
  }

  get running(): boolean {
    return this.#running !== undefined;
  }

  /** Why the round under way gets no further, until it does. */
  get failure(): VarveError | undefined {
    return this.#failure;
  }

  /** Called after appends and syncs: starts a round when the log or the index is past its mark. */
  poke(): void {
    if (!isPressed(this.#core)) return;
    if (this.#target(false) !== undefined) this.#start();
    else if (this.#core.index.rangeRecords >= RANGE_RECORDS_MAX / 2) this.#waitsForSync();
  }

  /** A pin is gone: what found no room on the undo device may find some now. */
  unpinned(): void {
    // What was found no longer holds: who waits is told what the next attempt finds. No more than
    // one, or pins that come and go would have writers wait for ever.
    if (this.#failure?.code === 'UNDO_FULL') {
      const failures = Math.min(this.#failures, FAILURES_MAX - 1);
      this.#worked({ failure: undefined, failures });
    }
    this.#endPause?.();
    this.poke();
  }

  /**
   * Somebody waits for space.
   * @returns false when no round can free any: only an operator can
   */
  makeRoom(): boolean {
    if (this.#closing) return false;
    const recording = this.#core.pendingRecords.size > 0;
    if (this.#failure !== undefined) {
      // The first failures may pass; then who waits is told, unless a snapshot is just going.
      const isFull = this.#failure.code === 'UNDO_FULL';
      return this.#failures < FAILURES_MAX || (recording && isFull);
    }
    if (this.running) return true;
    const possible = this.#next(true) !== undefined;
    if (possible) this.#start(true);
    // What is not durable yet, or still read, frees itself.
    return possible || recording || this.#retireable() || this.#waitsForSync();
  }

  /** Finishes what a crash interrupted: final storage may hold a part of the last round. */
  redo(): void {
    if (this.#core.settled < this.#core.horizon.generation) this.#start();
  }

  /** Waits for the round under way; starts no more. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#endPause?.();
    await this.#running;
  }

  /** Recycles segments that hold nothing any more; called when a reader lets go, too. */
  recycle(): void {
    const { log, references, settled } = this.#core;
    let upTo: Segment | undefined;
    for (const segment of log.segments.live) {
      if (segment.sequence >= log.tail) break;
      assert(segment.lastGeneration <= settled, 'what is recycled is settled');
      // Held by a reader, or the round is still dropping what lies in it.
      if (references.readers(segment.sequence) > 0 || references.live(segment.sequence) > 0) break;
      upTo = segment;
    }
    if (upTo === undefined) return;
    for (const gone of log.segments.recycle(nextOf(upTo))) references.drop(gone.sequence);
    this.#onRoom();
  }

  #retireable(): boolean {
    const oldest = this.#core.log.segments.oldest;
    return oldest !== undefined && oldest.sequence < this.#core.log.tail;
  }

  #waitsForSync(): boolean {
    const { log, index } = this.#core;
    if (log.stream.nextLsn <= log.writer.durable.lsn) return false;
    if (index.rangeRecords >= RANGE_RECORDS_MAX / 2) {
      log.writer.requestDurable(log.stream.nextLsn);
      return true;
    }
    const oldest = log.segments.oldest;
    if (oldest?.endLsn === undefined) return false;
    if (isDone(this.#core, oldest, log.writer.durable.generation)) return false;
    if (oldest.lastGeneration > (this.#core.heldBack ?? Infinity)) return false;
    log.writer.requestDurable(log.stream.nextLsn);
    return true;
  }

  #start(urgent = false): void {
    if (this.running || this.#closing || this.#core.readOnly) return;
    const work = this.#rounds(urgent);
    this.#running = work;
    void work.then(() => {
      this.#running = undefined;
      this.#onRoom();
    });
  }

  async #rounds(urgent: boolean): Promise<void> {
    let again = true;
    while (again && !this.#closing && this.#core.failure === undefined) {
      const redo = this.#core.settled < this.#core.horizon.generation;
      const target = redo ? this.#core.horizon.generation : this.#next(urgent);
      if (target === undefined) {
        // A failure stands while it is tried again, and no longer: who waits asks anew.
        this.#worked({ failure: undefined, failures: 0 });
        return;
      }
      try {
        await this.#round(target);
        this.#worked({ failure: undefined, failures: 0 });
        again = isPressed(this.#core);
      } catch (error) {
        // Nothing was recycled: everything since the last good round is still in the log, and is
        // written again, all of it, before `settled` moves.
        // A full file system has no room for what is joined either.
        const lacksSlots = isVarveError(error, 'UNDO_FULL') && error.cause === undefined;
        if (!lacksSlots || !(await this.#core.makeUndoRoom())) await this.#failed(error);
      }
      this.#onRoom();
    }
  }

  readonly #attempt: Attempt = (step) => this.#untilRoom(step);

  /** The same for what is kept: automatic snapshots and open moments go before writers have to wait. */
  readonly #attemptKept: Attempt = (step) =>
    this.#untilRoom(async (pauses) => {
      try {
        await step();
      } catch (error) {
        // Once it may be over in a moment.
        const isLasting = isVarveError(error, 'DISK_FULL') && pauses > 0;
        const mayEnd = this.#retention.mayDrop || this.#openMoments().length > 0;
        if (!isLasting || !mayEnd) throw error;
        throw new VarveError('UNDO_FULL', error.detail, { cause: error });
      }
    });

  /**
   * A step that meets a full file system is tried again until there is space: what the round has
   * written so far was taken, and is synced with the rest. After any other failure the round is
   * made again, whole.
   */
  async #untilRoom(step: (pauses: number) => Promise<void>): Promise<void> {
    const before = { failure: this.#failure, failures: this.#failures };
    let pauses = 0;
    let frees = false;
    for (let tries = 1; ; tries++) {
      try {
        await step(pauses);
        if (tries > 1) this.#worked(before);
        return;
      } catch (error) {
        const goesOn = !this.#closing && this.#core.failure === undefined;
        if (!isVarveError(error, 'DISK_FULL') || !goesOn) throw error;
        // Snapshots that were deleted meanwhile give back room, and only here: the round has `home`.
        frees = !frees && (await this.#core.freeUndo());
        if (!frees && (await this.#failed(error))) pauses += 1;
      }
    }
  }

  /** @param left - what failed before and has not worked yet */
  #worked(left: { failure: VarveError | undefined; failures: number }): void {
    this.#failure = left.failure;
    this.#failures = left.failures;
  }

  /**
   * Notes a failure that may pass, tells those who wait, and settles when to try again.
   * @returns whether that was after the whole pause
   */
  async #failed(error: unknown): Promise<boolean> {
    if (!isVarveError(error)) throw error;
    if (error.code === 'UNDO_FULL' && (await this.#dropped())) return false;
    this.#failure = error;
    this.#failures += 1;
    this.#core.final.sidecar.unfinishedAfter = this.#core.log.superblock.settled;
    // There is no room for what they need: they say so from now on.
    if (error.code === 'UNDO_FULL') for (const moment of this.#openMoments()) moment.end();
    this.#onRoom();
    if (this.#closing) return false;
    const isWhole = await new Promise<boolean>((resume) => {
      const cancel = this.#core.world.timers.after(RETRY_MS, () => resume(true));
      this.#endPause = () => {
        cancel();
        resume(false);
      };
    });
    this.#endPause = undefined;
    return isWhole;
  }

  /** There is no room: automatic snapshots go first, and it is tried again. */
  async #dropped(): Promise<boolean> {
    try {
      if (this.#closing || !(await this.#retention.dropOldest())) return false;
      await this.#core.collected();
      this.#worked({ failure: undefined, failures: 0 });
      return true;
    } catch (error) {
      if (!isVarveError(error)) throw error;
      return false;
    }
  }

  #target(urgent: boolean): Generation | undefined {
    return roundTarget(this.#core, { urgent, youngFrom: this.#retention.youngFrom });
  }

  /** What was kept for a round that found no room goes on to count, unless it may not go so far now. */
  #next(urgent: boolean): Generation | undefined {
    const { keeping, heldBack } = this.#core;
    const isBeyond = keeping !== undefined && keeping.target > (heldBack ?? Infinity);
    return keeping === undefined || isBeyond ? this.#target(urgent) : keeping.target;
  }

  async #round(target: Generation): Promise<void> {
    const core = this.#core;
    assert(target >= core.horizon.generation, 'a round never ends before the horizon');
    assert(target <= core.log.writer.durable.generation, 'a round settles durable history only');
    const givesUp: Means['givesUp'] = (kind, first) => {
      const what = `${kind} ${first}`;
      const times = (this.#unread.get(what) ?? 0) + 1;
      this.#unread.set(what, times);
      return times >= FAILURES_MAX;
    };
    const makeRoom = (bytes: () => number): Promise<void> => this.#retention.makeRoom(bytes);
    const attempts = { attempt: this.#attempt, attemptKept: this.#attemptKept };
    const means: Means = { ...attempts, copies: this.#copies, givesUp, makeRoom };
    const isDone = await core.home.run(async () => {
      const isNew = target > core.log.superblock.horizon.generation;
      if (isNew) await this.#retention.leave(target);
      // Of a rollback that began meanwhile.
      if (target > (core.heldBack ?? Infinity)) return false;
      const plan = isNew ? await this.#announce(target, means) : undefined;
      core.roundEpoch += 1;
      core.final.sidecar.round = target;
      const settledBlocks = await settleBlocks(core, target, means, plan);
      await this.#finish(target, settledBlocks);
      return true;
    });
    if (!isDone) return;
    core.counters.rounds += 1;
    core.final.sidecar.unfinishedAfter = undefined;
    this.#unread.clear();
    // A pin that went meanwhile may have been all that needed what was put.
    core.collect(true);
  }

  /**
   * Makes the horizon durable, once everything is kept that pins below it need.
   * @returns what the round writes, where it was looked at
   */
  async #announce(target: Generation, means: Means): Promise<RoundPlan | undefined> {
    const core = this.#core;
    const horizon = {
      generation: target,
      lineage: core.catalogue.lineageOf(target, core.horizon.lineage),
      wallUs: core.timeline.wallAt(target),
      elapsedUs: core.timeline.elapsedAt(target),
    };
    // At once, so that no older moment is opened or pinned; back again when it goes no further.
    core.horizon = horizon;
    try {
      let plan: RoundPlan | undefined;
      const oldest = core.pins.smallest();
      if (oldest !== undefined && oldest.generation < target) {
        const newest = await planRound(core, target);
        plan = { newest, blank: await keepImages(core, target, newest, means) };
      }
      await core.log.publish({ horizon, undoSlots: core.undo.slotsUsed }, 'horizon');
      core.keeping = undefined;
      core.undo.passed();
      return plan;
    } catch (error) {
      core.horizon = core.log.superblock.horizon;
      throw error;
    }
  }

  /**
   * What the round under way keeps for who reads a moment, and for nobody else: what is kept for
   * another reason is not given back by ending who reads it.
   */
  #openMoments(): readonly OpenReason[] {
    const { pins, keeping } = this.#core;
    if (keeping === undefined) return [];
    return pins.list().flatMap(({ generation, reasons }) => {
      const open = reasons.filter((reason) => reason.kind === 'open');
      return generation < keeping.target && open.length === reasons.length ? open : [];
    });
  }

  async #finish(target: Generation, settledBlocks: number): Promise<void> {
    const core = this.#core;
    const { log, catalogue } = core;
    catalogue.forgetBefore(core.horizon.generation);
    const tail = log.segments.live.find((segment) => !isDone(core, segment, target));
    assert(tail !== undefined, 'the open segment is never recycled');
    const patch = { ...log.tailAt(tail), settled: target };
    const isProgress = target > core.settled || tail.sequence > log.superblock.tailSequence;
    assert(isProgress, 'a round gets further than the one before');
    await log.publishCheckpoint(() => core.checkpoint(), patch);
    core.settled = target;
    // Before the first version goes: who read across the round must not take its traces for rot.
    core.roundEpoch += 1;
    while (!core.index.dropSome(target, DROP_STEP)) await core.yieldTurn();
    core.timeline.drop(core.horizon.generation);
    core.counters.settledBlocks += settledBlocks;
    this.recycle();
  }
}

function nextOf(segment: Segment): Segment['sequence'] {
  return segmentSequence(segment.sequence + 1);
}
