/**
 * What moments below the horizon need of what rounds replaced: put by rounds, found by reads, and
 * given back when no pin needs it.
 *
 * Invariants:
 *   - What is held is counted by pairs of pins, and by the segments of the undo device.
 *   - A segment is freed once no pin needs anything in it, and never while something is being put.
 */
import { assert } from '../base/assert.ts';
import { isVarveError } from '../base/errors.ts';
import {
  BLOCK_BYTES,
  type Block,
  type ByteCount,
  type Generation,
  type SegmentSequence,
} from '../base/units.ts';
import type { LowerDevice } from '../device/lower-device.ts';
import {
  HeldCounts,
  NOTHING,
  pinPair,
  type Amount,
  type PinPair,
} from '../../index/held-counts.ts';
import type { Pins } from '../../index/pins.ts';
import { factsOf, type BeforeImage } from '../../log/before-image.ts';
import type { FoundImage, FoundImages } from '../../log/found-image.ts';
import type { UndoBatch } from '../../log/undo-images.ts';
import { UndoLog, type StatedImage, type UndoLogOptions } from '../../log/undo-log.ts';
import { chooseSources, BadSource, imagesToJoin } from './undo-join.ts';

const SLOTS_LEFT_MIN = 3;

interface Joining {
  into: SegmentSequence | undefined;
  isMarked: boolean;
}

export interface UndoOptions extends Omit<UndoLogOptions, 'onImage' | 'onSync'> {
  readonly pins: Pins<unknown>;
  readonly readOnly: boolean;
  /** The last opening ended in order. */
  readonly isClean: boolean;
}

export class Undo {
  readonly #pins: Pins<unknown>;
  readonly #horizon: () => Generation;
  readonly #held = new HeldCounts<SegmentSequence>();
  /** What was joined, and lies where it was beside it. */
  readonly #copies = new HeldCounts<SegmentSequence>();
  /** Of both, what was put since the last sync. */
  readonly #doubtful = new HeldCounts<SegmentSequence>();
  #log!: UndoLog;
  #isOpen = false;
  #joining: Joining | undefined;
  /** Segments into which a round put what the horizon has not come to yet, and where the last of it ends. */
  readonly #ahead = new Map<SegmentSequence, Generation>();
  /** They stay as they are, until the horizon has come so far. */
  readonly #unjoinable = new Map<SegmentSequence, number>();
  #lostSyncs = 0;

  private constructor(pins: Pins<unknown>, horizon: () => Generation) {
    this.#pins = pins;
    this.#horizon = horizon;
  }

