/**
 * Reading segments back, as recovery needs them: headers, summaries, batches one after the other.
 * Nothing here decides what to believe; that is `replay.ts`.
 */
import { crc32c } from '../src/base/crc32c.ts';
import { isVarveError } from '../src/base/errors.ts';
import { uuidBytes, type Uuid } from '../src/base/identity.ts';
import { BLOCK_BYTES, byteOffset, type Lsn, type Slot } from '../src/base/units.ts';
import type { LowerDevice } from '../src/device/lower-device.ts';
import { bindChecksum, volumeSeed } from '../src/format/block-checksum.ts';
import { FLAG_START, KIND_DATA, KIND_RECORD } from '../src/format/layouts.ts';
import { decodeBatch, endOf, entryOf, startsWithBatchMagic, type Batch } from './batch.ts';
import { slotOffset, type LogGeometry } from './geometry.ts';
import { readStrictly, Slots } from './slots.ts';
import type { ReadSegmentHeader } from './summary.ts';

const WINDOW_BYTES = 1024 * 1024;

export interface Survey {
  readonly headers: readonly ReadSegmentHeader[];
  /**
   * Of slots whose header does not decode, though a batch follows it: damage, or a cut that took
   * the header. What their batches state to be durable counts.
   */
  readonly headless: readonly ReadSegmentHeader[];
}

export interface WholeBatch {
  readonly batch: Batch;
  /** The header's 4096 bytes. */
  readonly block: Uint8Array;
  readonly payloads: Uint8Array;
}

export class SlotReader {
  readonly #device: LowerDevice;
  readonly #geometry: LogGeometry;
  readonly #slots: Slots;
  readonly #volumeBytes: Uint8Array;
  readonly #seed: number;
  #window = new Uint8Array(0);
  #windowAt = -1;

  constructor(device: LowerDevice, geometry: LogGeometry, volume: Uuid) {
    this.#device = device;
    this.#geometry = geometry;
    this.#slots = new Slots(readStrictly(device), geometry, volume);
    this.#volumeBytes = uuidBytes(volume);
    this.#seed = volumeSeed(volume);
  }

