/**
 * Opening: what replay reads goes into index, timeline and catalogue, as the write path put it.
 *
 * Invariants:
 *   - A request is applied when its last entry was seen, whole; one that a lineage left unfinished
 *     is dropped when the next lineage begins, or at the end.
 *   - Generations follow each other without a gap, whatever lineage they are of.
 */
import { VarveError } from '../base/errors.ts';
import type { Uuid } from '../base/identity.ts';
import {
  BLOCK_BYTES,
  block as blockOf,
  blockCount,
  byteCount,
  generation as generationOf,
  lsn as lsnOf,
  micros,
  type BlockCount,
  type ByteCount,
  type Generation,
  type Lsn,
  type SegmentSequence,
} from '../base/units.ts';
import { decodeCatalogueEntry, type CatalogueEntry } from '../format/catalogue.ts';
import { bindChecksum, volumeSeed } from '../format/block-checksum.ts';
import { crc32c } from '../base/crc32c.ts';
import { FLAG_END, FLAG_START, KIND_DATA, KIND_FLUSH, KIND_RECORD } from '../format/layouts.ts';
import { BlockIndex } from '../../index/block-index.ts';
import { SegmentReferences } from '../../index/segment-references.ts';
import { Timeline } from '../../index/timeline.ts';
import { entryOf, type Batch, type Entry } from '../../log/batch.ts';
import type { Checkpoint } from '../../log/checkpoint.ts';
import { catalogueEntriesMax } from '../../log/geometry.ts';
import type { ReplayHandler } from '../../log/replay.ts';
import type { Superblock } from '../../log/superblock.ts';
import type { ReadSegmentHeader } from '../../log/summary.ts';
import { rangeKindOf } from './appender.ts';
import { Catalogue } from './catalogue.ts';

interface Pending {
  readonly entry: Entry;
  readonly lsn: number;
}

/** A catalogue record that the stream holds, and the newest request that began before it. */
interface PlacedRecord {
  readonly entry: Entry;
  readonly lsn: Lsn;
  readonly generation: number;
}

export class Recovery implements ReplayHandler {
  readonly index: BlockIndex;
  readonly references = new SegmentReferences();
  readonly segmentHeaders = new Map<SegmentSequence, ReadSegmentHeader>();
  readonly timeline = new Timeline();
  readonly catalogue: Catalogue;
  readonly blocks: BlockCount;
  readonly #superblock: Superblock;
  readonly #checkpoint: Checkpoint;
  readonly #seed: number;
  #pending: Pending[] = [];
  #started = false;
  #first = true;
  /** The request under way began before the oldest segment. */
  #headless = false;
  generation: Generation;
  lineage: Uuid;
  requests = 0;
  #timed: Generation | undefined;
  payloadBytes = 0;
  trims = 0;
  trimmedBytes = 0;
  lastWallUs: number;
  lastElapsedUs: number;

  constructor(superblock: Superblock, checkpoint: Checkpoint, size: ByteCount) {
    this.#superblock = superblock;
    this.#checkpoint = checkpoint;
    this.#seed = volumeSeed(superblock.volume);
    this.blocks = blockCount(Math.ceil(size / BLOCK_BYTES));
    this.index = new BlockIndex({
      blocks: this.blocks,
      segments: this.references,
      seed: this.#seed,
    });
    this.catalogue = new Catalogue(catalogueEntriesMax(superblock.geometry), checkpoint.entries);
    this.generation = superblock.settled;
    this.lineage = superblock.horizon.lineage;
    const { horizon } = superblock;
    this.lastWallUs = horizon.wallUs;
    this.lastElapsedUs = horizon.elapsedUs;
    const none = byteCount(0);
    const requests = horizon.generation;
    this.timeline.add({ ...horizon, payloadBytes: none, requests, trims: 0, trimmedBytes: none });
  }

  segment(segment: ReadSegmentHeader): void {
    this.segmentHeaders.set(segment.sequence, segment);
    this.references.open(segment.sequence, segment.firstLsn);
  }

