/**
 * The stream as far back as the log device still holds it: from the newest settled request over the
 * tail into slots that were recycled and not overwritten yet. Reads only.
 *
 * What was settled is no longer in the index; this tells which version of a block final storage has
 * to hold, with proof. Invariants:
 *   - Segments are taken as the chain of checksums leads back from the superblock's tail, so none
 *     is missing between the oldest one and `settled`: the last entry given for a block is its
 *     newest settled version.
 *   - Only whole requests are given, in the order of the stream.
 */
import type { Uuid } from '../src/base/identity.ts';
import {
  BLOCK_BYTES,
  byteOffset,
  generation as generationOf,
  type ByteOffset,
  type Checksum,
  type Generation,
} from '../src/base/units.ts';
import type { LowerDevice } from '../src/device/lower-device.ts';
import { FLAG_END, FLAG_START, KIND_DATA, KIND_FLUSH, KIND_RECORD } from '../src/format/layouts.ts';
import { endOf, entryOf, type Batch, type Entry } from './batch.ts';
import type { LogGeometry } from './geometry.ts';
import type { Segment } from './segments.ts';
import { Slots, TolerantReads } from './slots.ts';
import type { Superblock } from './superblock.ts';
import type { ReadSegmentHeader } from './summary.ts';

/** Data, or a range of zeros, of one whole request. */
export interface SettledEntry {
  readonly entry: Entry;
  readonly generation: Generation;
  /** Of data: where its payload lies on the device. */
  readonly payloadAt: ByteOffset;
}

export interface SettledOptions {
  readonly superblock: Superblock;
  /** The segments that count, oldest first, as the table of segments has them. */
  readonly live: readonly Segment[];
  /** Entries before this one need not be given; default: all that there are. */
  readonly from?: Generation | undefined;
  readonly onEntry: (entry: SettledEntry) => void;
  /** What was given so far does not count: a gap follows it. */
  readonly onGap: () => void;
}

/** A segment as the chain goes through it: its batches before `end`. */
interface Link {
  readonly header: ReadSegmentHeader;
  readonly end: number;
}

export class LogHistory {
  readonly #slots: Slots;
  readonly #geometry: LogGeometry;
  readonly #reads: TolerantReads;

  constructor(device: LowerDevice, geometry: LogGeometry, volume: Uuid) {
    this.#reads = new TolerantReads(device);
    this.#slots = new Slots(this.#reads.read, geometry, volume);
    this.#geometry = geometry;
  }

  /** Reads that the device refused until now: what is missing may be there all the same. */
  get refusals(): number {
    return this.#reads.refusals;
  }

  /**
   * @returns `undefined` when the device does not hold all of it up to `settled`; else whether what
   *   was given begins with the stream itself, so that a block without an entry was never written
   */
  async settled(options: SettledOptions): Promise<{ readonly isWhole: boolean } | undefined> {
    const { superblock, from, onGap } = options;
    const headers = await this.#headers();
    const links = await this.#linksBefore(superblock, headers, from);
    let isWhole = superblock.tailLsn === 0 || links[0]?.header.firstLsn === 0;
    const requests = new Requests(options);
    for (const link of links) {
      let reached: number = link.header.firstLsn;
      for await (const batch of this.#chained(link.header)) {
        if (batch.header.lsn >= link.end) break;
        requests.batch(batch, this.#payloadsAt(link.header, batch));
        reached = endOf(batch);
      }
      if (reached === link.end) continue;
      // A writer has reached this slot in the meantime.
      requests.forget();
      onGap();
      isWhole = false;
    }
    const isDone = await this.#afterTail(options, headers, requests);
    return isDone ? { isWhole } : undefined;
  }

  /** From the tail on to `settled`. @returns whether all of it is there */
  async #afterTail(
    { superblock, live }: SettledOptions,
    headers: readonly ReadSegmentHeader[],
    requests: Requests,
  ): Promise<boolean> {
    const { settled, tailSequence } = superblock;
    for (const { sequence, slot, firstLsn, endLsn = Infinity } of live) {
      if (requests.isPast(settled)) return true;
      if (sequence < tailSequence) continue;
      // A slot may hold what was given up: the table of segments says which one counts, and to where.
      const header = headers.find((one) => one.slot === slot && one.sequence === sequence);
      if (header?.firstLsn !== firstLsn) break;
      let reached: number = firstLsn;
      for await (const batch of this.#chained(header)) {
        if (batch.header.lsn >= endLsn || requests.isPast(settled)) break;
        requests.batch(batch, this.#payloadsAt(header, batch));
        reached = endOf(batch);
      }
      if (reached !== endLsn && !requests.isPast(settled)) break;
    }
    return requests.isPast(settled) || requests.isAt(settled);
  }

  /** The segments before the tail, oldest first, as far as the chain can be followed. */
  async #linksBefore(
    superblock: Superblock,
    headers: readonly ReadSegmentHeader[],
    from: Generation | undefined,
  ): Promise<readonly Link[]> {
    const links: Link[] = [];
    let end: number = superblock.tailLsn;
    let chain = superblock.tailChain;
    for (const header of [...headers].reverse()) {
      if (end === 0) break;
      if (header.firstLsn >= end || header.sequence >= superblock.tailSequence) continue;
      if (!(await this.#leadsTo(header, end, chain))) continue;
      links.unshift({ header, end });
      end = header.firstLsn;
      chain = header.chain;
      if (from !== undefined && header.generation < from) break;
    }
    return links;
  }

  /** Whether the segment's batches end, at `end`, in the header that has this checksum. */
  async #leadsTo(header: ReadSegmentHeader, end: number, chain: Checksum): Promise<boolean> {
    for await (const batch of this.#chained(header)) {
      const position = endOf(batch);
      if (position === end) return batch.checksum === chain;
      if (position > end) return false;
    }
    return false;
  }

  /** By sequence. */
  async #headers(): Promise<readonly ReadSegmentHeader[]> {
    const found: ReadSegmentHeader[] = [];
    for (const slot of this.#slots.all()) {
      const header = await this.#slots.header(slot);
      if (header !== undefined) found.push(header);
    }
    return found.sort((a, b) => a.sequence - b.sequence);
  }