  /** Every slot's header, each read a second time where the first one was not to be believed. */
  async survey(): Promise<Survey> {
    const headers: ReadSegmentHeader[] = [];
    const headless: ReadSegmentHeader[] = [];
    for (const slot of this.#slots.all()) {
      const header = (await this.#slots.header(slot)) ?? (await this.#slots.header(slot));
      if (header !== undefined) {
        headers.push(header);
        continue;
      }
      const batch = await this.#slots.batch(this.#slots.batchesAt(slot));
      if (batch !== undefined) headless.push(headerOf(slot, batch));
    }
    return { headers, headless };
  }

  /**
   * Batch headers in a slot that does not show the segment which they are of: one that begins at
   * `end` or behind it. What the device refuses to read there tells nothing.
   * @param after - sequence of the segment before
   */
  async *strays(slot: Slot, after: number, end: Lsn): AsyncGenerator<Batch> {
    const { segmentBytes, slotCount } = this.#geometry;
    const start = slotOffset(this.#geometry, slot);
    const furthest = end + slotCount * segmentBytes;
    for (let inside = BLOCK_BYTES; inside < segmentBytes; inside += BLOCK_BYTES) {
      const bytes = await this.#blockOrNone(start + inside);
      if (bytes === undefined || !startsWithBatchMagic(bytes)) continue;
      const batch = decodeBatch(bytes, this.#volumeBytes);
      if (batch === undefined) continue;
      const { segment, lsn: position } = batch.header;
      const begins = position - (inside - BLOCK_BYTES);
      const isNear = begins >= end && begins <= furthest && segment <= after + slotCount;
      if (isNear && segment > after) yield batch;
    }
  }

  async #blockOrNone(at: number): Promise<Uint8Array | undefined> {
    try {
      return await this.#block(at);
    } catch (error) {
      if (isVarveError(error, 'DEVICE_IO')) return undefined;
      throw error;
    }
  }

  /**
   * The batches of a closed segment as its summary lists them.
   * @returns undefined when there is none that belongs to this segment and is whole
   */
  async summary(segment: ReadSegmentHeader): Promise<readonly Batch[] | undefined> {
    const summary = await this.#slots.summary(segment.slot);
    if (summary?.footer.sequence !== segment.sequence) return undefined;
    const { footer, batches } = summary;
    let position = segment.firstLsn;
    let chain = segment.checksum;
    for (const batch of batches) {
      if (batch.header.lsn !== position) return undefined;
      // A summary that an earlier life left lists batches that are chained to another header.
      if (batch.header.segment !== segment.sequence || batch.header.chain !== chain) {
        return undefined;
      }
      chain = batch.checksum;
      position = endOf(batch);
    }
    return position === footer.endLsn && batches.length === footer.batchCount ? batches : undefined;
  }

  /**
   * The batch header at `position` of a segment, or undefined when there is none of this volume. It
   * is read a second time before that is said: a device may have answered with what lies elsewhere.
   */
  async batchAt(segment: ReadSegmentHeader, position: Lsn): Promise<Batch | undefined> {
    const inside = BLOCK_BYTES + (position - segment.firstLsn);
    if (inside + BLOCK_BYTES > this.#geometry.segmentBytes) return undefined;
    const at = slotOffset(this.#geometry, segment.slot) + inside;
    const found = this.#batchIn(await this.#block(at), segment, position);
    if (found !== undefined) return found;
    await this.#fill(at, BLOCK_BYTES);
    return this.#batchIn(this.#window, segment, position);
  }

  #batchIn(bytes: Uint8Array, segment: ReadSegmentHeader, position: Lsn): Batch | undefined {
    const batch = decodeBatch(bytes, this.#volumeBytes);
    if (batch === undefined) return undefined;
    const { header } = batch;
    if (header.segment !== segment.sequence || header.lsn !== position) return undefined;
    const inside = BLOCK_BYTES + (position - segment.firstLsn);
    if (inside + (1 + header.payloadBlocks) * BLOCK_BYTES > this.#geometry.segmentBytes) {
      return undefined;
    }
    // The window moves on; the batch keeps its own copy.
    return { ...batch, bytes: batch.bytes.slice() };
  }

  /** Payload blocks of a batch, in entry order; read a second time where they do not match. */
  async payloads(segment: ReadSegmentHeader, batch: Batch): Promise<Uint8Array> {
    const bytes = new Uint8Array(batch.header.payloadBlocks * BLOCK_BYTES);
    if (bytes.length === 0) return bytes;
    const inside = 2 * BLOCK_BYTES + (batch.header.lsn - segment.firstLsn);
    const at = byteOffset(slotOffset(this.#geometry, segment.slot) + inside);
    await this.#device.read(at, bytes);
    if (this.#fit(batch, bytes)) return bytes;
    await this.#device.read(at, bytes);
    return bytes;
  }

  /** Whether each payload matches the checksum of its entry. */
  async isWhole(segment: ReadSegmentHeader, batch: Batch): Promise<boolean> {
    return this.#fit(batch, await this.payloads(segment, batch));
  }

  /** The batch at `position` with its payloads, if they match. */
  async wholeAt(segment: ReadSegmentHeader, position: Lsn): Promise<WholeBatch | undefined> {
    const batch = await this.batchAt(segment, position);
    if (batch === undefined) return undefined;
    const payloads = await this.payloads(segment, batch);
    if (!this.#fit(batch, payloads)) return undefined;
    const block = new Uint8Array(BLOCK_BYTES);
    block.set(batch.bytes);
    return { batch, block, payloads };
  }

  #fit(batch: Batch, payloads: Uint8Array): boolean {
    return payloadsFit(batch, payloads, this.#seed);
  }

  /** Every batch header of this segment from `from` on, at any block: also behind a gap. */
  async *leftovers(segment: ReadSegmentHeader, from: Lsn): AsyncGenerator<Batch> {
    const first = BLOCK_BYTES + (from - segment.firstLsn);
    for (let inside = first; inside < this.#geometry.segmentBytes; inside += BLOCK_BYTES) {
      const bytes = await this.#block(slotOffset(this.#geometry, segment.slot) + inside);
      if (!startsWithBatchMagic(bytes)) continue;
      const batch = decodeBatch(bytes, this.#volumeBytes);
      const position = segment.firstLsn + inside - BLOCK_BYTES;
      if (batch === undefined || batch.header.segment !== segment.sequence) continue;
      if (batch.header.lsn === position) yield { ...batch, bytes: batch.bytes.slice() };
    }
  }

  /** One block of the device through a window of 1 MiB, or alone where the device refuses that. */
  async #block(at: number): Promise<Uint8Array> {
    const inWindow = at - this.#windowAt;
    if (this.#windowAt < 0 || inWindow < 0 || inWindow + BLOCK_BYTES > this.#window.length) {
      const length = Math.min(WINDOW_BYTES, this.#geometry.logBytes - at);
      try {
        await this.#fill(at, length);
      } catch (error) {
        if (!isVarveError(error, 'DEVICE_IO')) throw error;
        await this.#fill(at, BLOCK_BYTES);
      }
      return this.#window.subarray(0, BLOCK_BYTES);
    }
    return this.#window.subarray(inWindow, inWindow + BLOCK_BYTES);
  }

  async #fill(at: number, length: number): Promise<void> {
    const window = new Uint8Array(length);
    await this.#device.read(byteOffset(at), window);
    this.#window = window;
    this.#windowAt = at;
  }
}

/** What the first batch of a segment tells of its header. */
function headerOf(slot: Slot, { header }: Batch): ReadSegmentHeader {
  const { segment: sequence, lsn: firstLsn, chain, generation, durableLsn } = header;
  return { sequence, slot, firstLsn, chain, checksum: chain, opening: 0, generation, durableLsn };
}

/** Whether each payload is what the checksum of its entry says. */
function payloadsFit(batch: Batch, payloads: Uint8Array, seed: number): boolean {
  let generation: number = batch.header.generation;
  let at = 0;
  for (let i = 0; i < batch.header.entryCount; i++) {
    const entry = entryOf(batch, i);
    if ((entry.flags & FLAG_START) !== 0) generation += 1;
    if (entry.kind !== KIND_DATA && entry.kind !== KIND_RECORD) continue;
    const position = batch.header.lsn + BLOCK_BYTES + at;
    const place = entry.kind === KIND_DATA ? entry.block : position / BLOCK_BYTES;
    const crc = crc32c(payloads.subarray(at, at + BLOCK_BYTES));
    if (bindChecksum(crc, seed, place, generation) !== entry.checksum) return false;
    at += BLOCK_BYTES;
  }
  return true;
}
