/**
 * The head of the stream: requests become entries and payload blocks of the open batch, in the
 * ring, at the LSN that they will have on the device. Nothing here awaits.
 *
 * Invariants:
 *   - Generations grow by one with each request, in the order of the stream.
 *   - A batch lies whole in one segment; its header is in the ring from its first entry on, and is
 *     final once it is sealed.
 *   - Room in ring and log was asked for before anything is put.
 */
import { assert } from '../src/base/assert.ts';
import { crc32c } from '../src/base/crc32c.ts';
import type { Uuid } from '../src/base/identity.ts';
import {
  BLOCK_BYTES,
  checksum,
  generation as generationOf,
  type Block,
  type BlockCount,
  type Checksum,
  type Generation,
  type Lsn,
  type Micros,
} from '../src/base/units.ts';
import { bindChecksum, volumeSeed } from '../src/format/block-checksum.ts';
import {
  BATCH_PREFIX_BYTES,
  ENTRIES_MAX,
  ENTRY_BYTES,
  FLAG_END,
  FLAG_FUA,
  FLAG_START,
  KIND_DATA,
  KIND_FLUSH,
  KIND_RECORD,
} from '../src/format/layouts.ts';
import { sealBatch, usedBytes, writeEntry } from './batch.ts';
import { segmentBlocksSure, SLOTS_RESERVED, summaryBlocksMax } from './geometry.ts';
import { reslot, type Durable, type Move } from './reslot.ts';
import type { Ring } from './ring.ts';
import type { Segment, SegmentTable } from './segments.ts';
import { encodeSegmentHeader, segmentChecksum } from './summary.ts';

export interface Times {
  readonly wallUs: Micros;
  readonly elapsedUs: Micros;
}

export interface StreamOptions {
  readonly volume: Uuid;
  readonly ring: Ring;
  readonly segments: SegmentTable;
  readonly generation: Generation;
  readonly lineage: Uuid;
  readonly chain: Checksum;
  /** Random, of this opening. */
  readonly opening: number;
  readonly now: () => Times;
  readonly durable: () => Durable;
  readonly onSegment: (segment: Segment) => void;
  readonly onSeal: (sealed: SealedBatch) => void;
}

export interface SealedBatch {
  readonly lsn: Lsn;
  readonly endLsn: Lsn;
  /** Newest request that is whole at the end of the batch. */
  readonly generation: Generation;
  readonly times: Times;
  /** False for a batch that only states what is durable. */
  readonly content: boolean;
}

interface OpenBatch {
  readonly lsn: Lsn;
  readonly segment: Segment;
  /** Byte position of the header in the ring. */
  readonly at: number;
  /** Newest request that began before the batch. */
  readonly generation: Generation;
  entries: number;
  payloads: number;
}

export type Room = 'yes' | 'ring' | 'log';

export class LogStream {
  readonly #options: StreamOptions;
  readonly #ring: Ring;
  readonly #segments: SegmentTable;
  readonly #seed: number;
  #open: OpenBatch | undefined;
  #generation: Generation;
  #completed: Generation;
  #lineage: Uuid;
  #chain: Checksum;
  #starting = false;
  #sealedLsn: Lsn;
  /** Requests are answered once they are written: what is not durable has to outlive a kill. */
  answersWritten = false;

  constructor(options: StreamOptions) {
    this.#options = options;
    this.#ring = options.ring;
    this.#segments = options.segments;
    this.#seed = volumeSeed(options.volume);
    this.#generation = options.generation;
    this.#completed = options.generation;
    this.#lineage = options.lineage;
    this.#chain = options.chain;
    this.#sealedLsn = options.ring.head;
  }

  /** Newest request that is whole. */
  get generation(): Generation {
    return this.#completed;
  }

  get nextLsn(): Lsn {
    return this.#ring.head;
  }

  get sealedLsn(): Lsn {
    return this.#sealedLsn;
  }

  get lineage(): Uuid {
    return this.#lineage;
  }

  /** Checksum of the last sealed header. */
  get chain(): Checksum {
    return this.#chain;
  }

  get hasOpenBatch(): boolean {
    return this.#open !== undefined;
  }

  /** From here on batches carry this lineage. */
  startLineage(lineage: Uuid): void {
    this.seal();
    this.#lineage = lineage;
  }

