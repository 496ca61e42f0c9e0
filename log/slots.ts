/**
 * What lies in the slots of a log device: segment headers, summaries, single batch headers. Reads
 * only, and decides nothing about what to believe.
 *
 * Invariants:
 *   - What is given has its checksum right and is of this volume; a header stands in the slot that
 *     it names.
 */
import { crc32c } from '../src/base/crc32c.ts';
import { isVarveError } from '../src/base/errors.ts';
import { uuidBytes, type Uuid } from '../src/base/identity.ts';
import {
  BLOCK_BYTES,
  byteOffset,
  slot as slotOf,
  type ByteOffset,
  type Slot,
} from '../src/base/units.ts';
import type { LowerDevice } from '../src/device/lower-device.ts';
import { decodeBatch, LOG_KINDS, usedBytes, type Batch, type EntryKinds } from './batch.ts';
import { slotOffset, summaryBlocksMax, type LogGeometry } from './geometry.ts';
import {
  decodeSegmentHeader,
  decodeSummaryFooter,
  type ReadSegmentHeader,
  type SummaryFooter,
} from './summary.ts';

/** Undefined: there is nothing to be had. */
export type ReadBytes = (at: number, length: number) => Promise<Uint8Array | undefined>;

/** What the device refuses is thrown: VarveError DEVICE_IO. */
export function readStrictly(device: LowerDevice): ReadBytes {
  return async (at, length) => {
    const bytes = new Uint8Array(length);
    await device.read(byteOffset(at), bytes);
    return bytes;
  };
}

/** Passes over what the device refuses to read, and counts it. */
export class TolerantReads {
  readonly #device: LowerDevice;
  #refusals = 0;

  constructor(device: LowerDevice) {
    this.#device = device;
  }

  /** Reads that were refused until now: what they were for may be there all the same. */
  get refusals(): number {
    return this.#refusals;
  }

  readonly read: ReadBytes = async (at, length) => {
    if (at + length > this.#device.size) return undefined;
    const bytes = new Uint8Array(length);
    try {
      await this.#device.read(byteOffset(at), bytes);
      return bytes;
    } catch (error) {
      if (!isVarveError(error, 'DEVICE_IO')) throw error;
      this.#refusals += 1;
      return undefined;
    }
  };
}

export interface Summary {
  readonly footer: SummaryFooter;
  /** As listed, up to the first that does not decode; not compared with anything. */
  readonly batches: readonly Batch[];
}

export class Slots {
  readonly #read: ReadBytes;
  readonly #geometry: LogGeometry;
  readonly #volume: Uuid;
  readonly #volumeBytes: Uint8Array;
  readonly #kinds: EntryKinds;

  constructor(read: ReadBytes, geometry: LogGeometry, volume: Uuid, kinds = LOG_KINDS) {
    this.#read = read;
    this.#geometry = geometry;
    this.#volume = volume;
    this.#volumeBytes = uuidBytes(volume);
    this.#kinds = kinds;
  }

  all(): readonly Slot[] {
    return Array.from({ length: this.#geometry.slotCount }, (_, i) => slotOf(i));
  }

  /** Where the first batch of a segment in this slot lies; its segment header is before it. */
  batchesAt(slot: Slot): ByteOffset {
    return byteOffset(slotOffset(this.#geometry, slot) + BLOCK_BYTES);
  }

  async header(slot: Slot): Promise<ReadSegmentHeader | undefined> {
    const bytes = await this.#read(slotOffset(this.#geometry, slot), BLOCK_BYTES);
    const header = bytes === undefined ? undefined : decodeSegmentHeader(bytes, this.#volume);
    return header?.slot === slot ? header : undefined;
  }

  /** The batch header that lies there. */
  async batch(at: number): Promise<Batch | undefined> {
    const bytes = await this.#read(at, BLOCK_BYTES);
    return bytes === undefined ? undefined : decodeBatch(bytes, this.#volumeBytes, this.#kinds);
  }

  #footerAt(slot: Slot): number {
    return slotOffset(this.#geometry, slot) + this.#geometry.segmentBytes - BLOCK_BYTES;
  }

  /** What ends the slot's summary: it tells where the segment ends. */
  async footer(slot: Slot): Promise<SummaryFooter | undefined> {
    const block = await this.#read(this.#footerAt(slot), BLOCK_BYTES);
    return block === undefined ? undefined : decodeSummaryFooter(block, this.#volume);
  }

  /** At the slot's end, whichever segment it is of. */
  async summary(slot: Slot): Promise<Summary | undefined> {
    const footerAt = this.#footerAt(slot);
    const footer = await this.footer(slot);
    if (footer === undefined) return undefined;
    if (footer.bodyBytes > summaryBlocksMax(this.#geometry) * BLOCK_BYTES) return undefined;
    const body = await this.#read(footerAt - footer.bodyBytes, footer.bodyBytes);
    if (body === undefined || crc32c(body) !== footer.bodyChecksum) return undefined;
    const batches: Batch[] = [];
    for (let at = 0; at < body.length;) {
      const batch = decodeBatch(body.subarray(at), this.#volumeBytes, this.#kinds);
      if (batch === undefined) break;
      batches.push(batch);
      at += usedBytes(batch.header.entryCount);
    }
    return { footer, batches };
  }
}
