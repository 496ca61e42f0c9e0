/**
 * What the slots of the log device still hold: the entries of every batch that lies there, of live
 * segments and of those that were recycled and not overwritten yet. Reads only.
 *
 * Invariants:
 *   - Nothing here is history by itself: a payload counts only when it fits a checksum that somebody
 *     else vouches for.
 *   - What the device refuses to read is passed over.
 */
import { crc32c } from '../src/base/crc32c.ts';
import { isVarveError } from '../src/base/errors.ts';
import { uuidBytes, type Uuid } from '../src/base/identity.ts';
import {
  BLOCK_BYTES,
  byteOffset,
  slot as slotOf,
  type Block,
  type ByteOffset,
  type Checksum,
  type Generation,
  type Slot,
} from '../src/base/units.ts';
import type { LowerDevice } from '../src/device/lower-device.ts';
import { bindChecksum, volumeSeed } from '../src/format/block-checksum.ts';
import { FLAG_START, KIND_DATA, KIND_RECORD } from '../src/format/layouts.ts';
import { decodeBatch, entryOf, usedBytes, type Batch } from './batch.ts';
import { slotOffset, summaryBlocksMax, type LogGeometry } from './geometry.ts';
import { decodeSegmentHeader, decodeSummaryFooter } from './summary.ts';

/** A version of a block, as its checksum identifies it. */
export interface WantedVersion {
  readonly generation: Generation;
  readonly checksum: Checksum;
}

/** A batch header that lies in a slot, and where its first payload does. */
interface FoundBatch {
  readonly batch: Batch;
  readonly payloadsAt: number;
}

export class Leftovers {
  readonly #device: LowerDevice;
  readonly #geometry: LogGeometry;
  readonly #volume: Uuid;
  readonly #volumeBytes: Uint8Array;
  readonly #seed: number;

  constructor(device: LowerDevice, geometry: LogGeometry, volume: Uuid) {
    this.#device = device;
    this.#geometry = geometry;
    this.#volume = volume;
    this.#volumeBytes = uuidBytes(volume);
    this.#seed = volumeSeed(volume);
  }

  /** Every slot. */
  allSlots(): readonly Slot[] {
    return Array.from({ length: this.#geometry.slotCount }, (_, i) => slotOf(i));
  }

  /** The slots whose segments may hold one of these generations, going by their headers. */
  async slotsOf(wanted: readonly Generation[]): Promise<readonly Slot[]> {
    const known: { slot: Slot; begin: number; sequence: number }[] = [];
    const found: Slot[] = [];
    for (const slot of this.allSlots()) {
      const bytes = await this.#read(slotOffset(this.#geometry, slot), BLOCK_BYTES);
      const header = bytes === undefined ? undefined : decodeSegmentHeader(bytes, this.#volume);
      if (header === undefined) found.push(slot);
      else known.push({ slot, begin: header.generation, sequence: header.sequence });
    }
    known.sort((a, b) => a.sequence - b.sequence);
    known.forEach(({ slot, begin }, i) => {
      // A request that is under way at a segment's end goes on in the next one.
      const end = (known[i + 1]?.begin ?? Infinity) + 1;
      if (wanted.some((generation) => generation >= begin && generation <= end)) found.push(slot);
    });
    return found;
  }

  /**
   * Looks for versions in these slots.
   * @param wanted - each that was found is taken out
   * @param found - given a verified copy of the block, its own from then on
   */
  async search(
    slots: readonly Slot[],
    wanted: Map<Block, WantedVersion>,
    found: (block: Block, content: Uint8Array) => void,
  ): Promise<void> {
    for (const slot of slots) {
      for await (const { batch, payloadsAt } of this.#batches(slot)) {
        if (wanted.size === 0) return;
        let at = payloadsAt;
        let generation: number = batch.header.generation;
        for (let i = 0; i < batch.header.entryCount; i++) {
          const entry = entryOf(batch, i);
          if ((entry.flags & FLAG_START) !== 0) generation += 1;
          if (entry.kind !== KIND_DATA && entry.kind !== KIND_RECORD) continue;
          const place = at;
          at += BLOCK_BYTES;
          const version = entry.kind === KIND_DATA ? wanted.get(entry.block) : undefined;
          if (version?.generation !== generation || version.checksum !== entry.checksum) continue;
          const content = await this.#read(byteOffset(place), BLOCK_BYTES);
          if (content === undefined) continue;
          const sum = bindChecksum(crc32c(content), this.#seed, entry.block, generation);
          if (sum !== version.checksum) continue;
          wanted.delete(entry.block);
          found(entry.block, content);
        }
      }
    }
  }

  /** The batches in a slot: as its summary lists them, then as far as headers lead to headers. */
  async *#batches(slot: Slot): AsyncGenerator<FoundBatch, void> {
    const start = slotOffset(this.#geometry, slot) + BLOCK_BYTES;
    const room = this.#geometry.segmentBytes - BLOCK_BYTES;
    const seen = new Set<number>();
    let first: number | undefined;
    for (const batch of await this.#listed(slot)) {
      first ??= batch.header.lsn;
      const inside = batch.header.lsn - first;
      if (inside < 0 || inside >= room) continue;
      seen.add(inside);
      yield { batch, payloadsAt: start + inside + BLOCK_BYTES };
    }
    // A newer segment that is not closed yet has overwritten the beginning of what is listed.
    for (let inside = 0; inside < room && !seen.has(inside);) {
      const bytes = await this.#read(byteOffset(start + inside), BLOCK_BYTES);
      const batch = bytes === undefined ? undefined : decodeBatch(bytes, this.#volumeBytes);
      if (batch === undefined) return;
      yield { batch, payloadsAt: start + inside + BLOCK_BYTES };
      inside += (1 + batch.header.payloadBlocks) * BLOCK_BYTES;
    }
  }

  /** What a summary at the slot's end lists, whichever segment it is of. */
  async #listed(slot: Slot): Promise<readonly Batch[]> {
    const footerAt = slotOffset(this.#geometry, slot) + this.#geometry.segmentBytes - BLOCK_BYTES;
    const block = await this.#read(byteOffset(footerAt), BLOCK_BYTES);
    const footer = block === undefined ? undefined : decodeSummaryFooter(block, this.#volume);
    if (footer === undefined) return [];
    const length = footer.bodyBytes;
    if (length > summaryBlocksMax(this.#geometry) * BLOCK_BYTES) return [];
    const body = await this.#read(byteOffset(footerAt - length), length);
    if (body === undefined || crc32c(body) !== footer.bodyChecksum) return [];
    const batches: Batch[] = [];
    for (let at = 0; at < body.length;) {
      const batch = decodeBatch(body.subarray(at), this.#volumeBytes);
      if (batch === undefined) break;
      batches.push(batch);
      at += usedBytes(batch.header.entryCount);
    }
    return batches;
  }

  async #read(at: ByteOffset, length: number): Promise<Uint8Array | undefined> {
    if (at + length > this.#geometry.logBytes) return undefined;
    const bytes = new Uint8Array(length);
    try {
      await this.#device.read(at, bytes);
      return bytes;
    } catch (error) {
      if (isVarveError(error, 'DEVICE_IO')) return undefined;
      throw error;
    }
  }
}
