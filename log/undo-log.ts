/**
 * The undo device: before-images in slots, with the headers, batches and summaries of the log.
 * Images are facts that don't depend on each other, so segments have no order and no tail.
 *
 * Invariants:
 *   - An image is stated here after its batch was written, and durable after the next `sync`.
 *   - A slot is free, or holds one segment; only one segment is written to, and it was begun by this
 *     opening.
 *   - What a failed sync leaves in doubt is put again elsewhere by its round; the newer of two equal
 *     images is read first.
 *   - An image counts once the horizon has passed its `until`: before that home has the content. What
 *     a crash left of a round that did not come so far is passed over, and put again.
 */
import { crc32c } from '../src/base/crc32c.ts';
import { assert } from '../src/base/assert.ts';
import { VarveError } from '../src/base/errors.ts';
import { NIL_UUID, uuidBytes, type Uuid } from '../src/base/identity.ts';
import {
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  checksum as checksumOf,
  generation as generationOf,
  lsn as lsnOf,
  segmentSequence,
  type Block,
  type ByteCount,
  type ByteOffset,
  type Checksum,
  type Generation,
  type Lsn,
  type SegmentSequence,
  slot as slotOf,
  type Slot,
} from '../src/base/units.ts';
import { LRUCache } from 'lru-cache';
import type { LowerDevice } from '../src/device/lower-device.ts';
import { bindChecksum, volumeSeed } from '../src/format/block-checksum.ts';
import { batchChecksum, decodeBatch, UNDO_KINDS, usedBytes } from './batch.ts';
import {
  decodeImages,
  encodeImages,
  endOfImage,
  IMAGES_MAX,
  type BeforeImage,
} from './before-image.ts';
import { slotOffset, summaryBlocksMax, type LogGeometry } from './geometry.ts';
import { encodeSegmentHeader, encodeSummary, segmentChecksum } from './summary.ts';
import type { Times } from './stream.ts';
import { UndoRuns } from './undo-runs.ts';
import { firstReplaced, foundAt, type FoundImage } from './found-image.ts';
import { undoGeometry, undoLsn, UndoSurvey } from './undo-survey.ts';

/** An image with what it was; content is undefined for zeros. */
export interface StatedImage {
  readonly image: BeforeImage;
  readonly content: Uint8Array | undefined;
}

/** One batch of images, as it was found or put. */
export interface UndoBatch {
  readonly segment: UndoSegment;
  readonly place: ByteOffset;
}

export interface UndoSegment {
  readonly sequence: SegmentSequence;
  readonly slot: Slot;
  readonly runs: UndoRuns;
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
}

interface OpenSegment extends UndoSegment {
  /** Where the next batch goes, from the slot's beginning. */
  at: number;
  chain: Checksum;
  header: Uint8Array | undefined;
  /** Used parts of its batch headers; undefined: they would not fit any more. */
  summary: Uint8Array[] | undefined;
  summaryBytes: number;
}

export class UndoLog {
  readonly geometry: LogGeometry;
  readonly #device: LowerDevice;
  readonly #options: UndoLogOptions;
  readonly #seed: number;
  readonly #segments = new Map<SegmentSequence, UndoSegment>();
  /** Of those that were used; the others follow them. */
  readonly #free: Slot[] = [];
  #slotsUsed: number;
  /** Their holes are being punched. */
  readonly #freeing = new Set<Slot>();
  readonly #headers: LRUCache<number, readonly BeforeImage[]>;
  #isDirty = false;
  /** Slots were freed, and a cut may take that back. */
  #isPunched = false;
  #nextSequence = segmentSequence(1);
  #open: OpenSegment | undefined;
  /** Full ones: a summary is written once all that it lists is durable. */
  readonly #closed = new Set<OpenSegment>();

