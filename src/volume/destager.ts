/**
 * Destaging: rounds that take the oldest segments' newest versions into final storage.
 *
 * A round: the new horizon is durable; then blocks and their sums are written and synced; then
 * `settled` and the new tail are durable; only then versions are dropped and slots recycled.
 * Redo from the log makes it idempotent, so a crash anywhere loses nothing.
 *
 * Invariants:
 *   - A round ends at a request boundary that is durable, and never behind the horizon.
 *   - It never passes a snapshot. Open moments stop it only until space is short; then they end.
 */
import { assert } from '../base/assert.ts';
import { isVarveError, type VarveError } from '../base/errors.ts';
import {
  generation as generationOf,
  gibibytes,
  segmentSequence,
  type Generation,
} from '../base/units.ts';
import type { Segment } from '../../log/segments.ts';
import type { Core } from './core.ts';
import { RANGE_RECORDS_MAX } from './core.ts';
import { settleBlocks } from './settle.ts';

/** A round starts when this part of the slots is in use, */
export const HIGH_WATER = 0.75;
/** and frees down to this. */
export const LOW_WATER = 0.5;
/** From here on open moments no longer stop rounds. */
export const CRITICAL_WATER = 0.875;
/** Stream that one round settles at most: bounds its memory. */
const ROUND_BYTES_MAX = gibibytes(1);
/** Versions that are dropped in one go. */
const DROP_STEP = 2000;
/** After a failure of final storage: nothing is lost, so it is tried again. */
const RETRY_MS = 1000;
const FAILURES_MAX = 3;

export class Destager {
  readonly #core: Core;
  /** After slots or the index got room. */
  readonly #onRoom: () => void;
  #running: Promise<void> | undefined;
  #closing = false;
  #failure: VarveError | undefined;
  /** Rounds that failed since the last good one. */
  #failures = 0;
  #cancelRetry: (() => void) | undefined;

  constructor(core: Core, onRoom: () => void) {
    this.#core = core;
    this.#onRoom = onRoom;
  }

  get running(): boolean {
    return this.#running !== undefined;
  }

  /** Why the last round failed, until it is tried again. */
  get failure(): VarveError | undefined {
    return this.#failure;
  }