  /** @param options - `pins`: with all that are durable. @throws VarveError DEVICE_IO */
  static async open(
    device: LowerDevice,
    { pins, readOnly, isClean, ...options }: UndoOptions,
  ): Promise<Undo> {
    const undo = new Undo(pins, options.horizon);
    const onImage = (segment: SegmentSequence, image: BeforeImage): void =>
      undo.#count(segment, image);
    const onSync = (isDurable: boolean): void => undo.#synced(isDurable);
    undo.#log = await UndoLog.open(device, { ...options, onImage, onSync });
    undo.#isOpen = true;
    if (readOnly) for (const sequence of undo.#garbage()) undo.#log.forget(sequence);
    else {
      // A slot may have been another segment's by half before a crash: nobody looks into it.
      try {
        await undo.collect();
      } catch (error) {
        // The live disk does not need it: what can't be given back now is with what comes next.
        if (!isVarveError(error)) throw error;
      }
      if (!isClean || undo.#log.hasLeftovers) await undo.#log.clearFreeSlots();
    }
    return undo;
  }

  /** Bytes that deleting the only pin of a generation would give back. */
  exclusive(pin: Generation): Amount {
    return this.#held.exclusive(pin);
  }

  /** What each pin sees, alone or with others. */
  seen(): ReadonlyMap<Generation, Amount> {
    return this.#held.seen(this.#pins.list().map(({ generation }) => generation));
  }

  /** @see HeldCounts.heldBy */
  heldBy(pins: readonly Generation[]): Amount {
    return this.#held.heldBy(pins);
  }

  /** What all pins hold together. */
  get held(): Amount {
    return this.#held.total;
  }

  /** Something is held, and there is room for little more. */
  get isNearlyFull(): boolean {
    return this.#held.total.images > 0 && this.#log.freeSlots < SLOTS_LEFT_MIN;
  }

  /** @see UndoLog.slotsUsed */
  get slotsUsed(): number {
    return this.#log.slotsUsed;
  }

  get size(): ByteCount {
    return this.#log.size;
  }

  /** Bytes that it takes below. */
  async allocated(): Promise<ByteCount> {
    return await this.#log.allocated();
  }

  get segments(): number {
    return this.#log.segments.size;
  }

  /** RAM: fences, counts. */
  get bytes(): number {
    return this.#log.bytes;
  }

  /** Whether a pin sees a version that is replaced. */
  isNeeded(from: Generation, until: Generation): boolean {
    return pinPair(this.#pins, from, until) !== undefined;
  }

  #count(segment: SegmentSequence, image: BeforeImage): void {
    const pair = pinPair(this.#pins, image.from, image.until);
    if (pair === undefined) return;
    const { until } = image;
    if (until > Math.max(this.#horizon(), this.#ahead.get(segment) ?? 0)) {
      this.#ahead.set(segment, until);
    }
    const amount = amountOf(image);
    if (this.#joining === undefined) this.#held.add(segment, pair, amount);
    else {
      this.#joining.into = segment;
      this.#copies.add(segment, pair, amount);
    }
    // What an opening finds is durable.
    if (this.#isOpen) this.#doubtful.add(segment, pair, amount);
  }

  #synced(isDurable: boolean): void {
    if (!isDurable) {
      this.#lostSyncs += 1;
      for (const segment of this.#doubtful.places.keys()) {
        const counts = this.#copies.places.has(segment) ? this.#copies : this.#held;
        for (const [pair, amount] of this.#doubtful.in(segment)) {
          counts.subtract(segment, pair, amount);
        }
      }
    }
    this.#doubtful.clear();
  }

  /** How often a sync failed, and what was put since the one before was taken back. */
  get lostSyncs(): number {
    return this.#lostSyncs;
  }

  /** What `put` takes at once. */
  get imagesMax(): number {
    return this.#log.imagesMax;
  }

  /**
   * In order of block; durable after `sync`.
   * @throws VarveError UNDO_FULL, DISK_FULL, DEVICE_IO; what was put before it stays
   */
  async put(images: readonly StatedImage[], generation: Generation): Promise<void> {
    await this.#log.put(images, generation);
  }

  async sync(): Promise<void> {
    await this.#log.sync();
  }

  /** The horizon has come to what was put; not to all of it where a round that failed went further. */
  passed(): void {
    const horizon = this.#horizon();
    for (const [sequence, until] of this.#ahead) {
      if (until <= horizon) this.#ahead.delete(sequence);
    }
  }

  /**
   * A round that got no further puts all of it again, for pins that came below its end since: what it
   * put before is freed, or counted for these pins where the segment holds older images, too. No pin
   * comes below its end meanwhile.
   * @returns facts of it that are still there
   * @throws VarveError DEVICE_IO
   */
  async restart(): Promise<ReadonlySet<string>> {
    const there = new Set<string>();
    if (this.#ahead.size === 0) return there;
    // So that none of it is in doubt.
    await this.sync();
    const horizon = this.#horizon();
    const ahead = [...this.#ahead.keys()];
    this.#ahead.clear();
    for (const sequence of ahead) {
      const images = await this.#imagesIn(sequence);
      if (images === undefined || !this.#held.places.has(sequence)) continue;
      this.#held.drop(sequence);
      if (images.every(({ until }) => until > horizon)) continue;
      for (const image of images) {
        this.#count(sequence, image);
        if (image.until > horizon) for (const fact of factsOf(image)) there.add(fact);
      }
    }
    this.#doubtful.clear();
    await this.collect();
    return there;
  }

  /** @returns undefined where they can't be read: they stay as they are */
  async #imagesIn(sequence: SegmentSequence): Promise<readonly BeforeImage[] | undefined> {
    const images: BeforeImage[] = [];
    try {
      for (const batch of this.#log.images.batches([sequence])) {
        for (const { image } of await this.#log.images.imagesOf(batch)) images.push(image);
      }
    } catch (error) {
      if (!isVarveError(error)) throw error;
      return undefined;
    }
    return images;
  }

  /** @see UndoImages.batches */
  batches(): readonly UndoBatch[] {
    return this.#log.images.batches();
  }

  /** @see UndoImages.isThere */
  isThere(batch: UndoBatch): boolean {
    return this.#log.images.isThere(batch);
  }

  /** @see UndoImages.imagesOf */
  async imagesOf(batch: UndoBatch): Promise<readonly FoundImage[]> {
    return await this.#log.images.imagesOf(batch);
  }

  /** @see UndoImages.overlapping */
  async overlapping(first: Block, count: number, at: Generation): Promise<readonly FoundImage[]> {
    return await this.#log.images.overlapping(first, count, at);
  }

  /** @see UndoImages.joins */
  get joins(): number {
    return this.#log.images.joins;
  }

  /** @see UndoImages.mayHave */
  mayHave(first: Block, count: number): boolean {
    return this.#log.images.mayHave(first, count);
  }

  /** @see UndoImages.find */
  async find(first: Block, count: number, at: Generation): Promise<FoundImages> {
    return await this.#log.images.find(first, count, at);
  }

  /** @see UndoImages.read */
  async read(found: FoundImage, block: Block): Promise<Uint8Array | undefined> {
    return await this.#log.images.read(found, block);
  }

  /** The last reason to keep a generation is gone. @returns what that gives back */
  unpinned(pin: Generation): Amount {
    this.#copies.unpinned(pin, this.#pins);
    this.#doubtful.unpinned(pin, this.#pins);
    return this.#held.unpinned(pin, this.#pins);
  }

  /** Somebody needs something in it. */
  #isHeld(sequence: SegmentSequence): boolean {
    return this.#held.places.has(sequence) || this.#copies.places.has(sequence);
  }

  get hasGarbage(): boolean {
    return this.#held.places.size + this.#copies.places.size < this.#log.segments.size;
  }

  /** Those that can be joined, and are better joined. */
  #sources(): readonly SegmentSequence[] {
    const candidates = [...this.#held.places]
      .filter(([sequence]) => this.#log.isSettled(sequence) && this.#isJoinable(sequence))
      .map(([sequence, { total }]) => ({ sequence, held: total }));
    return chooseSources(this.#log, candidates);
  }

  #isJoinable(sequence: SegmentSequence): boolean {
    return (this.#unjoinable.get(sequence) ?? 0) <= this.#horizon();
  }

  /**
   * Joins what is left of some segments in one, and frees them. No round is under way.
   * @param record - makes `slotsUsed` durable, before what was joined is freed
   * @throws VarveError UNDO_FULL, DISK_FULL, DEVICE_IO: what was put since the last sync may have to be
   *   put again
   */
  async join(record: () => Promise<void>): Promise<void> {
    // One that has to be left as it is keeps no others from it.
    for (;;) {
      const sources = this.#sources();
      if (sources.length === 0 || (await this.#joined(sources, record))) return;
      // What was copied until then.
      await this.collect();
    }
  }

  /** @returns false when one of them has to be left as it is */
  async #joined(
    sources: readonly SegmentSequence[],
    record: () => Promise<void>,
  ): Promise<boolean> {
    const horizon = this.#horizon();
    const isNeeded = ({ image: { from, until }, segment }: FoundImage): boolean => {
      if (until > horizon) throw new BadSource(segment, 'a round puts there', until);
      return this.isNeeded(from, until);
    };
    const joining: Joining = { into: undefined, isMarked: false };
    this.#joining = joining;
    try {
      const images = imagesToJoin(this.#log, sources, isNeeded);
      await this.#log.join(sources, images, horizon, async () => {
        await record();
        joining.isMarked = true;
      });
    } catch (error) {
      // What may be marked as whole is never freed beside its sources: it would be found half there.
      if (joining.into !== undefined && !joining.isMarked) {
        this.#copies.drop(joining.into);
        this.#doubtful.drop(joining.into);
      }
      // Nor are they joined once more: the next opening would count them in both.
      if (joining.isMarked) for (const one of sources) this.#unjoinable.set(one, Infinity);
      if (!(error instanceof BadSource)) throw error;
      this.#unjoinable.set(error.sequence, error.until);
      return false;
    } finally {
      this.#joining = undefined;
    }
    // At once: a source that can't be freed now is garbage, and not counted twice.
    for (const sequence of sources) {
      this.#held.drop(sequence);
      this.#unjoinable.delete(sequence);
    }
    const { into } = joining;
    if (into !== undefined) {
      for (const [pair, amount] of this.#copies.in(into)) this.#held.add(into, pair, amount);
      this.#copies.drop(into);
    }
    for (const sequence of sources) await this.#log.free(sequence);
    return true;
  }

  /** Frees segments that nobody needs. Nothing is being put. @throws VarveError DEVICE_IO, DISK_FULL */
  async collect(): Promise<void> {
    const garbage = this.#garbage();
    if (garbage.length === 0) return;
    const inDoubt = await this.#log.confirmJoins();
    for (const sequence of garbage) {
      if (inDoubt.has(sequence)) continue;
      this.#unjoinable.delete(sequence);
      await this.#log.free(sequence);
    }
  }

  #garbage(): readonly SegmentSequence[] {
    return [...this.#log.segments.keys()].filter((sequence) => !this.#isHeld(sequence));
  }

  /** @see UndoLog.close */
  async close(): Promise<void> {
    await this.#log.close();
  }

  /** Recounts everything from the device. */
  async check(): Promise<void> {
    this.#log.check();
    const found: [SegmentSequence, PinPair, Amount][] = [];
    const facts = new Set<string>();
    for (const batch of this.#log.images.batches()) {
      const { sequence } = batch.segment;
      // Not yet freed after a join, or what a join left that came to nothing.
      if (!this.#held.places.has(sequence)) continue;
      for (const { image } of await this.#log.images.imagesOf(batch)) {
        const pair = pinPair(this.#pins, image.from, image.until);
        if (pair === undefined) continue;
        found.push([sequence, pair, amountOf(image)]);
        for (const fact of factsOf(image)) {
          assert(!facts.has(fact), 'a before-image that is needed is there once');
          facts.add(fact);
        }
      }
    }
    this.#held.check(found);
  }
}

function amountOf({ checksum }: BeforeImage): Amount {
  return checksum === undefined ? { ...NOTHING, images: 1 } : { images: 1, bytes: BLOCK_BYTES };
}