  private constructor(device: LowerDevice, options: UndoLogOptions) {
    this.#device = device;
    this.#options = options;
    this.#seed = volumeSeed(options.volume);
    this.geometry = undoGeometry(device.size, options.segmentBytes);
    this.#slotsUsed = options.slotsUsed;
    this.#headers = new LRUCache({
      maxSize: Math.max(options.cacheBytes, IMAGES_MAX),
      sizeCalculation: (images) => 64 + images.length * 64,
    });
  }

  /** @throws VarveError DEVICE_IO */
  static async open(device: LowerDevice, options: UndoLogOptions): Promise<UndoLog> {
    const undo = new UndoLog(device, options);
    await undo.#survey();
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

  get freeSlots(): number {
    return this.#free.length + this.geometry.slotCount - this.#slotsUsed;
  }

  /** Slots that were ever used: the first so many. An opening looks at no others. */
  get slotsUsed(): number {
    return this.#slotsUsed;
  }

  async #survey(): Promise<void> {
    const { volume } = this.#options;
    const horizon = this.#options.horizon();
    const survey = new UndoSurvey(this.#device, this.geometry, volume);
    for (let i = 0; i < this.#slotsUsed; i++) {
      const slot = slotOf(i);
      const found = await survey.slot(slot);
      if (found === undefined) {
        this.#free.push(slot);
        continue;
      }
      const { sequence, batches } = found;
      if (sequence >= this.#nextSequence) this.#nextSequence = segmentSequence(sequence + 1);
      const segment = { sequence, slot, runs: new UndoRuns() };
      this.#segments.set(sequence, segment);
      for (const { place, images } of batches) {
        if (images.every(({ until }) => until <= horizon)) this.#state(segment, place, images);
      }
    }
  }

  #state(segment: UndoSegment, place: ByteOffset, images: readonly BeforeImage[]): void {
    segment.runs.add(place, images);
    for (const image of images) this.#options.onImage(segment.sequence, image);
  }

  #lsnOf(sequence: SegmentSequence, inside: number): Lsn {
    return undoLsn(this.geometry, sequence, inside);
  }

  /**
   * Writes one batch; durable after the next `sync`. When it fails nothing of it is stated, and it
   * may be put again.
   * @param stated - in order of block and `until`, at most `imagesMax`
   * @throws VarveError UNDO_FULL when no slot is free; DISK_FULL, DEVICE_IO
   */
  async put(stated: readonly StatedImage[], generation: Generation): Promise<void> {
    if (stated.length === 0) return;
    const images = stated.map(({ image }) => image);
    const payloads = stated.flatMap(({ content }) => (content === undefined ? [] : [content]));
    const segment = await this.#withRoom(1 + payloads.length, images.length);
    const position = this.#lsnOf(segment.sequence, segment.at);
    const times = this.#options.now();
    const header = encodeImages(images, this.#options.volume, {
      ...times,
      lineage: NIL_UUID,
      segment: segment.sequence,
      lsn: position,
      generation,
      durable: generationOf(0),
      durableLsn: lsnOf(0),
      chain: segment.chain,
    });
    const sources = [header, ...payloads];
    const at = slotOffset(this.geometry, segment.slot) + segment.at;
    this.#isDirty = true;
    if (segment.header === undefined) await this.#device.write(byteOffset(at), sources);
    else {
      await this.#device.write(byteOffset(at - BLOCK_BYTES), [segment.header, ...sources]);
      segment.header = undefined;
    }
    segment.at += sources.length * BLOCK_BYTES;
    segment.chain = batchChecksum(header);
    const used = usedBytes(images.length * 2);
    segment.summary?.push(header.slice(0, used));
    segment.summaryBytes += used;
    this.#state(segment, byteOffset(at), images);
  }

  async #withRoom(blocks: number, images: number): Promise<OpenSegment> {
    const open = this.#open;
    if (open !== undefined && this.#fits(open, blocks, images)) return open;
    if (open?.summary !== undefined) this.#closed.add(open);
    this.#open = undefined;
    const slot = this.#takeSlot();
    const sequence = this.#nextSequence;
    this.#nextSequence = segmentSequence(sequence + 1);
    const header = encodeSegmentHeader(this.#options.volume, {
      sequence,
      slot,
      chain: checksumOf(0),
      opening: this.#options.opening,
      firstLsn: this.#lsnOf(sequence, BLOCK_BYTES),
      generation: generationOf(0),
      durableLsn: lsnOf(0),
    });
    const segment: OpenSegment = {
      sequence,
      slot,
      runs: new UndoRuns(),
      at: BLOCK_BYTES,
      chain: segmentChecksum(header),
      header,
      summary: [],
      summaryBytes: 0,
    };
    assert(this.#fits(segment, blocks, images), 'a slot takes a batch and its summary');
    this.#segments.set(sequence, segment);
    this.#open = segment;
    return segment;
  }

  #takeSlot(): Slot {
    const free = this.#free.shift();
    if (free !== undefined) return free;
    if (this.#slotsUsed >= this.geometry.slotCount) {
      throw new VarveError('UNDO_FULL', `${this.#segments.size} segments are in use`);
    }
    this.#slotsUsed += 1;
    return slotOf(this.#slotsUsed - 1);
  }

  /** Batches with many zeros have long headers: a summary that has no place is left out. */
  #fits(segment: OpenSegment, blocks: number, images: number): boolean {
    const { segmentBytes } = this.geometry;
    const bytes = segment.summaryBytes + usedBytes(images * 2);
    const summaryMax = summaryBlocksMax(this.geometry) * BLOCK_BYTES;
    if (bytes > summaryMax) segment.summary = undefined;
    const summary =
      segment.summary === undefined ? 0 : (1 + Math.ceil(bytes / BLOCK_BYTES)) * BLOCK_BYTES;
    return segment.at + blocks * BLOCK_BYTES + summary <= segmentBytes;
  }

  /** Derived, so that it is no harm when a cut takes it. */
  async #summarise(segment: OpenSegment): Promise<void> {
    const { summary, sequence, slot } = segment;
    if (summary === undefined) return;
    const end = this.#lsnOf(sequence, segment.at);
    const bytes = encodeSummary(this.#options.volume, sequence, end, summary);
    const slotEnd = slotOffset(this.geometry, slot) + this.geometry.segmentBytes;
    segment.summary = undefined;
    await this.#device.write(byteOffset(slotEnd - bytes.length), [bytes]);
  }

  /**
   * Makes durable what was put.
   * @throws VarveError DEVICE_IO; what was put since the last good one has to be put again then
   */
  async sync(): Promise<void> {
    if (!this.#isDirty) return;
    try {
      await this.#device.sync('undo');
    } catch (error) {
      // It may be there, or not: what is put again goes elsewhere, and is found first.
      this.#open = undefined;
      this.#closed.clear();
      throw error;
    } finally {
      this.#isDirty = false;
    }
    for (const segment of this.#closed) await this.#summarise(segment);
    this.#closed.clear();
  }

  /**
   * Images of `count` blocks from `first` on whose span holds `at`, in no order, copies among them.
   * @throws VarveError DEVICE_IO, VOLUME_CORRUPT when a batch is damaged that may have one of them
   */
  async overlapping(first: Block, count: number, at: Generation): Promise<readonly FoundImage[]> {
    const found: FoundImage[] = [];
    const end = first + count;
    const horizon = this.#options.horizon();
    for (const segment of this.#segments.values()) {
      for (const place of segment.runs.overlapping(first, end, at)) {
        const images = await this.#imagesAt(segment, place);
        images.forEach((image, i) => {
          if (image.until <= at || image.from > at || image.until > horizon) return;
          if (image.block >= end || endOfImage(image) <= first) return;
          found.push(foundAt(segment.sequence, place, images, i));
        });
      }
    }
    return found;
  }

  /**
   * For each of `count` blocks from `first` on what replaced it first after `at`: that image, the
   * newest copy first. Empty: there is none. Where it is not known since when a block was zeros, its
   * image begins at 0, and others that were replaced earlier count before it.
   * @throws VarveError DEVICE_IO, VOLUME_CORRUPT when a batch is damaged that may have one of them
   */
  async find(first: Block, count: number, at: Generation): Promise<readonly FoundImage[][]> {
    const found: FoundImage[][] = Array.from({ length: count }, () => []);
    for (const one of await this.overlapping(first, count, at)) {
      const to = Math.min(first + count, endOfImage(one.image));
      for (let block = Math.max(first, one.image.block); block < to; block++) {
        found[block - first]?.push(one);
      }
    }
    return found.map(firstReplaced);
  }

  /** All that is stated, batch by batch. */
  batches(): readonly UndoBatch[] {
    return [...this.#segments.values()].flatMap((segment) =>
      Array.from(segment.runs.places(), (place) => ({ segment, place })),
    );
  }

  /** Its segment was not freed since. */
  isThere({ segment }: UndoBatch): boolean {
    return this.#segments.get(segment.sequence) === segment;
  }

  /** @throws VarveError DEVICE_IO, VOLUME_CORRUPT when its header is damaged */
  async imagesOf({ segment, place }: UndoBatch): Promise<readonly FoundImage[]> {
    const images = await this.#imagesAt(segment, place);
    return images.map((_, i) => foundAt(segment.sequence, place, images, i));
  }

  async #imagesAt(segment: UndoSegment, place: ByteOffset): Promise<readonly BeforeImage[]> {
    const key = place / BLOCK_BYTES;
    const cached = this.#headers.get(key);
    if (cached !== undefined) return cached;
    const volume = uuidBytes(this.#options.volume);
    // A second look: a device may have answered with what lies elsewhere.
    for (let look = 0; look < 2; look++) {
      const bytes = new Uint8Array(BLOCK_BYTES);
      await this.#device.read(place, bytes);
      const batch = decodeBatch(bytes, volume, UNDO_KINDS);
      const inside = place - slotOffset(this.geometry, segment.slot);
      if (batch?.header.segment !== segment.sequence) continue;
      if (batch.header.lsn !== this.#lsnOf(segment.sequence, inside)) continue;
      const images = decodeImages(batch);
      if (images === undefined) continue;
      // A slow read may outlive its segment, and another one's batch lies there by then.
      if (this.#segments.get(segment.sequence) === segment) this.#headers.set(key, images);
      return images;
    }
    throw new VarveError(
      'VOLUME_CORRUPT',
      `the before-images at byte ${place} of ${this.#device.name}, segment ${segment.sequence}, are damaged`,
    );
  }

  /**
   * What the block was.
   * @param block - one of the image's
   * @returns undefined when the payload fails its checksum
   * @throws VarveError DEVICE_IO
   */
  async read({ image, place }: FoundImage, block: Block): Promise<Uint8Array | undefined> {
    const content = new Uint8Array(BLOCK_BYTES);
    const { checksum, from } = image;
    if (checksum === undefined) return content;
    for (let look = 0; look < 2; look++) {
      await this.#device.read(place, content);
      if (bindChecksum(crc32c(content), this.#seed, block, from) === checksum) return content;
    }
    return undefined;
  }

  /** Nobody needs its images: its slot is free, and takes no space where the platform can. */
  async free(sequence: SegmentSequence): Promise<void> {
    const segment = this.#segments.get(sequence);
    assert(segment !== undefined, 'a segment is freed once');
    this.#segments.delete(sequence);
    for (const closed of this.#closed)
      if (closed.sequence === sequence) this.#closed.delete(closed);
    if (this.#open?.sequence === sequence) this.#open = undefined;
    const { segmentBytes } = this.geometry;
    const at = slotOffset(this.geometry, segment.slot);
    for (let inside = BLOCK_BYTES; inside < segmentBytes; inside += BLOCK_BYTES) {
      this.#headers.delete((at + inside) / BLOCK_BYTES);
    }
    this.#freeing.add(segment.slot);
    this.#isPunched = true;
    try {
      await this.#device.punch(at, segmentBytes);
    } finally {
      this.#freeing.delete(segment.slot);
      this.#free.push(segment.slot);
    }
  }

  /**
   * After an opening that followed a crash: what lies in slots that no segment has, because the
   * crash came before a round had put all of it, or took the freeing of a slot back.
   * @throws VarveError DEVICE_IO
   */
  async clearFreeSlots(): Promise<void> {
    const { segmentBytes } = this.geometry;
    this.#isPunched = true;
    for (const slot of this.#free) {
      await this.#device.punch(slotOffset(this.geometry, slot), segmentBytes);
    }
    const rest = this.geometry.slotCount - this.#slotsUsed;
    if (rest === 0) return;
    const at = slotOffset(this.geometry, slotOf(this.#slotsUsed));
    await this.#device.punch(at, byteCount(rest * segmentBytes));
  }

  /** An opening that writes nothing leaves a segment that nobody needs where it is. */
  forget(sequence: SegmentSequence): void {
    const segment = this.#segments.get(sequence);
    assert(segment !== undefined, 'a segment is forgotten once');
    this.#segments.delete(sequence);
    this.#free.push(segment.slot);
  }

  /**
   * So that what was freed stays so: an opening after a close in order does not look for it.
   * @throws VarveError DEVICE_IO
   */
  async close(): Promise<void> {
    if (this.#isDirty || this.#isPunched) await this.#device.sync('undo');
    this.#isPunched = false;
  }

  /** RAM, without the cache. */
  get bytes(): number {
    let bytes = 0;
    for (const { runs } of this.#segments.values()) bytes += 200 + runs.bytes;
    return bytes;
  }

  check(): void {
    const used = [...this.#segments.values()].map(({ slot }) => slot);
    const slots = [...this.#free, ...this.#freeing, ...used];
    assert(
      slots.length === this.#slotsUsed && new Set(slots).size === slots.length,
      'every slot that was used is either free or of one segment',
    );
  }
}
