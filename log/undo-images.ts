/**
 * Before-images that are stated, and what they hold: by block and moment, or batch by batch.
 *
 * Invariants:
 *   - An image counts once the horizon has passed its `until`.
 *   - What is cached of a header is of a segment that is still there.
 */
import { crc32c } from '../src/base/crc32c.ts';
import { isVarveError, VarveError } from '../src/base/errors.ts';
import type { Uuid } from '../src/base/identity.ts';
import {
  BLOCK_BYTES,
  segmentSequence,
  type Block,
  type ByteCount,
  type ByteOffset,
  type Generation,
  type SegmentSequence,
  type Slot,
} from '../src/base/units.ts';
import { LRUCache } from 'lru-cache';
import type { LowerDevice } from '../src/device/lower-device.ts';
import { bindChecksum, volumeSeed } from '../src/format/block-checksum.ts';
import { endOfImage, IMAGES_MAX, type BeforeImage } from './before-image.ts';
import {
  firstReplaced,
  foundAt,
  perBlock,
  type FoundImage,
  type FoundImages,
} from './found-image.ts';
import { UndoRuns } from './undo-runs.ts';
import type { UndoSurvey } from './undo-survey.ts';

export interface UndoSegment {
  readonly sequence: SegmentSequence;
  readonly slot: Slot;
  readonly runs: UndoRuns;
}

/** One batch of images, as it was found or put. */
export interface UndoBatch {
  readonly segment: UndoSegment;
  readonly place: ByteOffset;
}

interface Readable {
  readonly found: readonly FoundImage[];
  readonly refusal: VarveError | undefined;
}

interface UndoImagesParts {
  readonly device: LowerDevice;
  readonly slots: UndoSurvey;
  /** Of the undo device, whose they are. */
  readonly segments: ReadonlyMap<SegmentSequence, UndoSegment>;
  readonly volume: Uuid;
  /** For headers of batches. */
  readonly cacheBytes: ByteCount;
  readonly horizon: () => Generation;
}

export class UndoImages {
  readonly #parts: UndoImagesParts;
  readonly #seed: number;
  /** By place, in blocks. */
  readonly #headers: LRUCache<number, readonly BeforeImage[]>;
  #joins = 0;

