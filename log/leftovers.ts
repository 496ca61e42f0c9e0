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
import type { Uuid } from '../src/base/identity.ts';
import {
  BLOCK_BYTES,
  type Block,
  type Checksum,
  type Generation,
  type Slot,
} from '../src/base/units.ts';
import type { LowerDevice } from '../src/device/lower-device.ts';
import { bindChecksum, volumeSeed } from '../src/format/block-checksum.ts';
import { FLAG_START, KIND_DATA, KIND_RECORD } from '../src/format/layouts.ts';
import { entryOf, type Batch } from './batch.ts';
import type { LogGeometry } from './geometry.ts';
import { Slots, TolerantReads } from './slots.ts';

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
  readonly #reads: TolerantReads;
  readonly #slots: Slots;
  readonly #geometry: LogGeometry;
  readonly #seed: number;

  constructor(device: LowerDevice, geometry: LogGeometry, volume: Uuid) {
    this.#reads = new TolerantReads(device);
    this.#slots = new Slots(this.#reads.read, geometry, volume);
    this.#geometry = geometry;
    this.#seed = volumeSeed(volume);
  }

  /** Reads that the device refused until now: what was not found may be there all the same. */
  get refusals(): number {
    return this.#reads.refusals;
  }

  /** Every slot. */
  allSlots(): readonly Slot[] {
    return this.#slots.all();
  }

  /** The slots whose segments may hold one of these generations, going by their headers. */
  async slotsOf(wanted: readonly Generation[]): Promise<readonly Slot[]> {
    const known: { slot: Slot; begin: number; sequence: number }[] = [];
    const found: Slot[] = [];
    for (const slot of this.#slots.all()) {
      const header = await this.#slots.header(slot);
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
          const content = await this.#reads.read(place, BLOCK_BYTES);
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
    const start = this.#slots.batchesAt(slot);
    const room = this.#geometry.segmentBytes - BLOCK_BYTES;
    const listed = new Map<number, Checksum>();
    let first: number | undefined;
    const summary = await this.#slots.summary(slot);
    for (const batch of summary?.batches ?? []) {
      first ??= batch.header.lsn;
      const inside = batch.header.lsn - first;
      if (inside < 0 || inside >= room) continue;
      listed.set(inside, batch.checksum);
      yield { batch, payloadsAt: start + inside + BLOCK_BYTES };
    }
    // A newer segment that is not closed yet has overwritten the beginning of what is listed.
    for (let inside = 0; inside < room;) {
      const batch = await this.#slots.batch(start + inside);
      if (batch === undefined || listed.get(inside) === batch.checksum) return;
      yield { batch, payloadsAt: start + inside + BLOCK_BYTES };
      inside += (1 + batch.header.payloadBlocks) * BLOCK_BYTES;
    }
  }
}
