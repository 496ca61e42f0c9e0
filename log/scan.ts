/**
 * Reading segments back, as recovery needs them: headers, summaries, batches one after the other.
 * Nothing here decides what to believe; that is `replay.ts`.
 *
 * Invariant: a block that may be a header, and that the device refuses, is passed over and remembered
 * in `refused`. A payload that it refuses is thrown: it is neither whole nor torn.
 */
import { crc32c } from '../src/base/crc32c.ts';
import { isVarveError, type VarveError } from '../src/base/errors.ts';
import { uuidBytes, type Uuid } from '../src/base/identity.ts';
import {
  BLOCK_BYTES,
  byteOffset,
  type ByteOffset,
  type Lsn,
  type Slot,
} from '../src/base/units.ts';
import type { LowerDevice } from '../src/device/lower-device.ts';
import { readNarrowed } from '../src/device/read-narrowed.ts';
import { bindChecksum, volumeSeed } from '../src/format/block-checksum.ts';
import { FLAG_START, KIND_DATA, KIND_RECORD } from '../src/format/layouts.ts';
import { decodeBatch, endOf, entryOf, startsWithBatchMagic, type Batch } from './batch.ts';
import { slotOffset, type LogGeometry } from './geometry.ts';
import { readStrictly, Slots, TolerantReads } from './slots.ts';
import type { ReadSegmentHeader } from './summary.ts';