  constructor(parts: UndoImagesParts) {
    this.#parts = parts;
    this.#seed = volumeSeed(parts.volume);
    this.#headers = new LRUCache({
      maxSize: Math.max(parts.cacheBytes, IMAGES_MAX),
      sizeCalculation: (images) => 64 + images.length * 64,
    });
  }

  /**
   * Images of `count` blocks from `first` on whose span holds `at`, in no order, copies among them.
   * @throws VarveError DEVICE_IO, VOLUME_CORRUPT when a batch is damaged that may have one of them
   */
  async overlapping(first: Block, count: number, at: Generation): Promise<readonly FoundImage[]> {
    const { found, refusal } = await this.#readable(first, count, at);
    if (refusal !== undefined) throw refusal;
    return found;
  }

  async #readable(first: Block, count: number, at: Generation): Promise<Readable> {
    for (;;) {
      const joins = this.#joins;
      const readable = await this.#look(first, count, at);
      // What was joined meanwhile was moved from a segment to come to one that was passed.
      if (joins === this.#joins) return readable;
    }
  }

  async #look(first: Block, count: number, at: Generation): Promise<Readable> {
    const found: FoundImage[] = [];
    let refusal: VarveError | undefined;
    const end = first + count;
    const horizon = this.#parts.horizon();
    for (const segment of this.#parts.segments.values()) {
      for (const place of segment.runs.overlapping(first, end, at)) {
        let images: readonly BeforeImage[];
        try {
          images = await this.#imagesAt(segment, place);
        } catch (error) {
          if (!isVarveError(error, 'VOLUME_CORRUPT') && !isVarveError(error, 'DEVICE_IO'))
            throw error;
          // What is freed or taken back meanwhile is needed by nobody, and its headers are gone.
          const isStated = this.isThere({ segment, place }) && segment.runs.has(place);
          if (isStated) refusal ??= error;
          continue;
        }
        images.forEach((image, i) => {
          if (image.until <= at || image.from > at || image.until > horizon) return;
          if (image.block >= end || endOfImage(image) <= first) return;
          found.push(foundAt(segment.sequence, place, images, i));
        });
      }
    }
    return { found, refusal };
  }

  /**
   * For each of `count` blocks from `first` on what replaced it first after `at`: that image, the
   * newest copy first. Empty: there is none. Where it is not known since when a block was zeros, its
   * image begins at 0, and others that were replaced earlier count before it.
   */
  async find(first: Block, count: number, at: Generation): Promise<FoundImages> {
    const { found, refusal } = await this.#readable(first, count, at);
    return { copies: perBlock(found, first, count).map(firstReplaced), refusal };
  }

  /** Grows when segments are joined: what was found before may have gone elsewhere. */
  get joins(): number {
    return this.#joins;
  }

  /** Images are elsewhere from now on as well, and their segments about to be freed. */
  joined(): void {
    this.#joins += 1;
  }

  /** Whether there may be an image of these blocks, of any time. */
  mayHave(first: Block, count: number): boolean {
    if (this.#parts.slots.hasUnreadPlaces) return true;
    return [...this.#parts.segments.values()].some(({ runs }) =>
      runs.mayHave(first, first + count),
    );
  }

  /**
   * All that is stated in some segments, or on the device, batch by batch; and what the opening could
   * not read there.
   */
  batches(of?: Iterable<SegmentSequence>): readonly UndoBatch[] {
    const { segments, slots } = this.#parts;
    const wanted = new Set(of ?? segments.keys());
    const batches: UndoBatch[] = [];
    for (const sequence of wanted) {
      const segment = segments.get(sequence);
      if (segment === undefined) continue;
      for (const place of segment.runs.places()) batches.push({ segment, place });
    }
    for (const { place, slot, sequence = segmentSequence(0) } of slots.unread) {
      if (of !== undefined && !wanted.has(sequence)) continue;
      batches.push({ segment: { sequence, slot, runs: new UndoRuns() }, place });
    }
    return batches;
  }

  /** Its segment was not freed since. */
  isThere({ segment, place }: UndoBatch): boolean {
    const { segments, slots } = this.#parts;
    return segments.get(segment.sequence) === segment || slots.isUnread(place);
  }

  /**
   * @throws VarveError DEVICE_IO, VOLUME_CORRUPT when its header is damaged, or was not read by the
   *   opening: nothing of it is stated then
   */
  async imagesOf({ segment, place }: UndoBatch): Promise<readonly FoundImage[]> {
    if (this.#parts.slots.isUnread(place)) {
      throw new VarveError(
        'VOLUME_CORRUPT',
        `byte ${place} of ${this.#parts.device.name} could not be read when the volume was opened: ` +
          `before-images may be there`,
      );
    }
    const images = await this.#imagesAt(segment, place);
    return images.map((_, i) => foundAt(segment.sequence, place, images, i));
  }

  async #imagesAt(segment: UndoSegment, place: ByteOffset): Promise<readonly BeforeImage[]> {
    const { slots, segments, device } = this.#parts;
    const key = place / BLOCK_BYTES;
    const cached = this.#headers.get(key);
    if (cached !== undefined) return cached;
    const images = await slots.imagesAt(segment.slot, segment.sequence, place);
    if (images !== undefined) {
      // A slow read may outlive its segment, and another one's batch lies there by then.
      if (segments.get(segment.sequence) === segment) this.#headers.set(key, images);
      return images;
    }
    throw new VarveError(
      'VOLUME_CORRUPT',
      `the before-images at byte ${place} of ${device.name}, segment ${segment.sequence}, are damaged`,
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
      await this.#parts.device.read(place, content);
      if (bindChecksum(crc32c(content), this.#seed, block, from) === checksum) return content;
    }
    return undefined;
  }

  /** Its segment is gone from the device. */
  forget({ runs }: UndoSegment): void {
    for (const place of runs.allPlaces()) this.#headers.delete(place / BLOCK_BYTES);
  }
}
