/**
 * What lies in the slots of an undo device: how an opening finds its segments.
 *
 * Invariants:
 *   - What is taken for a segment's is of the opening that began it. Sequences that a crash took back
 *     are given again, so that a slot may hold another one's batches with the right positions.
 *   - What the device refuses is passed over and remembered in `unread`: it may state images. Such a
 *     slot is not used again, and nothing of it given up, so that the next opening may find it; the
 *     marks of a join there may be written again, the same bytes.
 *   - A device of which nothing can be read is away, and that is thrown.
 */
import { VarveError } from '../src/base/errors.ts';
import { NIL_UUID, uuidBytes, uuidText, type Uuid } from '../src/base/identity.ts';
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
import { readNarrowed } from '../src/device/read-narrowed.ts';
import { anyAnswers } from '../src/device/some-places.ts';
import { decodeBatch, endOf, UNDO_KINDS, usedBytes, type Batch } from './batch.ts';
import { decodeImages, type BeforeImage } from './before-image.ts';
import { slotOffset, type LogGeometry } from './geometry.ts';
import { decodeJoined } from './joined.ts';
import { readStrictly, Slots, TolerantReads } from './slots.ts';

const SLOTS_OFFSET = 64 * 1024;
const WINDOW_BYTES = 1024 * 1024;
/** With more bad places the device as a whole is to blame. */
const UNREAD_MAX = 256;

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

/** What batches say of the opening that wrote them. */
export function openingUuid(opening: number): Uuid {
  return uuidText(Buffer.from(opening.toString(16).padStart(32, '0'), 'hex'));
}

export interface SurveyedBatch {
  readonly place: ByteOffset;
  readonly images: readonly BeforeImage[];
}

/** The header block of a batch, and where it lies. */
export interface UndoBlock {
  readonly place: ByteOffset;
  readonly block: Uint8Array;
}

/** Where it is told that a segment holds all of others. */
export interface JoinMarks {
  readonly sources: readonly SegmentSequence[];
  readonly blocks: readonly UndoBlock[];
}

/** Segments that count for nothing, and what speaks against them, by the segment that it is of. */
export interface Voided {
  readonly sequences: ReadonlySet<SegmentSequence>;
  readonly joins: ReadonlyMap<SegmentSequence, JoinMarks>;
}

/** What a slot holds, at a glance. */
export interface UndoSlot {
  readonly slot: Slot;
  readonly sequence: SegmentSequence;
  /** Segments that were to be joined into it; undefined: it was filled by rounds. */
  readonly sources: readonly SegmentSequence[] | undefined;
  /** What its batches may say of the opening that wrote them; none: nobody knows. */
  readonly openings: readonly Uuid[];
}

/** A place that an opening could not read. */
export interface UnreadPlace {
  readonly place: ByteOffset;
  readonly slot: Slot;
  /** Of the segment there; undefined: nothing tells it. */
  readonly sequence: SegmentSequence | undefined;
}

export class UndoSurvey {
  readonly #device: LowerDevice;
  readonly #geometry: LogGeometry;
  readonly #volume: Uint8Array;
  readonly #strict: Slots;
  readonly #reads: TolerantReads;
  readonly #slots: Slots;
  readonly #unread = new Map<ByteOffset, UnreadPlace>();
  readonly #slotsOf = new Map<SegmentSequence, Slot>();
  #wasThere = false;

  constructor(device: LowerDevice, geometry: LogGeometry, volume: Uuid) {
    this.#device = device;
    this.#geometry = geometry;
    this.#volume = uuidBytes(volume);
    this.#strict = new Slots(readStrictly(device), geometry, volume, UNDO_KINDS);
    this.#reads = new TolerantReads(device);
    this.#slots = new Slots(this.#reads.read, geometry, volume, UNDO_KINDS);
  }

  /** What an opening passed over, where images may be stated. */
  get unread(): Iterable<UnreadPlace> {
    return this.#unread.values();
  }

  get hasUnreadPlaces(): boolean {
    return this.#unread.size > 0;
  }

