/** What lies in the slots of an undo device: how an opening finds its segments. */
import { uuidBytes, type Uuid } from '../src/base/identity.ts';
import {
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  lsn as lsnOf,
  type ByteCount,
  type ByteOffset,
  type Lsn,
  type SegmentSequence,
  type Slot,
} from '../src/base/units.ts';
import type { LowerDevice } from '../src/device/lower-device.ts';
import { decodeBatch, endOf, UNDO_KINDS } from './batch.ts';
import { decodeImages, type BeforeImage } from './before-image.ts';
import { slotOffset, type LogGeometry } from './geometry.ts';
import { readStrictly, Slots } from './slots.ts';

const SLOTS_OFFSET = 64 * 1024;
const WINDOW_BYTES = 1024 * 1024;

/** Slots on an undo device of that size. */
export function undoGeometry(size: ByteCount, segmentBytes: ByteCount): LogGeometry {
  const slotCount = Math.max(0, Math.floor((size - SLOTS_OFFSET) / segmentBytes));
  return {
    size,
    logBytes: size,
    segmentBytes,
    slotCount,
    checkpointBytes: byteCount(0),
    requestBytesMax: byteCount(BLOCK_BYTES),
  };
}

/** Positions follow from the sequence: no two batches ever have the same one. */
export function undoLsn({ segmentBytes }: LogGeometry, sequence: number, inside: number): Lsn {
  return lsnOf(sequence * segmentBytes + inside);
}

export interface SurveyedBatch {
  readonly place: ByteOffset;
  readonly images: readonly BeforeImage[];
}

export interface SurveyedSegment {
  readonly sequence: SegmentSequence;
  readonly batches: readonly SurveyedBatch[];
}

export class UndoSurvey {
  readonly #device: LowerDevice;
  readonly #geometry: LogGeometry;
  readonly #volume: Uint8Array;
  readonly #slots: Slots;

  constructor(device: LowerDevice, geometry: LogGeometry, volume: Uuid) {
    this.#device = device;
    this.#geometry = geometry;
    this.#volume = uuidBytes(volume);
    this.#slots = new Slots(readStrictly(device), geometry, volume, UNDO_KINDS);
  }

  /** @returns undefined: no segment has it. @throws VarveError DEVICE_IO */
  async slot(slot: Slot): Promise<SurveyedSegment | undefined> {
    const sequence = await this.#sequenceOf(slot);
    if (sequence === undefined) return undefined;
    const summary = await this.#slots.summary(slot);
    if (summary?.footer.sequence !== sequence) {
      return { sequence, batches: await this.#scan(sequence, slot) };
    }
    const start = slotOffset(this.#geometry, slot);
    const batches: SurveyedBatch[] = [];
    for (const batch of summary.batches) {
      if (batch.header.segment !== sequence) continue;
      const inside = batch.header.lsn - undoLsn(this.#geometry, sequence, 0);
      const images = decodeImages(batch);
      if (images !== undefined) batches.push({ place: byteOffset(start + inside), images });
    }
    return { sequence, batches };
  }

  /**
   * What the batch at `place`, in a slot, states.
   * @returns undefined when it is damaged. @throws VarveError DEVICE_IO
   */
  async imagesAt(
    slot: Slot,
    sequence: SegmentSequence,
    place: ByteOffset,
  ): Promise<readonly BeforeImage[] | undefined> {
    const inside = place - slotOffset(this.#geometry, slot);
    const lsn = undoLsn(this.#geometry, sequence, inside);
    // A second look: a device may have answered with what lies elsewhere.
    for (let look = 0; look < 2; look++) {
      const batch = await this.#slots.batch(place);
      if (batch?.header.segment !== sequence || batch.header.lsn !== lsn) continue;
      const images = decodeImages(batch);
      if (images !== undefined) return images;
    }
    return undefined;
  }

  /** Where the header is damaged, the first batch tells, or a summary. */
  async #sequenceOf(slot: Slot): Promise<SegmentSequence | undefined> {
    const header = await this.#slots.header(slot);
    if (header !== undefined) return header.sequence;
    const first = await this.#slots.batch(this.#slots.batchesAt(slot));
    if (first !== undefined) {
      const { segment, lsn } = first.header;
      if (lsn === undoLsn(this.#geometry, segment, BLOCK_BYTES)) return segment;
    }
    const summary = await this.#slots.summary(slot);
    return summary?.footer.sequence;
  }

  /** A segment without a summary: batch headers at any block of it. */
  async #scan(sequence: SegmentSequence, slot: Slot): Promise<readonly SurveyedBatch[]> {
    const { segmentBytes } = this.#geometry;
    const start = slotOffset(this.#geometry, slot);
    const window = new Uint8Array(Math.min(WINDOW_BYTES, segmentBytes));
    const batches: SurveyedBatch[] = [];
    let windowAt = -1;
    for (let inside = BLOCK_BYTES; inside < segmentBytes;) {
      if (windowAt < 0 || inside + BLOCK_BYTES > windowAt + window.length) {
        windowAt = Math.min(inside, segmentBytes - window.length);
        await this.#device.read(byteOffset(start + windowAt), window);
      }
      const from = inside - windowAt;
      const batch = decodeBatch(window.slice(from, from + BLOCK_BYTES), this.#volume, UNDO_KINDS);
      const position = undoLsn(this.#geometry, sequence, inside);
      if (batch?.header.segment !== sequence || batch.header.lsn !== position) {
        inside += BLOCK_BYTES;
        continue;
      }
      const images = decodeImages(batch);
      if (images !== undefined) batches.push({ place: byteOffset(start + inside), images });
      inside += endOf(batch) - position;
    }
    return batches;
  }
}