  /**
   * Whether a request of so many payload blocks and entries fits now.
   * @param reserved - true when it may use the slot kept back for the catalogue
   * @returns `ring`: wait for a sync; `log`: wait for recycling
   */
  room(payloads: number, entries: number, reserved: boolean): Room {
    const segment = this.#segments.newest;
    const sure = segmentBlocksSure(this.#segments.geometry);
    const headers = Math.ceil(entries / ENTRIES_MAX) + 1;
    const blocks = payloads + headers;
    const summary = headers * BATCH_PREFIX_BYTES + entries * ENTRY_BYTES;
    const left = segment === undefined ? 0 : Math.max(0, this.#left(segment, summary) - 1);
    // Each further segment may cut a batch in two, which costs one more header.
    const further = blocks <= left ? 0 : Math.ceil((blocks - left) / (sure - 1));
    if (further > this.#segments.freeSlots - (reserved ? 0 : SLOTS_RESERVED)) return 'log';
    if (further > 0 && !this.#staysMovable(further)) return 'ring';
    const bytes = (blocks + further) * BLOCK_BYTES;
    return bytes <= this.#ring.room(this.#options.durable().lsn) ? 'yes' : 'ring';
  }

  /** Whether all that is not durable would find other slots after a failed sync, beside its own. */
  #staysMovable(further: number): boolean {
    const { lsn: durable } = this.#options.durable();
    if (!this.answersWritten || this.#ring.head === durable) return true;
    const parts = this.#segments.behind(durable).length + further;
    return parts <= this.#segments.freeSlots - further;
  }

  /** Bytes of stream that clients can still put before the log is full. */
  get writableBytes(): number {
    const segment = this.#segments.newest;
    const sure = segmentBlocksSure(this.#segments.geometry);
    const left =
      segment === undefined ? 0 : Math.max(0, this.#left(segment, BATCH_PREFIX_BYTES) - 1);
    const slots = Math.max(0, this.#segments.freeSlots - SLOTS_RESERVED);
    return (left + slots * (sure - 1)) * BLOCK_BYTES;
  }

  beginRequest(): Generation {
    assert(!this.#starting && this.#generation === this.#completed, 'requests do not interleave');
    this.#generation = generationOf(this.#generation + 1);
    this.#starting = true;
    return this.#generation;
  }

  /**
   * @param source - holds the block's 4096 bytes at `at`; copied
   * @param dataCrc - CRC32C of those bytes
   * @returns where the version is
   */
  putData(
    block: Block,
    source: Uint8Array,
    at: number,
    dataCrc: number,
    last: boolean,
    fua: boolean,
  ): Lsn {
    const sum = bindChecksum(dataCrc, this.#seed, block, this.#generation);
    this.lastChecksum = sum;
    this.#entry(1, KIND_DATA, block, sum, 0, last, fua);
    return this.#payload(source, at);
  }

  /** Checksum of the block that `putData` put last. */
  lastChecksum: Checksum = checksum(0);

  /** @param kind - KIND_TRIM, KIND_ZERO or KIND_ALLOCATE */
  putRange(kind: number, block: Block, count: BlockCount, last: boolean, fua: boolean): void {
    this.#entry(0, kind, block, count % 2 ** 32, Math.floor(count / 2 ** 32), last, fua);
  }

  /** A flush boundary after the newest request. */
  putFlush(): void {
    assert(!this.#starting, 'a flush stands between requests');
    this.#rawEntry(0, KIND_FLUSH, 0, 0, 0, 0);
  }

  /** @param payload - one block; copied. @returns its position */
  putRecord(payload: Uint8Array): Lsn {
    assert(!this.#starting, 'a record stands between requests');
    const open = this.#ensure(1);
    // The entry is written after the payload has its place, because its checksum binds the place.
    const position = this.#ring.head;
    const sum = bindChecksum(crc32c(payload), this.#seed, position / BLOCK_BYTES, this.#generation);
    this.#write(open, KIND_RECORD, 0, 0, sum, 0);
    open.payloads += 1;
    this.#payload(payload, 0);
    return position;
  }

  /** Whether a batch without entries can be put without opening a segment. */
  get canClaim(): boolean {
    const segment = this.#segments.newest;
    return (
      this.#open === undefined &&
      segment !== undefined &&
      this.#left(segment, BATCH_PREFIX_BYTES) >= 2 &&
      this.#ring.room(this.#options.durable().lsn) >= BLOCK_BYTES
    );
  }

  /** An empty batch, sealed at once: states what is durable. */
  putClaim(): void {
    assert(this.canClaim, 'a claim needs room in the open segment');
    this.#ensure(0);
    this.seal();
  }

  seal(): void {
    const open = this.#open;
    if (open === undefined) return;
    const { onSeal, durable, now, volume } = this.#options;
    const times = now();
    const known = durable();
    const block = this.#ring.bytes.subarray(open.at, open.at + BLOCK_BYTES);
    this.#chain = sealBatch(block, volume, {
      entryCount: open.entries,
      lineage: this.#lineage,
      segment: open.segment.sequence,
      lsn: open.lsn,
      generation: open.generation,
      wallUs: times.wallUs,
      elapsedUs: times.elapsedUs,
      durable: known.generation,
      durableLsn: known.lsn,
      chain: this.#chain,
      payloadBlocks: open.payloads,
    });
    const { segment } = open;
    segment.batches += 1;
    if (segment.summary !== undefined) {
      segment.summary.push(block.slice(0, usedBytes(open.entries)));
    }
    this.#open = undefined;
    this.#sealedLsn = this.#ring.head;
    onSeal({
      lsn: open.lsn,
      endLsn: this.#sealedLsn,
      generation: this.#completed,
      times,
      content: open.entries > 0,
    });
  }

  /**
   * Gives everything behind the durable position other slots.
   * @param chain - checksum of the last header before that position
   */
  reslot(chain: Checksum): readonly Move[] {
    this.seal();
    const { volume, opening } = this.#options;
    const [ring, segments, durable] = [this.#ring, this.#segments, this.#options.durable()];
    const done = reslot({ volume, ring, segments, opening, durable, chain });
    this.#chain = done.chain;
    return done.moves;
  }

  #entry(
    payloads: number,
    kind: number,
    place: number,
    value: number,
    extra: number,
    last: boolean,
    fua: boolean,
  ): void {
    const flags =
      (this.#starting ? FLAG_START : 0) | (last ? FLAG_END : 0) | (last && fua ? FLAG_FUA : 0);
    this.#rawEntry(payloads, kind, flags, place, value, extra);
    this.#starting = false;
    if (last) this.#completed = this.#generation;
  }

  #rawEntry(
    payloads: number,
    kind: number,
    flags: number,
    place: number,
    value: number,
    extra: number,
  ): void {
    const open = this.#ensure(payloads);
    this.#write(open, kind, flags, place, value, extra);
    open.payloads += payloads;
    open.segment.lastGeneration = this.#generation;
  }

  #write(
    open: OpenBatch,
    kind: number,
    flags: number,
    place: number,
    value: number,
    extra: number,
  ): void {
    const at = open.at + BATCH_PREFIX_BYTES + open.entries * ENTRY_BYTES;
    writeEntry(this.#ring.view, at, kind, flags, place, value, extra);
    open.entries += 1;
    const { segment } = open;
    segment.summaryBytes += ENTRY_BYTES;
    if (this.#summaryBlocks(segment, 0) === 0) segment.summary = undefined;
  }

  #payload(source: Uint8Array, at: number): Lsn {
    const position = this.#ring.head;
    const to = this.#ring.take();
    if (at === 0 && source.length === BLOCK_BYTES) this.#ring.bytes.set(source, to);
    else this.#ring.bytes.set(source.subarray(at, at + BLOCK_BYTES), to);
    return position;
  }

  /** The open batch with room for one more entry and its payload; seals and opens as needed. */
  #ensure(payloads: number): OpenBatch {
    const open = this.#open;
    if (
      open !== undefined &&
      open.entries < ENTRIES_MAX &&
      this.#fitsSegment(open.segment, payloads, ENTRY_BYTES)
    ) {
      return open;
    }
    this.seal();
    const newest = this.#segments.newest;
    if (
      newest === undefined ||
      !this.#fitsSegment(newest, 1 + payloads, BATCH_PREFIX_BYTES + ENTRY_BYTES)
    ) {
      this.#nextSegment();
    }
    return this.#openBatch();
  }

  #openBatch(): OpenBatch {
    const segment = this.#segments.newest;
    assert(segment !== undefined, 'a segment is open');
    const position = this.#ring.head;
    const batch: OpenBatch = {
      lsn: position,
      segment,
      at: this.#ring.take(),
      generation: this.#starting ? generationOf(this.#generation - 1) : this.#generation,
      entries: 0,
      payloads: 0,
    };
    segment.summaryBytes += BATCH_PREFIX_BYTES;
    this.#open = batch;
    return batch;
  }

  #nextSegment(): void {
    const before = this.#segments.newest;
    const position = this.#ring.head;
    if (before !== undefined) before.endLsn = position;
    const opened = this.#segments.open(
      {
        firstLsn: position,
        chain: this.#chain,
        endLsn: undefined,
        lastGeneration: this.#starting ? generationOf(this.#generation - 1) : this.#generation,
        summaryBytes: 0,
        summary: [],
        batches: 0,
      },
      (sequence, slot) =>
        encodeSegmentHeader(this.#options.volume, {
          sequence,
          slot,
          chain: this.#chain,
          opening: this.#options.opening,
          firstLsn: position,
          generation: this.#completed,
          durableLsn: this.#options.durable().lsn,
        }),
    );
    assert(opened.header !== undefined, 'a segment opens with its header');
    this.#chain = segmentChecksum(opened.header);
    this.#options.onSegment(opened);
  }

  /** Blocks of stream that the segment can still take. */
  #left(segment: Segment, headerBytes: number): number {
    const { geometry } = this.#segments;
    const used = (this.#ring.head - segment.firstLsn) / BLOCK_BYTES;
    const blocks = geometry.segmentBytes / BLOCK_BYTES - 1;
    return blocks - used - this.#summaryBlocks(segment, headerBytes);
  }

  #fitsSegment(segment: Segment, blocks: number, headerBytes: number): boolean {
    const { geometry } = this.#segments;
    const used = (this.#ring.head - segment.firstLsn) / BLOCK_BYTES;
    const summary = this.#summaryBlocks(segment, headerBytes);
    return used + blocks + summary <= geometry.segmentBytes / BLOCK_BYTES - 1;
  }

  /** Blocks that the summary will take; 0 once its body is too large, and it is given up. */
  #summaryBlocks(segment: Segment, more: number): number {
    if (segment.summary === undefined) return 0;
    const body = Math.ceil((segment.summaryBytes + more) / BLOCK_BYTES);
    if (body > summaryBlocksMax(this.#segments.geometry)) {
      return 0;
    }
    return body + 1;
  }
}