  /** Something in it could not be read: what it holds is not given up. */
  hasUnread(slot: Slot): boolean {
    return [...this.#unread.values()].some((one) => one.slot === slot);
  }

  /** There are slots of which nothing is told. */
  get hasUnknown(): boolean {
    return [...this.#unread.values()].some(({ sequence }) => sequence === undefined);
  }

  /** Whether nothing is known of what that place states. */
  isUnread(place: ByteOffset): boolean {
    return this.#unread.has(place);
  }

  #pass(one: UnreadPlace): void {
    this.#unread.set(one.place, one);
    if (this.#unread.size <= UNREAD_MAX) return;
    throw new VarveError('DEVICE_IO', `${this.#device.name}: ${this.#unread.size} places`);
  }

  /** Whether the device reads anything at all, now. */
  async isThere(): Promise<boolean> {
    const block = new Uint8Array(BLOCK_BYTES);
    return await anyAnswers(Math.floor(this.#device.size / BLOCK_BYTES), async (at) => {
      await this.#device.read(byteOffset(at * BLOCK_BYTES), block);
      return true;
    });
  }

  /** @throws VarveError DEVICE_IO when nothing of the device can be read */
  async #needDevice(): Promise<void> {
    this.#wasThere ||= await this.isThere();
    if (!this.#wasThere) throw new VarveError('DEVICE_IO', `${this.#device.name}: nothing is read`);
  }

  /** @returns undefined: no segment has it, or none that can be told. @throws VarveError DEVICE_IO */
  async glance(slot: Slot): Promise<UndoSlot | undefined> {
    const refusals = this.#reads.refusals;
    const first = await this.#slots.batch(this.#slots.batchesAt(slot));
    const sequence = await this.#sequenceOf(slot, first);
    const isRefused = this.#reads.refusals > refusals;
    if (isRefused) await this.#needDevice();
    // The number of what could not be read was given again.
    const isTwice = sequence !== undefined && (this.#slotsOf.get(sequence) ?? slot) !== slot;
    if (isTwice || (isRefused && sequence === undefined)) {
      this.#pass({ place: slotOffset(this.#geometry, slot), slot, sequence: undefined });
      return undefined;
    }
    if (sequence === undefined) return undefined;
    this.#slotsOf.set(sequence, slot);
    if (first?.header.segment === sequence && this.#isFirst(first)) {
      return { slot, sequence, sources: decodeJoined(first), openings: [first.header.lineage] };
    }
    const header = await this.#slots.header(slot);
    // Early versions did not say it.
    const openings = header === undefined ? [] : [openingUuid(header.opening), NIL_UUID];
    return { slot, sequence, sources: undefined, openings };
  }

  /**
   * Segments that count for nothing: others hold all that is in them.
   * @param slots - all that hold something. @throws VarveError DEVICE_IO
   */
  async voided(slots: readonly UndoSlot[]): Promise<Voided> {
    const there = new Set(slots.map(({ sequence }) => sequence));
    const voided = new Set<SegmentSequence>();
    const joins = new Map<SegmentSequence, JoinMarks>();
    for (const one of slots) {
      const { sources, sequence, slot } = one;
      if (sources === undefined) continue;
      const first = this.#slots.batchesAt(slot);
      const blocks = await this.#marks(one, sources);
      // Whole: the mark is there that comes once all of it is durable.
      if (blocks.some(({ place }) => place !== first)) {
        for (const source of sources) voided.add(source);
        if (sources.some((source) => there.has(source))) joins.set(sequence, { sources, blocks });
      } else if (sources.every((source) => there.has(source))) voided.add(sequence);
    }
    return { sequences: voided, joins };
  }

  async #marks(slot: UndoSlot, sources: readonly SegmentSequence[]): Promise<readonly UndoBlock[]> {
    const marks: UndoBlock[] = [];
    await this.#eachBatch(slot, (place, batch) => {
      if (!isSame(decodeJoined(batch), sources)) return;
      const block = new Uint8Array(BLOCK_BYTES);
      block.set(batch.bytes.subarray(0, usedBytes(sources.length)));
      marks.push({ place, block });
    });
    return marks;
  }

