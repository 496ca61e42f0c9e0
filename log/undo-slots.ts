/**
 * Slots of the undo device: which are free, and that what was freed stays so.
 *
 * Invariants:
 *   - A slot that was used is free, being freed, of one segment, or kept aside: something in it could
 *     not be read, and the next opening may find it.
 *   - After a sync nothing comes back that was cleared before it. Where a crash or a failed sync has
 *     made that doubtful, it is cleared again before the next one.
 *   - What can't be cleared is there under a number that no other segment gets; the next opening
 *     clears it.
 */
import { assert } from '../src/base/assert.ts';
import { isVarveError, VarveError } from '../src/base/errors.ts';
import {
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  segmentSequence,
  slot as slotOf,
  type SegmentSequence,
  type Slot,
} from '../src/base/units.ts';
import type { LowerDevice } from '../src/device/lower-device.ts';
import { slotOffset, type LogGeometry } from './geometry.ts';
import type { UndoBatch, UndoSegment } from './undo-images.ts';
import type { UndoSurvey } from './undo-survey.ts';

/** Places that can't be cleared: with more of them the device as a whole is to blame. */
const STUCK_MAX = 16;
/**
 * Numbers that are left out behind the newest that is known, where a slot does not tell its own. Should
 * it be further on all the same, and be given again, then the next opening keeps one of the two aside.
 */
const NUMBERS_LEFT_OUT = 4096;

interface UndoSlotsParts {
  readonly device: LowerDevice;
  readonly geometry: LogGeometry;
  readonly survey: UndoSurvey;
  readonly segments: ReadonlyMap<SegmentSequence, UndoSegment>;
  /** The first so many were ever used. */
  readonly used: number;
  /** A segment lies where it can't be cleared, or may lie under a number up to this one. */
  readonly onStuck: (sequence: SegmentSequence) => void;
}

export class UndoSlots {
  readonly #parts: UndoSlotsParts;
  /** Of those that were used; the others follow them. */
  readonly #free: Slot[] = [];
  /** Into which a write failed. */
  readonly #refused = new Set<Slot>();
  /** Of them those that refused one while the device took others. */
  readonly #bad = new Set<Slot>();
  #used: number;
  /** Their holes are being punched. */
  readonly #freeing = new Set<Slot>();
  readonly #aside = new Set<Slot>();
  #hasLeftNumbers = false;
  /** Slots were freed, and a cut may take that back. */
  #isPunched = false;
  /** What was cleared may come back. */
  #isClearingLost = false;
  /** Why some places can't be cleared. */
  #stuck: VarveError[] = [];
  /** Batches that count for nothing, and are put again: they would be there twice. */
  readonly #leftovers: UndoBatch[] = [];

  constructor(parts: UndoSlotsParts) {
    this.#parts = parts;
    this.#used = parts.used;
  }

  get used(): number {
    return this.#used;
  }

  get free(): number {
    return this.#free.length + this.#parts.geometry.slotCount - this.#used;
  }

