/**
 * The requests of the window, as the log has them: blocks, checksums, FUA, flushes, times. The
 * index knows versions only, so batch headers are read again, from the ring or the device.
 *
 * Invariants:
 *   - Pages follow each other without a gap; a request is whole in one page.
 *   - Nothing is read that a round may have recycled: `after` is not before the horizon.
 *   - A segment is held only while its slot is read; what the ring has is read there.
 */
import { VarveError } from '../base/errors.ts';
import { uuidBytes } from '../base/identity.ts';
import {
  blockCount,
  BLOCK_BYTES,
  generation as generationOf,
  lsn as lsnOf,
  type Block,
  type Generation,
  type Lsn,
  type Micros,
} from '../base/units.ts';
import type { RequestPage, RequestPart, RequestRecord } from '../device/request-record.ts';
import { bindChecksum, volumeSeed } from '../format/block-checksum.ts';
import {
  FLAG_END,
  FLAG_FUA,
  FLAG_START,
  KIND_DATA,
  KIND_FLUSH,
  KIND_RECORD,
} from '../format/layouts.ts';
import { decodeBatch, endOf, entryOf, type Batch, type Entry } from '../../log/batch.ts';
import type { Core } from './core.ts';

/** Of a page: its blocks, and a few more for each request. */
const PAGE_UNITS_MAX = 32_768;
const REQUEST_UNITS = 8;
/** Batches out of the ring come without waiting; others get their turn between so many. */
const BATCHES_A_TURN = 64;

export interface RequestRange {
  /** The requests after this one, */
  readonly after: Generation;
  /** up to this one. */
  readonly to: Generation;
  /** Default: what an answer of the control protocol holds. */
  readonly unitsMax?: number | undefined;
}

export class RequestHistory {
  readonly #core: Core;
  readonly #onRelease: () => void;
  readonly #volumeBytes: Uint8Array;
  /** Where the last page ended: the next one mostly begins there. */
  #hint: { readonly generation: Generation; readonly lsn: Lsn } | undefined;

  constructor(core: Core, onRelease: () => void) {
    this.#core = core;
    this.#onRelease = onRelease;
    this.#volumeBytes = uuidBytes(core.uuid);
  }

  /**
   * The first of these requests, as many as a page holds.
   * @throws VarveError MOMENT_OUTSIDE, VOLUME_CORRUPT for a damaged batch header, DEVICE_IO
   */
  async page({ after, to, unitsMax = PAGE_UNITS_MAX }: RequestRange): Promise<RequestPage> {
    const core = this.#core;
    if (to > core.head || after > to) {
      throw new VarveError('MOMENT_OUTSIDE', `generations ${after} to ${to}, of ${core.head}`);
    }
    this.#needWindow(after);
    const page = new Page({ after, to, unitsMax }, volumeSeed(core.uuid));
    if (after === to) return page.done();
    // What is in the open batch has no header yet.
    if (!core.readOnly) core.log.stream.seal();
    let position = this.#start(after);
    for (let turn = 1; position < core.log.stream.sealedLsn; turn++) {
      // What a round recycled meanwhile lies at or before `after`, as long as that is in the window.
      position = lsnOf(Math.max(position, core.log.segments.oldest?.firstLsn ?? 0));
      const batch = await this.#batchAt(position);
      if (page.take(batch)) {
        const { last } = page;
        if (last !== undefined) this.#hint = { generation: last, lsn: position };
        return page.done();
      }
      position = endOf(batch);
      if (turn % BATCHES_A_TURN === 0) await core.yieldTurn();
      this.#needWindow(after);
    }
    throw new VarveError('VOLUME_CORRUPT', `the log ends before generation ${to}`);
  }