  /** @throws VarveError DEVICE_IO */
  async hasSummary({ slot, sequence }: Pick<UndoSlot, 'slot' | 'sequence'>): Promise<boolean> {
    const summary = await this.#strict.summary(slot);
    return summary?.footer.sequence === sequence;
  }

  /** @throws VarveError DEVICE_IO */
  async batches(slot: UndoSlot): Promise<readonly SurveyedBatch[]> {
    const batches: SurveyedBatch[] = [];
    await this.#eachBatch(slot, (place, batch) => {
      const images = decodeImages(batch);
      if (images !== undefined) batches.push({ place, images });
    });
    return batches;
  }

  async #eachBatch(
    { slot, sequence, openings }: UndoSlot,
    visit: (place: ByteOffset, batch: Batch) => void,
  ): Promise<void> {
    const isOwn = ({ header: { segment, lineage } }: Batch): boolean =>
      segment === sequence && (openings.length === 0 || openings.includes(lineage));
    const summary = await this.#slots.summary(slot);
    if (summary?.footer.sequence !== sequence || !summary.batches.every(isOwn)) {
      await this.#scan(sequence, slot, isOwn, visit);
      return;
    }
    const start = slotOffset(this.#geometry, slot);
    for (const batch of summary.batches) {
      const inside = batch.header.lsn - undoLsn(this.#geometry, sequence, 0);
      visit(byteOffset(start + inside), batch);
    }
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
      const batch = await this.#strict.batch(place);
      if (batch?.header.segment !== sequence || batch.header.lsn !== lsn) continue;
      const images = decodeImages(batch);
      if (images !== undefined) return images;
    }
    return undefined;
  }

  /** Where the header is damaged, the first batch tells, or a summary. */
  async #sequenceOf(slot: Slot, first: Batch | undefined): Promise<SegmentSequence | undefined> {
    const header = await this.#slots.header(slot);
    if (header !== undefined) return header.sequence;
    if (first !== undefined && this.#isFirst(first)) return first.header.segment;
    const summary = await this.#slots.summary(slot);
    return summary?.footer.sequence;
  }

  #isFirst({ header: { segment, lsn } }: Batch): boolean {
    return lsn === undoLsn(this.#geometry, segment, BLOCK_BYTES);
  }

  /** A segment without a summary: batch headers at any block of it. */
  async #scan(
    sequence: SegmentSequence,
    slot: Slot,
    isOwn: (batch: Batch) => boolean,
    visit: (place: ByteOffset, batch: Batch) => void,
  ): Promise<void> {
    const { segmentBytes } = this.#geometry;
    const start = slotOffset(this.#geometry, slot);
    const window = new Uint8Array(Math.min(WINDOW_BYTES, segmentBytes));
    let windowAt = -1;
    let refused: ReadonlyMap<number, VarveError> = new Map();
    for (let inside = BLOCK_BYTES; inside < segmentBytes;) {
      if (windowAt < 0 || inside + BLOCK_BYTES > windowAt + window.length) {
        windowAt = Math.min(inside, segmentBytes - window.length);
        const from = start + windowAt;
        refused = await readNarrowed(
          (at, part) => this.#device.read(byteOffset(from + at), part),
          window,
        );
        if (refused.size > 0) await this.#needDevice();
      }
      const from = inside - windowAt;
      if (refused.has(from / BLOCK_BYTES)) {
        this.#pass({ place: byteOffset(start + inside), slot, sequence });
        inside += BLOCK_BYTES;
        continue;
      }
      const batch = decodeBatch(window.slice(from, from + BLOCK_BYTES), this.#volume, UNDO_KINDS);
      const position = undoLsn(this.#geometry, sequence, inside);
      if (batch?.header.lsn !== position || !isOwn(batch)) {
        inside += BLOCK_BYTES;
        continue;
      }
      visit(byteOffset(start + inside), batch);
      inside += endOf(batch) - position;
    }
  }
}

function isSame(
  found: readonly SegmentSequence[] | undefined,
  wanted: readonly SegmentSequence[],
): boolean {
  return found?.length === wanted.length && found.every((source, i) => source === wanted[i]);
}
