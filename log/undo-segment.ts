/**
 * A segment of the undo device that is being filled: batch after batch, and a summary at its end.
 *
 * Invariants:
 *   - What a write that failed was to put is not part of it: the next one goes to the same place.
 *   - Its summary lists what was written, and nothing else.
 */
import { isVarveError } from '../src/base/errors.ts';
import type { Uuid } from '../src/base/identity.ts';
import {
  BLOCK_BYTES,
  byteOffset,
  checksum as checksumOf,
  generation as generationOf,
  lsn as lsnOf,
  type ByteOffset,
  type Checksum,
  type Generation,
  type SegmentSequence,
  type Slot,
} from '../src/base/units.ts';
import type { LowerDevice } from '../src/device/lower-device.ts';
import { batchChecksum, usedBytes, type BatchHeader } from './batch.ts';
import { slotOffset, summaryBlocksMax, type LogGeometry } from './geometry.ts';
import { encodeSegmentHeader, encodeSummary, segmentChecksum } from './summary.ts';
import type { Times } from './stream.ts';
import type { UndoSegment } from './undo-images.ts';
import { UndoRuns } from './undo-runs.ts';
import { openingUuid, undoLsn } from './undo-survey.ts';

export interface FillingParts {
  readonly device: LowerDevice;
  readonly geometry: LogGeometry;
  readonly volume: Uuid;
  readonly opening: number;
  readonly now: () => Times;
}

export class FillingSegment implements UndoSegment {
  readonly sequence: SegmentSequence;
  readonly slot: Slot;
  readonly runs = new UndoRuns();
  readonly #parts: FillingParts;
  /** Where the next batch goes, from the slot's beginning. */
  #at: number = BLOCK_BYTES;
  #chain: Checksum;
  /** Of the segment: it goes with the first batch. */
  #header: Uint8Array | undefined;
  /** Used parts of its batch headers; undefined: they would not fit any more. */
  #summary: Uint8Array[] | undefined = [];
  #summaryBytes = 0;

  constructor(parts: FillingParts, sequence: SegmentSequence, slot: Slot) {
    this.#parts = parts;
    this.sequence = sequence;
    this.slot = slot;
    this.#header = encodeSegmentHeader(parts.volume, {
      sequence,
      slot,
      chain: checksumOf(0),
      opening: parts.opening,
      firstLsn: undoLsn(parts.geometry, sequence, BLOCK_BYTES),
      generation: generationOf(0),
      durableLsn: lsnOf(0),
    });
    this.#chain = segmentChecksum(this.#header);
  }

  get #start(): ByteOffset {
    return slotOffset(this.#parts.geometry, this.slot);
  }

  /** Nothing was written, not even its header. */
  get isBlank(): boolean {
    return this.#header !== undefined;
  }

  get hasSummary(): boolean {
    return this.#summary !== undefined;
  }

  /** Where the header of the next batch goes. */
  get place(): ByteOffset {
    return byteOffset(this.#start + this.#at);
  }

  /** What the header of the next batch says, but for what is in it. */
  heading(generation: Generation): Omit<BatchHeader, 'entryCount' | 'payloadBlocks'> {
    const { geometry, opening, now } = this.#parts;
    return {
      ...now(),
      lineage: openingUuid(opening),
      segment: this.sequence,
      lsn: undoLsn(geometry, this.sequence, this.#at),
      generation,
      durable: generationOf(0),
      durableLsn: lsnOf(0),
      chain: this.#chain,
    };
  }

  /** Batches with many zeros have long headers: a summary that has no place is left out. */
  fits(blocks: number, entries: number): boolean {
    const { geometry } = this.#parts;
    const bytes = this.#summaryBytes + usedBytes(entries);
    if (bytes > summaryBlocksMax(geometry) * BLOCK_BYTES) this.#summary = undefined;
    const summary = this.hasSummary ? (1 + Math.ceil(bytes / BLOCK_BYTES)) * BLOCK_BYTES : 0;
    return this.#at + blocks * BLOCK_BYTES + summary <= geometry.segmentBytes;
  }

  /** @returns where the header lies. @throws VarveError DISK_FULL, DEVICE_IO */
  async write(
    header: Uint8Array,
    payloads: readonly Uint8Array[],
    entries: number,
  ): Promise<ByteOffset> {
    const { device } = this.#parts;
    const sources = [header, ...payloads];
    const { place } = this;
    if (this.#header === undefined) await device.write(place, sources);
    else {
      await device.write(byteOffset(place - BLOCK_BYTES), [this.#header, ...sources]);
      this.#header = undefined;
    }
    this.#at += sources.length * BLOCK_BYTES;
    this.#chain = batchChecksum(header);
    const used = usedBytes(entries);
    this.#summary?.push(header.slice(0, used));
    this.#summaryBytes += used;
    return place;
  }

  /** Derived, so that it is no harm when a cut takes it, or the device refuses it. */
  async summarise(): Promise<void> {
    const summary = this.#summary;
    if (summary === undefined) return;
    const { device, geometry, volume } = this.#parts;
    const end = undoLsn(geometry, this.sequence, this.#at);
    const bytes = encodeSummary(volume, this.sequence, end, summary);
    this.#summary = undefined;
    try {
      await device.write(byteOffset(this.#start + geometry.segmentBytes - bytes.length), [bytes]);
    } catch (error) {
      if (!isVarveError(error)) throw error;
    }
  }
}