  /** Called after appends and syncs: starts a round when the log or the index is past its mark. */
  poke(): void {
    if (!this.#pressed()) return;
    if (this.#target(false) !== undefined) this.#start();
    else if (this.#core.index.rangeRecords >= RANGE_RECORDS_MAX / 2) this.#waitsForSync();
  }

  /**
   * Somebody waits for space.
   * @returns false when no round can free any: only an operator can
   */
  makeRoom(): boolean {
    if (this.running) return true;
    if (this.#closing) return false;
    // The first failures may pass; then who waits is told.
    if (this.#failure !== undefined) return this.#failures < FAILURES_MAX;
    const possible = this.#target(true) !== undefined;
    if (possible) this.#start(true);
    // What is not durable yet, or still read, frees itself.
    return possible || this.#retireable() || this.#waitsForSync();
  }

  /** Finishes what a crash interrupted: final storage may hold a part of the last round. */
  redo(): void {
    if (this.#core.settled < this.#core.horizon.generation) this.#start();
  }

  /** Waits for the round under way; starts no more. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#cancelRetry?.();
    await this.#running;
  }

  /** Recycles segments that hold nothing any more; called when a reader lets go, too. */
  recycle(): void {
    const { log, references, settled } = this.#core;
    let upTo: Segment | undefined;
    for (const segment of log.segments.live) {
      if (segment.sequence >= log.superblock.tailSequence) break;
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
    return oldest !== undefined && oldest.sequence < this.#core.log.superblock.tailSequence;
  }

  #waitsForSync(): boolean {
    const { log, oldestSnapshot, index } = this.#core;
    if (log.stream.nextLsn <= log.writer.durable.lsn) return false;
    if (index.rangeRecords >= RANGE_RECORDS_MAX / 2 && oldestSnapshot === undefined) {
      log.writer.requestDurable(log.stream.nextLsn);
      return true;
    }
    const oldest = log.segments.oldest;
    if (oldest?.endLsn === undefined) return false;
    if (oldest.lastGeneration <= log.writer.durable.generation) return false;
    if (oldestSnapshot !== undefined && oldest.lastGeneration > oldestSnapshot.generation) {
      return false;
    }
    log.writer.requestDurable(log.stream.nextLsn);
    return true;
  }

  #fill(): number {
    const { log } = this.#core;
    return 1 - log.segments.freeSlots / log.geometry.slotCount;
  }

  #pressed(): boolean {
    return this.#fill() >= HIGH_WATER || this.#core.index.rangeRecords >= RANGE_RECORDS_MAX / 2;
  }

  #start(urgent = false): void {
    if (this.running || this.#closing || this.#failure !== undefined || this.#core.readOnly) return;
    const work = this.#rounds(urgent);
    this.#running = work;
    void work.then(() => {
      this.#running = undefined;
      this.#onRoom();
    });
  }

  async #rounds(urgent: boolean): Promise<void> {
    try {
      let again = true;
      while (again && !this.#closing && this.#core.failure === undefined) {
        const redo = this.#core.settled < this.#core.horizon.generation;
        const target = redo ? this.#core.horizon.generation : this.#target(urgent);
        if (target === undefined) return;
        await this.#round(target);
        this.#onRoom();
        again = this.#pressed();
      }
    } catch (error) {
      if (!isVarveError(error)) throw error;
      // Nothing was recycled: everything since the last good round is still in the log, and is
      // written again, all of it, before `settled` moves.
      this.#failure = error;
      this.#failures += 1;
      this.#cancelRetry = this.#core.world.timers.after(RETRY_MS, () => {
        this.#cancelRetry = undefined;
        this.#failure = undefined;
        this.#start(urgent);
      });
    }
  }

  /**
   * The generation that the next round settles, or undefined when it would free nothing.
   * @param urgent - open moments don't count
   */
  #target(urgent: boolean): Generation | undefined {
    const core = this.#core;
    const { log, settled } = core;
    const durable = log.writer.durable.generation;
    let limit: number = Math.min(durable, core.oldestSnapshot?.generation ?? durable);
    if (!urgent && this.#fill() < CRITICAL_WATER) {
      limit = Math.min(limit, core.pins.smallest()?.generation ?? limit);
    }
    const wanted = Math.max(1, Math.floor(log.geometry.slotCount * (1 - LOW_WATER)));
    let target: Generation | undefined;
    let free = log.segments.freeSlots;
    const first = log.superblock.tailLsn;
    for (const segment of log.segments.live) {
      if (segment.endLsn === undefined || segment.lastGeneration > limit) break;
      if (segment.sequence < log.superblock.tailSequence) continue;
      target = segment.lastGeneration;
      free += 1;
      if (free >= wanted || segment.endLsn - first >= ROUND_BYTES_MAX) break;
    }
    if (target === undefined && core.index.rangeRecords >= RANGE_RECORDS_MAX / 2) {
      const middle = core.index.rangesUpTo(generationOf(limit)).at(RANGE_RECORDS_MAX / 4);
      if (middle !== undefined) target = middle.generation;
    }
    return target === undefined ? undefined : generationOf(Math.max(target, settled));
  }

  async #round(target: Generation): Promise<void> {
    const core = this.#core;
    assert(target >= core.horizon.generation, 'a round never ends before the horizon');
    assert(target <= core.log.writer.durable.generation, 'a round settles durable history only');
    this.#endMoments(target);
    if (target > core.horizon.generation) {
      const horizon = {
        generation: target,
        lineage: core.catalogue.lineageOf(target, core.horizon.lineage),
        wallUs: core.timeline.wallAt(target),
        elapsedUs: core.timeline.elapsedAt(target),
      };
      core.horizon = horizon;
      await core.log.publish({ horizon }, 'horizon');
    }
    core.roundEpoch += 1;
    const settledBlocks = await settleBlocks(core, target);
    await this.#finish(target, settledBlocks);
    core.counters.rounds += 1;
    this.#failures = 0;
  }

  /** Moments that the round leaves behind say so from now on. */
  #endMoments(target: Generation): void {
    const { pins } = this.#core;
    for (let pin = pins.smallest(); pin !== undefined; pin = pins.smallest()) {
      if (pin.generation >= target) break;
      for (const reason of pin.reasons) {
        assert(reason.kind === 'open', 'a round never passes a snapshot');
        reason.end();
      }
    }
  }

  async #finish(target: Generation, settledBlocks: number): Promise<void> {
    const core = this.#core;
    const { log, catalogue } = core;
    catalogue.forgetBefore(core.horizon.generation);
    const tail = log.segments.live.find(
      (segment) => segment.endLsn === undefined || segment.lastGeneration > target,
    );
    assert(tail !== undefined, 'the open segment is never recycled');
    const patch = { ...log.tailAt(tail), settled: target };
    await log.publishCheckpoint(() => core.checkpoint(), patch);
    core.settled = target;
    while (!core.index.dropSome(target, DROP_STEP)) await core.yieldTurn();
    core.timeline.drop(core.horizon.generation);
    core.roundEpoch += 1;
    core.counters.settledBlocks += settledBlocks;
    this.recycle();
  }
}

function nextOf(segment: Segment): Segment['sequence'] {
  return segmentSequence(segment.sequence + 1);
}