  #payloadsAt(header: ReadSegmentHeader, batch: Batch): number {
    const inside = batch.header.lsn - header.firstLsn;
    return this.#slots.batchesAt(header.slot) + inside + BLOCK_BYTES;
  }

  /** The segment's batches, each chained to the one before; from its summary if that is whole. */
  async *#chained(header: ReadSegmentHeader): AsyncGenerator<Batch, void> {
    let position: number = header.firstLsn;
    let chain = header.checksum;
    const summary = await this.#slots.summary(header.slot);
    const listed = summary?.footer.sequence === header.sequence ? summary.batches : [];
    for (const batch of listed) {
      if (!goesOn(batch, header, position, chain)) break;
      yield batch;
      position = endOf(batch);
      chain = batch.checksum;
    }
    const start = this.#slots.batchesAt(header.slot);
    for (;;) {
      const inside = position - header.firstLsn;
      if (inside + 2 * BLOCK_BYTES > this.#geometry.segmentBytes) return;
      const batch = await this.#slots.batch(start + inside);
      if (batch === undefined || !goesOn(batch, header, position, chain)) return;
      yield batch;
      position = endOf(batch);
      chain = batch.checksum;
    }
  }
}

function goesOn(
  { header }: Batch,
  segment: ReadSegmentHeader,
  position: number,
  chain: Checksum,
): boolean {
  return header.segment === segment.sequence && header.lsn === position && header.chain === chain;
}

/** Puts requests together from the batches that they span. */
class Requests {
  readonly #settled: Generation;
  readonly #onEntry: (entry: SettledEntry) => void;
  #pending: { readonly entry: Entry; readonly payloadAt: number }[] = [];
  #isStarted = false;
  /** Newest request that began; undefined before the first batch. */
  #generation: number | undefined;
  #lineage: Uuid | undefined;

  constructor({ superblock, onEntry }: SettledOptions) {
    this.#settled = superblock.settled;
    this.#onEntry = onEntry;
  }

  /** Whether everything up to `generation` was given, and something newer was met. */
  isPast(generation: Generation): boolean {
    return this.#generation !== undefined && this.#generation > generation;
  }

  /** Whether everything up to `generation` was given. */
  isAt(generation: Generation): boolean {
    return this.#generation === undefined
      ? generation === 0
      : this.#generation >= generation && !this.#isStarted;
  }

  forget(): void {
    this.#pending = [];
    this.#isStarted = false;
    this.#generation = undefined;
  }

  batch(batch: Batch, payloadsAt: number): void {
    const { header } = batch;
    const goesOn = this.#isStarted && header.lineage === this.#lineage;
    if (!goesOn || header.generation !== this.#generation) {
      // A request that was under way and is not gone on with was never finished.
      this.#pending = [];
      this.#isStarted = false;
    }
    this.#lineage = header.lineage;
    let generation: number = header.generation;
    let at = payloadsAt;
    for (let i = 0; i < header.entryCount; i++) {
      const entry = entryOf(batch, i);
      const payloadAt = at;
      if (entry.kind === KIND_DATA || entry.kind === KIND_RECORD) at += BLOCK_BYTES;
      if (entry.kind === KIND_FLUSH || entry.kind === KIND_RECORD) continue;
      if ((entry.flags & FLAG_START) !== 0) {
        generation += 1;
        this.#pending = [];
        this.#isStarted = true;
      }
      if (!this.#isStarted) continue;
      if (generation <= this.#settled) this.#pending.push({ entry, payloadAt });
      if ((entry.flags & FLAG_END) === 0) continue;
      for (const { entry: whole, payloadAt: place } of this.#pending) {
        const one = { entry: whole, payloadAt: byteOffset(place) };
        this.#onEntry({ ...one, generation: generationOf(generation) });
      }
      this.#pending = [];
      this.#isStarted = false;
    }
    this.#generation = generation;
  }
}
