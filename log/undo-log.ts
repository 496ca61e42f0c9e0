/**
 * The undo device: before-images in slots, with the headers, batches and summaries of the log.
 * Images are facts that don't depend on each other, so segments have no order and no tail.
 *
 * Invariants:
 *   - An image is stated here after its batch was written, and durable after the next `sync`.
 *   - A slot is free, or holds one segment; only one segment is written to, and it was begun by this
 *     opening.
 *   - A segment into which a write failed is left as it is: what was put there before counts, what the
 *     write may have left there is cleared with the next sync. A full device is asked again.
 *   - What a failed sync leaves in doubt is stated no longer: its round puts it again elsewhere, and
 *     nobody needs it before. The newer of two equal images is read first.
 *   - What was joined is freed once the marks that say so are durable. Those that an opening finds, or
 *     whose sync failed, may be in the page cache alone: they are written again before.
 *   - An image counts once the horizon has passed its `until`: before that home has the content. What
 *     a crash left of a round that did not come so far is passed over, and put again.
 */
import { assert } from '../src/base/assert.ts';
import { isVarveError, VarveError } from '../src/base/errors.ts';
import type { Uuid } from '../src/base/identity.ts';
import {
  BLOCK_BYTES,
  segmentSequence,
  type ByteCount,
  type ByteOffset,
  type Generation,
  type SegmentSequence,
  slot as slotOf,
  type Slot,
} from '../src/base/units.ts';
import type { LowerDevice } from '../src/device/lower-device.ts';
import { usedBytes } from './batch.ts';
import { encodeImages, IMAGES_MAX, type BeforeImage } from './before-image.ts';
import { summaryBlocksMax, type LogGeometry } from './geometry.ts';
import { encodeJoined, JOINED_MAX } from './joined.ts';
import type { Times } from './stream.ts';
import { UndoImages, type UndoSegment } from './undo-images.ts';
import { UndoRuns } from './undo-runs.ts';
import { FillingSegment } from './undo-segment.ts';
import { UndoSlots } from './undo-slots.ts';
import { undoGeometry, UndoSurvey, type JoinMarks, type UndoSlot } from './undo-survey.ts';

/** A device with fewer slots keeps none back. */
const SLOTS_SCARCE = 8;
const SHORT_SLOTS_MIN = 3;
/** One after the other, where the device refuses a write: with more of them all of it is to blame. */
const SLOTS_TRIED_MAX = 3;

/** An image with what it was; content is undefined for zeros. */
export interface StatedImage {
  readonly image: BeforeImage;
  readonly content: Uint8Array | undefined;
}

/** Told of each image that is stated, also of those that were there. */
export type OnImage = (segment: SegmentSequence, image: BeforeImage) => void;

export interface UndoLogOptions {
  readonly volume: Uuid;
  readonly segmentBytes: ByteCount;
  /** For headers of batches. */
  readonly cacheBytes: ByteCount;
  /** Random, of this opening. */
  readonly opening: number;
  /** `slotsUsed` of an earlier opening, when all that counts was durable. */
  readonly slotsUsed: number;
  /** The durable horizon: what was replaced after it is not replaced yet. */
  readonly horizon: () => Generation;
  readonly now: () => Times;
  readonly onImage: OnImage;
  /** Images that were put since the last sync are durable; or they are not, and are taken back. */
  readonly onSync: (isDurable: boolean) => void;
}

export class UndoLog {
  readonly geometry: LogGeometry;
  /** What is stated. */
  readonly images: UndoImages;
  readonly #device: LowerDevice;
  readonly #options: UndoLogOptions;
  readonly #survey: UndoSurvey;
  readonly #slots: UndoSlots;
  readonly #segments = new Map<SegmentSequence, UndoSegment>();
  #isDirty = false;
  /** Marks of joins that may be in the page cache alone, by the segment that they are of. */
  readonly #doubtfulJoins = new Map<SegmentSequence, JoinMarks>();
  /** Batches of images since the last sync. */
  readonly #doubtful = new Map<UndoSegment, number>();
  #nextSequence = segmentSequence(1);
  #open: FillingSegment | undefined;
  /** Full ones: a summary is written once all that it lists is durable. */
  readonly #closed = new Set<FillingSegment>();