  #needWindow(after: Generation): void {
    const { closed, horizon } = this.#core;
    if (closed) throw new VarveError('CLOSED', 'the volume is closed');
    if (after >= horizon.generation) return;
    throw new VarveError('MOMENT_OUTSIDE', `generation ${after} left the window`);
  }

  /** A batch at or before which the next request begins. */
  #start(after: Generation): Lsn {
    const { segments } = this.#core.log;
    const hint = this.#hint;
    const oldest = segments.oldest?.firstLsn ?? Infinity;
    if (hint !== undefined && hint.generation <= after && hint.lsn >= oldest) return hint.lsn;
    const segment = segments.live.find(({ lastGeneration }) => lastGeneration > after);
    if (segment !== undefined) return segment.firstLsn;
    throw new VarveError('VOLUME_CORRUPT', `no segment holds generation ${after + 1}`);
  }

  async #batchAt(position: Lsn): Promise<Batch> {
    const { references, log } = this.#core;
    const { sequence } = log.segments.find(position);
    // Nothing else may keep it: with the last reader a segment that is settled goes at once.
    references.acquire(sequence);
    try {
      // A second look: a device may have answered with what lies elsewhere.
      for (let look = 0; look < 2; look++) {
        const bytes = log.ring.holds(position)
          ? log.ring.blockAt(position).slice()
          : await this.#readSlot(position);
        const batch = decodeBatch(bytes, this.#volumeBytes);
        if (batch?.header.lsn === position && batch.header.segment === sequence) return batch;
      }
    } finally {
      references.release(sequence);
      if (references.readers(sequence) === 0) this.#onRelease();
    }
    throw new VarveError('VOLUME_CORRUPT', `the batch header at LSN ${position} is damaged`);
  }

  async #readSlot(position: Lsn): Promise<Uint8Array> {
    const bytes = new Uint8Array(BLOCK_BYTES);
    await this.#core.log.readSlot(position, bytes);
    return bytes;
  }
}

interface OpenRequest {
  readonly generation: Generation;
  readonly parts: { start: Block; count: number; crcs: number[] | undefined }[];
  blocks: number;
}

interface PageRange extends RequestRange {
  readonly unitsMax: number;
}

/** Requests as they come out of batches. */
class Page {
  readonly #range: PageRange;
  readonly #seed: number;
  readonly #requests: RequestRecord[] = [];
  readonly #flushes: Generation[] = [];
  #open: OpenRequest | undefined;
  #units = 0;

  constructor(range: PageRange, seed: number) {
    this.#range = range;
    this.#seed = seed;
  }

  get last(): Generation | undefined {
    return this.#requests.at(-1)?.generation;
  }

  /** @returns whether the page is full, or has all */
  take(batch: Batch): boolean {
    const { header } = batch;
    let generation = header.generation;
    // One that was under way and is not gone on with was never finished; its number came again.
    if (this.#open !== undefined && this.#open.generation !== generation) this.#open = undefined;
    for (let i = 0; i < header.entryCount; i++) {
      const entry = entryOf(batch, i);
      if (entry.kind === KIND_RECORD) continue;
      if (entry.kind === KIND_FLUSH) {
        if (generation >= this.#range.after) this.#flushes.push(generation);
        continue;
      }
      if ((entry.flags & FLAG_START) !== 0) {
        generation = generationOf(generation + 1);
        this.#open = { generation, parts: [], blocks: 0 };
      }
      if (this.#add(entry, header.wallUs)) return true;
    }
    return false;
  }

  done(): RequestPage {
    const { after, to } = this.#range;
    const isEnd = (this.last ?? after) === to;
    return { requests: this.#requests, flushes: this.#flushes, isEnd };
  }

  /** @returns whether the page is full, or has all */
  #add(entry: Entry, wallUs: Micros): boolean {
    const open = this.#open;
    // The beginning of this one lies before where the page began.
    if (open === undefined || open.generation <= this.#range.after) return false;
    this.#addPart(open, entry);
    if ((entry.flags & FLAG_END) === 0) return false;
    this.#open = undefined;
    this.#requests.push({
      generation: open.generation,
      wallUs,
      fua: (entry.flags & FLAG_FUA) !== 0,
      parts: open.parts.map(({ start, count, crcs }): RequestPart => ({
        start,
        count: blockCount(count),
        crcs,
      })),
    });
    this.#units += REQUEST_UNITS + open.blocks;
    return open.generation === this.#range.to || this.#units >= this.#range.unitsMax;
  }

  #addPart(open: OpenRequest, entry: Entry): void {
    const { generation, parts } = open;
    const { kind, block, count, checksum } = entry;
    if (kind !== KIND_DATA) {
      parts.push({ start: block, count, crcs: undefined });
      return;
    }
    // Binding is its own inverse.
    const crc = bindChecksum(checksum, this.#seed, block, generation);
    const last = parts.at(-1);
    if (last?.crcs !== undefined && last.start + last.count === block) {
      last.crcs.push(crc);
      last.count += 1;
    } else parts.push({ start: block, count: 1, crcs: [crc] });
    open.blocks += 1;
  }
}