  batch(batch: Batch, payload: (at: Lsn) => Promise<Uint8Array>): Promise<void> | undefined {
    const { header } = batch;
    if (this.#first) this.#begin(batch);
    else if (header.lineage !== this.lineage || header.generation === this.generation) {
      // A request that was under way and is not gone on with was never finished.
      this.#pending = [];
      this.#started = false;
      this.lineage = header.lineage;
    }
    const expected = this.#started ? this.generation + 1 : this.generation;
    if (header.generation !== expected) {
      throw new VarveError(
        'VOLUME_CORRUPT',
        `the batch at LSN ${header.lsn} begins after generation ${header.generation}, ` +
          `expected ${expected}`,
      );
    }
    let position: number = header.lsn + BLOCK_BYTES;
    let generation: number = header.generation;
    const records: PlacedRecord[] = [];
    for (let i = 0; i < header.entryCount; i++) {
      const entry = entryOf(batch, i);
      if ((entry.flags & FLAG_START) !== 0) generation += 1;
      if (entry.kind !== KIND_RECORD) this.#entry(entry, position);
      // What the checkpoint has is not needed from here.
      else if (position >= this.#checkpoint.streamLsn) {
        records.push({ entry, lsn: lsnOf(position), generation });
      }
      if (entry.kind === KIND_DATA || entry.kind === KIND_RECORD) position += BLOCK_BYTES;
    }
    this.#times(batch);
    return records.length === 0 ? undefined : this.#records(records, payload);
  }

  /** The oldest segment may begin inside a request, whose beginning is settled, or was cut. */
  #begin(batch: Batch): void {
    const { header } = batch;
    this.#first = false;
    this.lineage = header.lineage;
    const first = header.entryCount === 0 ? undefined : entryOf(batch, 0);
    const between = first === undefined || first.kind === KIND_FLUSH || first.kind === KIND_RECORD;
    this.#started = !between && (first.flags & FLAG_START) === 0;
    this.#headless = this.#started;
    this.generation = this.#started ? generationOf(header.generation - 1) : header.generation;
  }

  /** The times of generations that are already in final storage are not needed. */
  #times({ header }: Batch): void {
    this.lastWallUs = header.wallUs;
    this.lastElapsedUs = Math.max(this.lastElapsedUs, header.elapsedUs);
    if (this.generation <= this.#superblock.horizon.generation) return;
    if (this.generation === this.#timed) return;
    this.#timed = this.generation;
    this.timeline.add({
      generation: this.generation,
      wallUs: header.wallUs,
      // The horizon's time is that of a point that may cover some milliseconds after it.
      elapsedUs: micros(this.lastElapsedUs),
      payloadBytes: byteCount(this.payloadBytes),
      requests: this.generation,
      trims: this.trims,
      trimmedBytes: byteCount(this.trimmedBytes),
    });
  }

  #entry(entry: Entry, position: number): void {
    if (entry.kind === KIND_FLUSH) {
      if (this.generation >= this.#superblock.horizon.generation) {
        this.timeline.addFlush(this.generation);
      }
      return;
    }
    if ((entry.flags & FLAG_START) !== 0) {
      this.#pending = [];
      this.#started = true;
      this.#headless = false;
    }
    if (!this.#started) {
      throw new VarveError('VOLUME_CORRUPT', `an entry at LSN ${position} belongs to no request`);
    }
    this.#pending.push({ entry, lsn: position });
    if ((entry.flags & FLAG_END) === 0) return;
    this.generation = generationOf(this.generation + 1);
    if (this.#headless && this.generation > this.#superblock.settled) {
      throw new VarveError('VOLUME_CORRUPT', `generation ${this.generation} lacks its beginning`);
    }
    this.#apply();
    this.#pending = [];
    this.#started = false;
  }

  #apply(): void {
    this.requests += 1;
    let trimmedBlocks = 0;
    for (const { entry } of this.#pending) {
      if (entry.kind === KIND_DATA) this.payloadBytes += BLOCK_BYTES;
      else trimmedBlocks += entry.count;
    }
    this.trimmedBytes += trimmedBlocks * BLOCK_BYTES;
    if (trimmedBlocks > 0) this.trims += 1;
    if (this.generation <= this.#superblock.settled) return;
    for (const { entry, lsn } of this.#pending) {
      if (entry.block >= this.blocks) {
        throw new VarveError('VOLUME_CORRUPT', `block ${entry.block} lies beyond the volume`);
      }
      if (entry.kind === KIND_DATA) {
        this.index.putBlock(blockOf(entry.block), this.generation, lsnOf(lsn), entry.checksum);
      } else {
        if (!(entry.count >= 1 && entry.block + entry.count <= this.blocks)) {
          throw new VarveError(
            'VOLUME_CORRUPT',
            `${entry.count} blocks from ${entry.block} on lie beyond the volume`,
          );
        }
        const kind = rangeKindOf(entry.kind);
        this.index.putRange(entry.block, entry.count, this.generation, kind);
      }
    }
  }

  async #records(
    records: readonly PlacedRecord[],
    payload: (at: Lsn) => Promise<Uint8Array>,
  ): Promise<void> {
    for (const record of records) {
      // A second look: a device may have answered with what lies elsewhere.
      const decoded =
        this.#decoded(record, await payload(record.lsn)) ??
        this.#decoded(record, await payload(record.lsn));
      if (decoded === undefined) {
        throw new VarveError(
          'VOLUME_CORRUPT',
          `the catalogue record at LSN ${record.lsn} is damaged`,
        );
      }
      this.catalogue.apply(decoded);
    }
  }

  #decoded(
    { entry, lsn, generation }: PlacedRecord,
    content: Uint8Array,
  ): CatalogueEntry | undefined {
    const sum = bindChecksum(crc32c(content), this.#seed, lsn / BLOCK_BYTES, generation);
    return sum === entry.checksum ? decodeCatalogueEntry(content) : undefined;
  }
}