  private constructor(device: LowerDevice, options: UndoLogOptions) {
    this.#device = device;
    this.#options = options;
    this.geometry = undoGeometry(device.size, options.segmentBytes);
    const { geometry } = this;
    const { volume, cacheBytes, horizon } = options;
    const survey = (this.#survey = new UndoSurvey(device, geometry, volume));
    const lying = { device, geometry, survey };
    const segments = this.#segments;
    const onStuck = (sequence: SegmentSequence): void => this.#pass(sequence);
    this.#slots = new UndoSlots({ ...lying, segments, used: options.slotsUsed, onStuck });
    this.images = new UndoImages({ device, slots: survey, segments, volume, cacheBytes, horizon });
  }

  /** @throws VarveError DEVICE_IO */
  static async open(device: LowerDevice, options: UndoLogOptions): Promise<UndoLog> {
    const undo = new UndoLog(device, options);
    await undo.#find();
    return undo;
  }

  get segments(): ReadonlyMap<SegmentSequence, UndoSegment> {
    return this.#segments;
  }

  /** What `put` takes at once: a slot has room for a batch of it, with its summary. */
  get imagesMax(): number {
    return Math.min(IMAGES_MAX, this.geometry.segmentBytes / BLOCK_BYTES - 4);
  }

  get size(): ByteCount {
    return this.#device.size;
  }

  async allocated(): Promise<ByteCount> {
    return await this.#device.allocated();
  }

  /** @see UndoSurvey.isThere */
  async isThere(): Promise<boolean> {
    return await this.#survey.isThere();
  }

  get freeSlots(): number {
    return this.#slots.free;
  }

  /** Slots that were ever used: the first so many. An opening looks at no others. */
  get slotsUsed(): number {
    return this.#slots.used;
  }

  async #find(): Promise<void> {
    const horizon = this.#options.horizon();
    const used: UndoSlot[] = [];
    for (let i = 0; i < this.slotsUsed; i++) {
      const found = await this.#survey.glance(slotOf(i));
      if (found === undefined) this.#slots.add(slotOf(i));
      else used.push(found);
    }
    const { sequences: voided, joins } = await this.#survey.voided(used);
    for (const [into, marks] of joins) this.#doubtfulJoins.set(into, marks);
    for (const found of used) {
      const { sequence, slot } = found;
      this.#pass(sequence);
      const segment = { sequence, slot, runs: new UndoRuns() };
      this.#segments.set(sequence, segment);
      // States nothing, so it is freed as one that nobody needs.
      if (voided.has(sequence)) continue;
      for (const { place, images } of await this.#survey.batches(found)) {
        if (images.every(({ until }) => until <= horizon)) this.#state(segment, place, images);
        else this.#slots.addLeftover({ segment, place });
      }
    }
  }

  /** No other segment gets this number. */
  #pass(sequence: SegmentSequence): void {
    if (sequence >= this.#nextSequence) this.#nextSequence = segmentSequence(sequence + 1);
  }