const WINDOW_BYTES = 1024 * 1024;
/** Blocks that are passed over: with more of them the device as a whole is to blame. */
const REFUSALS_MAX = 256;

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
  /** Derived: the headers tell the same as a summary that can't be read. */
  readonly #summaries: Slots;
  readonly #volumeBytes: Uint8Array;
  readonly #seed: number;
  readonly #refused = new Map<number, VarveError>();
  #window = new Uint8Array(0);
  #windowAt = -1;
  /** Blocks of the window that the device refuses. */
  #windowBad: ReadonlyMap<number, VarveError> = new Map();

  constructor(device: LowerDevice, geometry: LogGeometry, volume: Uuid) {
    this.#device = device;
    this.#geometry = geometry;
    this.#slots = new Slots(readStrictly(device), geometry, volume);
    this.#summaries = new Slots(new TolerantReads(device).read, geometry, volume);
    this.#volumeBytes = uuidBytes(volume);
    this.#seed = volumeSeed(volume);
  }

  /** By where they lie: blocks that may be headers, and were passed over. */
  get refused(): ReadonlyMap<number, VarveError> {
    return this.#refused;
  }

  /**
   * Every slot's header, each read a second time where the first one was not to be believed.
   * @throws VarveError DEVICE_IO when the device refuses very much
   */
  async survey(): Promise<Survey> {
    const headers: ReadSegmentHeader[] = [];
    const headless: ReadSegmentHeader[] = [];
    for (const slot of this.#slots.all()) {
      const header = await this.#orPass(
        slotOffset(this.#geometry, slot),
        async () => (await this.#slots.header(slot)) ?? (await this.#slots.header(slot)),
      );
      if (header !== undefined) {
        headers.push(header);
        continue;
      }
      const first = this.#slots.batchesAt(slot);
      const batch = await this.#orPass(first, () => this.#slots.batch(first));
      if (batch !== undefined) headless.push(headerOf(slot, batch));
    }
    return { headers, headless };
  }

  async #orPass<T>(at: number, read: () => Promise<T>): Promise<T | undefined> {
    try {
      return await read();
    } catch (error) {
      if (!isVarveError(error, 'DEVICE_IO')) throw error;
      this.#refused.set(at, error);
      if (this.#refused.size > REFUSALS_MAX) throw error;
      return undefined;
    }
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

  /** Where a closed segment ends, by its summary; undefined when that does not tell. */
  async closedAt({ slot, sequence }: ReadSegmentHeader): Promise<Lsn | undefined> {
    const footer = await this.#summaries.footer(slot);
    return footer?.sequence === sequence ? footer.endLsn : undefined;
  }

  /**
   * The batches of a closed segment as its summary lists them.
   * @returns undefined when there is none that belongs to this segment, is whole, and can be read
   */
  async summary(segment: ReadSegmentHeader): Promise<readonly Batch[] | undefined> {
    const summary = await this.#summaries.summary(segment.slot);
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
   * The batch header at `position` of a segment, or undefined when there is none of this volume, or
   * none that can be read. It is read a second time before that is said: a device may have answered
   * with what lies elsewhere.
   */
  async batchAt(segment: ReadSegmentHeader, position: Lsn): Promise<Batch | undefined> {
    const at = this.#placeOf(segment, position);
    return await this.#orPass(at, () => this.#batchAt(segment, position));
  }

  #placeOf(segment: ReadSegmentHeader, position: Lsn): ByteOffset {
    const inside = BLOCK_BYTES + (position - segment.firstLsn);
    return byteOffset(slotOffset(this.#geometry, segment.slot) + inside);
  }

  async #batchAt(segment: ReadSegmentHeader, position: Lsn): Promise<Batch | undefined> {
    const at = this.#placeOf(segment, position);
    const { segmentBytes } = this.#geometry;
    if (at + BLOCK_BYTES > slotOffset(this.#geometry, segment.slot) + segmentBytes) {
      return undefined;
    }
    const found = this.#batchIn(await this.#block(at), segment, position);
    if (found !== undefined) return found;
    this.#windowAt = -1;
    return this.#batchIn(await this.#block(at, BLOCK_BYTES), segment, position);
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
    const at = byteOffset(this.#placeOf(segment, batch.header.lsn) + BLOCK_BYTES);
    await this.#device.read(at, bytes);
    if (this.#fit(batch, bytes)) return bytes;
    await this.#device.read(at, bytes);
    return bytes;
  }

  /** One block of the stream in this segment, as it lies there now. */
  async blockAt(segment: ReadSegmentHeader, position: Lsn): Promise<Uint8Array> {
    const bytes = new Uint8Array(BLOCK_BYTES);
    await this.#device.read(this.#placeOf(segment, position), bytes);
    return bytes;
  }

  /** Whether each payload matches the checksum of its entry. */
  async isWhole(segment: ReadSegmentHeader, batch: Batch): Promise<boolean> {
    return this.#fit(batch, await this.payloads(segment, batch));
  }

  /** The batch at `position` with its payloads, if they match. @throws VarveError DEVICE_IO */
  async wholeAt(segment: ReadSegmentHeader, position: Lsn): Promise<WholeBatch | undefined> {
    const batch = await this.#batchAt(segment, position);
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
      const at = slotOffset(this.#geometry, segment.slot) + inside;
      const bytes = await this.#orPass(at, () => this.#block(at));
      if (bytes === undefined || !startsWithBatchMagic(bytes)) continue;
      const batch = decodeBatch(bytes, this.#volumeBytes);
      const position = segment.firstLsn + inside - BLOCK_BYTES;
      if (batch === undefined || batch.header.segment !== segment.sequence) continue;
      if (batch.header.lsn === position) yield { ...batch, bytes: batch.bytes.slice() };
    }
  }

  /** One block of the device, through a window; a bad one in it costs the others nothing. */
  async #block(at: number, windowBytes = WINDOW_BYTES): Promise<Uint8Array> {
    const isInWindow =
      this.#windowAt >= 0 &&
      at >= this.#windowAt &&
      at + BLOCK_BYTES <= this.#windowAt + this.#window.length;
    if (!isInWindow) await this.#fill(at, Math.min(windowBytes, this.#geometry.logBytes - at));
    const inWindow = at - this.#windowAt;
    const refusal = this.#windowBad.get(inWindow / BLOCK_BYTES);
    if (refusal !== undefined) throw refusal;
    return this.#window.subarray(inWindow, inWindow + BLOCK_BYTES);
  }

  async #fill(at: number, length: number): Promise<void> {
    const window = new Uint8Array(length);
    this.#windowBad = await readNarrowed(
      (from, part) => this.#device.read(byteOffset(at + from), part),
      window,
    );
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