  /** @returns undefined when none is free */
  take(): Slot | undefined {
    this.#leaveNumbers();
    const good = this.#free.findIndex((slot) => !this.#refused.has(slot));
    if (good >= 0) return this.#free.splice(good, 1)[0];
    if (this.#used >= this.#parts.geometry.slotCount) return this.#free.shift();
    this.#used += 1;
    return slotOf(this.#used - 1);
  }

  /** What could not be read has a number, and the next opening may find it. */
  #leaveNumbers(): void {
    const { survey, segments, onStuck } = this.#parts;
    if (this.#hasLeftNumbers || !survey.hasUnknown) return;
    this.#hasLeftNumbers = true;
    const newest = Math.max(0, ...segments.keys());
    onStuck(segmentSequence(newest + NUMBERS_LEFT_OUT));
  }

  /** A write into it failed: it is the last to be tried again. */
  refused(slot: Slot): void {
    this.#refused.add(slot);
  }

  /** A write into it was done. */
  written(slot: Slot): void {
    if (this.#refused.size === 0) return;
    this.#refused.delete(slot);
    this.#bad.delete(slot);
    for (const one of this.#refused) this.#bad.add(one);
  }

  /** All that is free is known to be bad: the device itself is not to blame. */
  get isOnlyBad(): boolean {
    return (
      this.#used >= this.#parts.geometry.slotCount && this.#free.every((one) => this.#bad.has(one))
    );
  }

  /** No segment has it. */
  add(slot: Slot): void {
    if (this.#parts.survey.hasUnread(slot)) this.#aside.add(slot);
    else this.#free.push(slot);
  }

  /** Its segment is gone. @throws VarveError DEVICE_IO, DISK_FULL; it is free all the same */
  async punch(slot: Slot): Promise<void> {
    const { device, geometry, survey } = this.#parts;
    if (survey.hasUnread(slot)) {
      this.#aside.add(slot);
      return;
    }
    this.#freeing.add(slot);
    this.#isPunched = true;
    try {
      await device.punch(slotOffset(geometry, slot), geometry.segmentBytes);
    } finally {
      this.#freeing.delete(slot);
      this.#free.push(slot);
    }
  }

  get hasLeftovers(): boolean {
    return this.#leftovers.length > 0;
  }

  addLeftover(batch: UndoBatch): void {
    this.#leftovers.push(batch);
  }

  /**
   * What counts for nothing may lie there: a crash came before a round had put all of it, or took the
   * freeing of a slot back, or a write failed that may have been done in part.
   */
  distrust(): void {
    this.#isClearingLost = true;
  }

  /**
   * Makes durable what was written and freed until now.
   * @throws VarveError DEVICE_IO: what was written since the last good one is in doubt
   */
  async sync(): Promise<void> {
    try {
      if (this.#isClearingLost) await this.#clear();
      await this.#parts.device.sync('undo');
    } catch (error) {
      this.#isClearingLost = true;
      throw error;
    }
    this.#isClearingLost = false;
    this.#leftovers.length = 0;
  }

  /**
   * So that an opening finds what was freed gone without looking for it.
   * @throws VarveError DEVICE_IO, DISK_FULL: the next one has to look
   */
  async close(isDirty: boolean): Promise<void> {
    if (this.#stuck.length > 0) this.#isClearingLost = true;
    if (isDirty || this.#isPunched || this.#isClearingLost) await this.sync();
    this.#isPunched = false;
    const [failure] = this.#stuck;
    if (failure !== undefined) throw failure;
  }

  async #clear(): Promise<void> {
    const { device, geometry, survey, segments } = this.#parts;
    this.#stuck = [];
    for (const { segment, place } of this.#leftovers) {
      if (segments.get(segment.sequence) !== segment) continue;
      await this.#try(async () => {
        await device.punch(place, byteCount(BLOCK_BYTES));
        // It lists them.
        if (!(await survey.hasSummary(segment))) return;
        const end = slotOffset(geometry, segment.slot) + geometry.segmentBytes;
        await device.punch(byteOffset(end - BLOCK_BYTES), byteCount(BLOCK_BYTES));
      });
    }
    for (const slot of this.#free) await this.#clearSlot(slot);
    const rest = geometry.slotCount - this.#used;
    if (rest === 0) return;
    try {
      const length = byteCount(rest * geometry.segmentBytes);
      await device.punch(slotOffset(geometry, slotOf(this.#used)), length);
    } catch (error) {
      if (!isVarveError(error)) throw error;
      for (let i = this.#used; i < geometry.slotCount; i++) await this.#clearSlot(slotOf(i));
    }
  }

  /** A bad place does no harm where nothing is that an opening would find. */
  async #clearSlot(slot: Slot): Promise<void> {
    const { device, geometry, survey, onStuck } = this.#parts;
    const start = slotOffset(geometry, slot);
    const isEmpty = async (): Promise<boolean> => (await survey.glance(slot)) === undefined;
    await this.#try(async () => {
      try {
        await device.punch(start, geometry.segmentBytes);
      } catch (error) {
        if (!isVarveError(error)) throw error;
        if (await isEmpty()) return;
        // Only what leads into it: another place of the slot may be the bad one.
        for (const inside of [0, BLOCK_BYTES, geometry.segmentBytes - BLOCK_BYTES]) {
          await device.punch(byteOffset(start + inside), byteCount(BLOCK_BYTES)).catch(ours);
        }
        const found = await survey.glance(slot);
        if (found === undefined) return;
        onStuck(found.sequence);
        throw error;
      }
    });
  }

  async #try(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!isVarveError(error)) throw error;
      this.#stuck.push(error);
      const { length } = this.#stuck;
      if (length > STUCK_MAX) throw new VarveError('DEVICE_IO', `${length}: ${error.detail}`);
    }
  }

  check(): void {
    const inUse = [...this.#parts.segments.values()].map(({ slot }) => slot);
    const slots = [...this.#free, ...this.#freeing, ...this.#aside, ...inUse];
    assert(
      slots.length === this.#used && new Set(slots).size === slots.length,
      'every slot that was used is free, kept aside, or of one segment',
    );
  }
}

/** Passes over what the world refuses. */
function ours(error: unknown): void {
  if (!isVarveError(error)) throw error;
}