  #state(segment: UndoSegment, place: ByteOffset, images: readonly BeforeImage[]): void {
    segment.runs.add(place, images);
    for (const image of images) this.#options.onImage(segment.sequence, image);
  }

  /**
   * Writes one batch; durable after the next `sync`. When it fails nothing of it is stated, and it
   * may be put again.
   * @param stated - in order of block and `until`, at most `imagesMax`
   * @throws VarveError UNDO_FULL when no slot is free; DISK_FULL, DEVICE_IO
   */
  async put(stated: readonly StatedImage[], generation: Generation): Promise<void> {
    if (stated.length === 0) return;
    const payloads = stated.filter(({ content }) => content !== undefined).length;
    await this.#inSome(
      () => this.#withRoom(1 + payloads, stated.length * 2),
      (segment) => this.#putImages(segment, stated, generation),
    );
  }

  /** Writes into a segment, and where its place is bad into another one, in another slot. */
  async #inSome(
    choose: () => FillingSegment,
    write: (segment: FillingSegment) => Promise<void>,
  ): Promise<FillingSegment> {
    for (let tried = 1; ; tried++) {
      const segment = choose();
      try {
        await write(segment);
        this.#slots.written(segment.slot);
        return segment;
      } catch (error) {
        if (isVarveError(error, 'DISK_FULL')) throw error;
        this.#leave(segment);
        // Of a device that is away no place is to blame.
        if (!isVarveError(error) || !(await this.isThere())) throw error;
        this.#slots.refused(segment.slot);
        // Who holds old moments can let them go: bad places are no reason to refuse writes for good.
        if (this.#slots.isOnlyBad) throw this.#full();
        if (tried === SLOTS_TRIED_MAX) throw error;
      }
    }
  }

  /** A write into it failed: nothing more is written there. */
  #leave(segment: FillingSegment): void {
    if (this.#open === segment) this.#open = undefined;
    if (segment.isBlank) {
      this.#segments.delete(segment.sequence);
      this.#slots.add(segment.slot);
    } else {
      if (segment.hasSummary) this.#closed.add(segment);
      this.#slots.addLeftover({ segment, place: segment.place });
    }
    this.#slots.distrust();
  }

  async #putImages(
    segment: FillingSegment,
    stated: readonly StatedImage[],
    generation: Generation,
  ): Promise<void> {
    const images = stated.map(({ image }) => image);
    const payloads = stated.flatMap(({ content }) => (content === undefined ? [] : [content]));
    const header = encodeImages(images, this.#options.volume, segment.heading(generation));
    const place = await this.#write(segment, header, payloads, images.length * 2);
    this.#doubtful.set(segment, (this.#doubtful.get(segment) ?? 0) + 1);
    this.#state(segment, place, images);
  }

  /**
   * Writes what is left of some segments into one of its own, and syncs: it counts instead of them
   * from now on, and the caller frees them.
   * @param chunks - as `put` takes them; all of them fit one segment, as `fitsJoined` says
   * @param onDurable - all of it is durable, and is about to be marked as such; until it has settled a
   *   failure leaves what counts for nothing, and is the caller's to free; after that, a copy
   * @throws VarveError UNDO_FULL when no slot is free; DISK_FULL, DEVICE_IO; what `chunks` throws
   */
  async join(
    sources: readonly SegmentSequence[],
    chunks: AsyncIterable<readonly StatedImage[]>,
    generation: Generation,
    onDurable: () => Promise<void>,
  ): Promise<void> {
    const { volume } = this.#options;
    const mark = (into: FillingSegment): Uint8Array =>
      encodeJoined(sources, volume, into.heading(generation));
    const segment = await this.#inSome(
      () => this.#begin(this.#takeSlot()),
      async (into) => {
        await this.#write(into, mark(into), [], sources.length);
      },
    );
    // Else a cut may keep what follows without it, and that would count beside the sources.
    await this.sync();
    for await (const chunk of chunks) {
      const payloads = chunk.filter(({ content }) => content !== undefined).length;
      assert(segment.fits(1 + payloads, chunk.length * 2), 'what is joined fits');
      await this.#putImages(segment, chunk, generation);
    }
    await this.sync();
    await onDurable();
    assert(segment.fits(1, sources.length), 'what is joined leaves room for its mark');
    const last = { place: segment.place, block: mark(segment) };
    this.#doubtfulJoins.set(segment.sequence, { sources, blocks: [last] });
    await this.#write(segment, last.block, [], sources.length);
    if (segment.hasSummary) this.#closed.add(segment);
    await this.sync();
    this.#doubtfulJoins.delete(segment.sequence);
    this.images.joined();
  }

  /**
   * Makes durable what says that segments hold all of others, where that is in doubt: the same bytes
   * at the same places. What is between the marks was synced before the last one was written.
   * @returns segments that stay as they are meanwhile, because a mark can't be written
   * @throws VarveError DEVICE_IO, DISK_FULL: all of them do
   */
  async confirmJoins(): Promise<ReadonlySet<SegmentSequence>> {
    const stay = new Set<SegmentSequence>();
    if (this.#doubtfulJoins.size === 0) return stay;
    const written: SegmentSequence[] = [];
    for (const [into, { sources, blocks }] of this.#doubtfulJoins) {
      this.#isDirty = true;
      try {
        for (const { place, block } of blocks) await this.#device.write(place, [block]);
        written.push(into);
      } catch (error) {
        if (!isVarveError(error)) throw error;
        for (const one of [into, ...sources]) stay.add(one);
      }
    }
    await this.sync();
    for (const into of written) this.#doubtfulJoins.delete(into);
    return stay;
  }

  /** Whether so much, of so many segments, goes into one. */
  fitsJoined(sources: number, { images, bytes }: { images: number; bytes: number }): boolean {
    if (sources > JOINED_MAX) return false;
    const batches = 2 + Math.ceil(images / this.imagesMax);
    const listed = 2 * usedBytes(sources) + (batches - 2) * usedBytes(0) + images * usedBytes(2);
    const summary = Math.min(Math.ceil(listed / BLOCK_BYTES), summaryBlocksMax(this.geometry));
    const blocks = 1 + batches + bytes / BLOCK_BYTES + summary + 1;
    return blocks <= this.geometry.segmentBytes / BLOCK_BYTES;
  }

  /** Of segments that are neither being written nor waiting for a sync. */
  isSettled(sequence: SegmentSequence): boolean {
    const isClosed = [...this.#closed].some((segment) => segment.sequence === sequence);
    return this.#open?.sequence !== sequence && !isClosed;
  }

  /** Slots begin to lack. */
  get isShort(): boolean {
    return this.freeSlots <= Math.max(SHORT_SLOTS_MIN, this.geometry.slotCount / 8);
  }

  /** @returns where the header lies */
  async #write(
    segment: FillingSegment,
    header: Uint8Array,
    payloads: readonly Uint8Array[],
    entries: number,
  ): Promise<ByteOffset> {
    this.#isDirty = true;
    return await segment.write(header, payloads, entries);
  }

  #withRoom(blocks: number, entries: number): FillingSegment {
    const open = this.#open;
    if (open !== undefined && open.fits(blocks, entries)) return open;
    if (open?.hasSummary === true) this.#closed.add(open);
    this.#open = undefined;
    // The last one is for joining others, which frees some.
    if (this.freeSlots <= this.#reserve) throw this.#full();
    const segment = this.#begin(this.#takeSlot());
    assert(segment.fits(blocks, entries), 'a slot takes a batch and its summary');
    this.#open = segment;
    return segment;
  }

  get #reserve(): number {
    return this.geometry.slotCount < SLOTS_SCARCE ? 0 : 1;
  }

  #full(): VarveError {
    return new VarveError('UNDO_FULL', `${this.#segments.size} segments are in use`);
  }

  #begin(slot: Slot): FillingSegment {
    const sequence = this.#nextSequence;
    this.#nextSequence = segmentSequence(sequence + 1);
    const { volume, opening, now } = this.#options;
    const parts = { device: this.#device, geometry: this.geometry, volume, opening, now };
    const segment = new FillingSegment(parts, sequence, slot);
    this.#segments.set(sequence, segment);
    return segment;
  }

  #takeSlot(): Slot {
    const slot = this.#slots.take();
    if (slot === undefined) throw this.#full();
    return slot;
  }

  /**
   * Makes durable what was put.
   * @throws VarveError DEVICE_IO; what was put since the last good one has to be put again then
   */
  async sync(): Promise<void> {
    if (!this.#isDirty) return;
    try {
      await this.#slots.sync();
    } catch (error) {
      this.#open = undefined;
      this.#closed.clear();
      this.#takeBack();
      throw error;
    } finally {
      this.#isDirty = false;
    }
    this.#doubtful.clear();
    this.#options.onSync(true);
    for (const segment of this.#closed) await segment.summarise();
    this.#closed.clear();
  }

  #takeBack(): void {
    for (const [segment, count] of this.#doubtful) {
      for (const place of segment.runs.takeBack(count)) this.#slots.addLeftover({ segment, place });
    }
    this.#doubtful.clear();
    this.#options.onSync(false);
  }

  /** Nobody needs its images: its slot is free, and takes no space where the platform can. */
  async free(sequence: SegmentSequence): Promise<void> {
    const segment = this.#segments.get(sequence);
    assert(segment !== undefined, 'a segment is freed once');
    this.#segments.delete(sequence);
    for (const closed of this.#closed)
      if (closed.sequence === sequence) this.#closed.delete(closed);
    if (this.#open?.sequence === sequence) this.#open = undefined;
    this.#doubtful.delete(segment);
    this.#doubtfulJoins.delete(sequence);
    this.images.forget(segment);
    await this.#slots.punch(segment.slot);
  }

  get hasLeftovers(): boolean {
    return this.#slots.hasLeftovers;
  }

  /**
   * After an opening that followed a crash: what lies in slots that no segment has, because the
   * crash came before a round had put all of it, or took the freeing of a slot back. What the device
   * refuses now is done with the next sync.
   */
  async clearFreeSlots(): Promise<void> {
    this.#slots.distrust();
    try {
      await this.#slots.sync();
    } catch (error) {
      if (!isVarveError(error)) throw error;
    }
  }

  /** An opening that writes nothing leaves a segment that nobody needs where it is. */
  forget(sequence: SegmentSequence): void {
    const segment = this.#segments.get(sequence);
    assert(segment !== undefined, 'a segment is forgotten once');
    this.#segments.delete(sequence);
    this.#slots.add(segment.slot);
  }

  /**
   * So that what was freed stays so: an opening after a close in order does not look for it.
   * @throws VarveError DEVICE_IO
   */
  async close(): Promise<void> {
    await this.#slots.close(this.#isDirty);
  }

  /** RAM, without the cache. */
  get bytes(): number {
    let bytes = 0;
    for (const { runs } of this.#segments.values()) bytes += 200 + runs.bytes;
    return bytes;
  }

  check(): void {
    this.#slots.check();
  }
}
