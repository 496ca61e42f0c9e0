/**
 * Recovery: which part of what the log device holds is the history.
 *
 * Invariants:
 *   - Batches are taken in stream order, each chained to the one before; the first that fails ends
 *     the history.
 *   - Where several segments go on from one position, branches.ts says which one counts.
 *   - Above the highest position that any header or superblock states to be durable, payloads are
 *     read and verified too.
 *   - Where something states that the bad batch was durable, it is damage: VOLUME_CORRUPT, and
 *     nothing is cut. Else it is a torn tail. A read error is neither, and is passed on, unless the
 *     history is the same whatever the block holds.
 */
import { VarveError } from '../src/base/errors.ts';
import {
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  generation,
  mebibytes,
  segmentSequence,
  slot as slotOf,
  type ByteCount,
  type ByteOffset,
  type Checksum,
  type Lsn,
  type SegmentSequence,
  type Slot,
} from '../src/base/units.ts';
import type { LowerDevice } from '../src/device/lower-device.ts';
import { FLAG_START, FLAG_FUA, KIND_FLUSH } from '../src/format/layouts.ts';
import { endOf, entryOf, type Batch } from './batch.ts';
import { Branches } from './branches.ts';
import { slotOffset } from './geometry.ts';
import { SlotReader } from './scan.ts';
import type { Segment } from './segments.ts';
import type { Superblock } from './superblock.ts';
import type { ReadSegmentHeader } from './summary.ts';

/** Looked at behind the newest segment. */
const AHEAD_BYTES = mebibytes(64);

export interface ReplayHandler {
  segment(segment: ReadSegmentHeader): void;
  /** @param payload - reads a block of the batch from the device, by its position, for its records */
  batch(batch: Batch, payload: (at: Lsn) => Promise<Uint8Array>): Promise<void> | undefined;
}

export interface Cut {
  readonly lsn: Lsn;
  /** Flush boundaries and FUA marks behind the cut: flushes that were never answered. */
  readonly flushMarks: number;
  /** Batches of this volume behind the cut. */
  readonly batches: number;
  /** Where on the log device they lie. */
  readonly regions: readonly CutRegion[];
  /** Where their headers lie. */
  readonly headers: readonly ByteOffset[];
}

export interface CutRegion {
  readonly offset: ByteOffset;
  readonly length: ByteCount;
}

/** Batches of a segment; with its header, if they are its first. */
export interface DoubtfulPart {
  readonly segment: ReadSegmentHeader;
  readonly from: Lsn;
  readonly to: Lsn;
}

export interface Replayed {
  readonly segments: Segment[];
  readonly endLsn: Lsn;
  readonly chain: Checksum;
  readonly batches: number;
  readonly verified: number;
  readonly cut: Cut | undefined;
  /** Slots whose headers must not be believed again, because they lie behind the end. */
  readonly discarded: readonly Slot[];
  /** What was taken, though nothing states that it was durable. */
  readonly doubtful: readonly DoubtfulPart[];
  /** Above every sequence that was met. */
  readonly nextSequence: SegmentSequence;
}

interface Found {
  readonly segment: ReadSegmentHeader;
  end: Lsn;
  chain: Checksum;
  batches: number;
  headerBytes: Uint8Array[];
  lastGeneration: number;
}

export class Replay {
  readonly #reader: SlotReader;
  readonly #super: Superblock;
  readonly #handler: ReplayHandler;
  #headless: readonly ReadSegmentHeader[] = [];
  #claimed: Lsn;
  #claimedBy: string;
  #batches = 0;
  #verified = 0;
  /** The highest that was met in a slot that does not show it. */
  #newest = 0;
  /** Of the newest batch that was taken: what is older behind the end was cut off before. */
  #elapsedUs = 0;

  private constructor(reader: SlotReader, superblock: Superblock, handler: ReplayHandler) {
    this.#reader = reader;
    this.#super = superblock;
    this.#handler = handler;
    this.#claimed = superblock.durableLsn;
    this.#claimedBy = `superblock ${superblock.sequence}`;
  }

  /** @throws VarveError VOLUME_CORRUPT, DEVICE_IO */
  static async run(
    device: LowerDevice,
    superblock: Superblock,
    handler: ReplayHandler,
  ): Promise<Replayed> {
    const reader = new SlotReader(device, superblock.geometry, superblock.volume);
    return await new Replay(reader, superblock, handler).#run();
  }

  async #run(): Promise<Replayed> {
    const { headers, headless } = await this.#reader.survey();
    this.#headless = headless;
    const candidates = headers
      .filter((header) => header.sequence >= this.#super.tailSequence)
      .sort((a, b) => a.sequence - b.sequence);
    for (const header of candidates) this.#claim(header.durableLsn, `segment ${header.sequence}`);
    const newest = candidates.at(-1);
    if (newest !== undefined) {
      await this.#claimsOf(newest);
      await this.#lookAhead(newest, newest.firstLsn, candidates);
    }
    const branches = new Branches(this.#reader, candidates);

    const found: Found[] = [];
    let position = this.#super.tailLsn;
    let chain = this.#super.tailChain;
    let segment = await branches.next({ end: position, chain }, this.#claimed);
    while (segment !== undefined) {
      this.#handler.segment(segment);
      const before = found.at(-1);
      // Only the segment that stays open needs its headers again, for its summary.
      if (before !== undefined) before.headerBytes = [];
      const walked = await this.#walk(segment, branches);
      found.push(walked);
      position = walked.end;
      chain = walked.chain;
      segment = await branches.next(walked, this.#claimed);
    }
    const last = found.at(-1)?.segment;
    if (last === undefined || last !== newest) await this.#lookAhead(last, position, candidates);
    return await this.#finish(found, candidates, position, chain);
  }

  /**
   * The slots where the next segments would have begun may not show them, because those writes were
   * lost, or went elsewhere: what lies behind them there states what it knows all the same. A cut may
   * take any of what was not durable, and that is as much as a ring holds.
   * @param end - no segment begins before it
   */
  async #lookAhead(
    last: ReadSegmentHeader | undefined,
    end: Lsn,
    candidates: readonly ReadSegmentHeader[],
  ): Promise<void> {
    const after = last?.sequence ?? this.#super.tailSequence - 1;
    // A slot may show the first batch of a segment of long ago, under which the lost header is.
    const later = this.#headless.filter(({ sequence }) => sequence > after);
    for (const one of later) await this.#claimsOf(one);
    const known = new Set([...candidates, ...later].map(({ slot }) => slot));
    const { slotCount, segmentBytes } = this.#super.geometry;
    let left = this.#super.clean ? segmentBytes : Math.max(segmentBytes, AHEAD_BYTES);
    for (let i = 1; i <= slotCount && left > 0; i++) {
      const slot = slotOf(((last?.slot ?? -1) + i) % slotCount);
      if (known.has(slot)) continue;
      for await (const { header } of this.#reader.strays(slot, after, end)) {
        this.#claim(header.durableLsn, `batch at LSN ${header.lsn}`);
        this.#newest = Math.max(this.#newest, header.segment);
      }
      left -= segmentBytes;
    }
  }

  #claim(position: Lsn, by: string): void {
    if (position > this.#claimed) {
      this.#claimed = position;
      this.#claimedBy = by;
    }
  }

  /** What a segment's headers state, before payloads are judged: rot is no torn tail. */
  async #claimsOf(segment: ReadSegmentHeader): Promise<void> {
    for await (const batch of this.#reader.leftovers(segment, segment.firstLsn)) {
      this.#claim(batch.header.durableLsn, `batch at LSN ${batch.header.lsn}`);
    }
  }

  async #walk(segment: ReadSegmentHeader, branches: Branches): Promise<Found> {
    const found: Found = {
      segment,
      end: segment.firstLsn,
      chain: segment.checksum,
      batches: 0,
      headerBytes: [],
      lastGeneration: segment.generation,
    };
    const summary = await this.#reader.summary(segment);
    const last = summary?.at(-1);
    // Above what is stated durable a header counts only where it lies: its summary may have
    // survived a cut that the header did not.
    if (summary !== undefined && last !== undefined && endOf(last) <= this.#claimed) {
      for (const batch of summary) {
        if (await branches.isOvertaken(found, this.#claimed)) return found;
        if (!(await this.#take(found, batch))) return found;
      }
      return found;
    }
    for (;;) {
      if (await branches.isOvertaken(found, this.#claimed)) return found;
      const batch = await this.#reader.batchAt(segment, found.end);
      if (batch === undefined || !(await this.#take(found, batch))) return found;
    }
  }

  /** @returns false when the batch does not go on from what was taken */
  async #take(found: Found, batch: Batch): Promise<boolean> {
    const { header } = batch;
    if (header.chain !== found.chain || header.lsn !== found.end) return false;
    this.#claim(header.durableLsn, `batch at LSN ${header.lsn}`);
    const end = endOf(batch);
    if (end > this.#claimed) {
      if (!(await this.#reader.isWhole(found.segment, batch))) return false;
      this.#verified += 1;
    }
    await this.#handler.batch(batch, (at) => this.#reader.blockAt(found.segment, at));
    found.end = end;
    found.chain = batch.checksum;
    found.batches += 1;
    found.headerBytes.push(batch.bytes);
    found.lastGeneration = header.generation;
    this.#elapsedUs = header.elapsedUs;
    for (let i = 0; i < header.entryCount; i++) {
      if ((entryOf(batch, i).flags & FLAG_START) !== 0) found.lastGeneration += 1;
    }
    this.#batches += 1;
    return true;
  }

  async #finish(
    found: Found[],
    candidates: readonly ReadSegmentHeader[],
    end: Lsn,
    chain: Checksum,
  ): Promise<Replayed> {
    const taken = new Set(found.map(({ segment }) => segment));
    const behind = candidates.filter((one) => !taken.has(one));
    let flushMarks = 0;
    let batches = 0;
    const last = found.at(-1);
    const regions: readonly { readonly segment: ReadSegmentHeader; readonly from: Lsn }[] = [
      ...(last === undefined ? [] : [{ segment: last.segment, from: end }]),
      ...behind.map((segment) => ({ segment, from: segment.firstLsn })),
      ...this.#headless.map((segment) => ({ segment, from: segment.firstLsn })),
    ];
    const cutRegions: CutRegion[] = [];
    const headers: ByteOffset[] = [];
    for (const { segment, from } of regions) {
      const start = slotOffset(this.#super.geometry, segment.slot) + BLOCK_BYTES;
      let stop = from;
      for await (const batch of this.#reader.leftovers(segment, from)) {
        this.#claim(batch.header.durableLsn, `batch at LSN ${batch.header.lsn}`);
        if (batch.header.lsn < end || batch.header.elapsedUs < this.#elapsedUs) continue;
        batches += 1;
        stop = endOf(batch);
        flushMarks += flushMarksOf(batch);
        headers.push(byteOffset(start + (batch.header.lsn - segment.firstLsn)));
      }
      if (stop > from) {
        const offset = byteOffset(start + (from - segment.firstLsn));
        cutRegions.push({ offset, length: byteCount(stop - from) });
      }
    }
    const refusal = await this.#refusalBehind(found, end);
    if (refusal !== undefined) throw refusal;
    if (this.#claimed > end) {
      throw new VarveError(
        'VOLUME_CORRUPT',
        `the log ends at LSN ${end}, but ${this.#claimedBy} states that it was durable up to ` +
          `LSN ${this.#claimed}: the batch at LSN ${end}` +
          `${last === undefined ? '' : `, segment ${last.segment.sequence}, slot ${last.segment.slot}`}` +
          `, is damaged or missing`,
      );
    }
    const segments = found.map((one, i): Segment => this.#segmentOf(one, i === found.length - 1));
    const cut =
      batches > 0 ? { lsn: end, flushMarks, batches, regions: cutRegions, headers } : undefined;
    return {
      segments,
      endLsn: end,
      chain,
      batches: this.#batches,
      verified: this.#verified,
      cut,
      discarded: behind.map(({ slot }) => slot),
      doubtful: this.#doubtful(found),
      nextSequence: segmentSequence(
        Math.max(
          this.#super.tailSequence,
          this.#newest + 1,
          ...[...candidates, ...this.#headless].map(({ sequence }) => sequence + 1),
        ),
      ),
    };
  }

  /**
   * A block that could not be read, and may have been a header that leads on from the end, or states
   * that what was called torn was durable. Where it lies in what was taken it is neither: each header
   * of that was read, or is listed. After a close in order the superblock says where the
   * end is, and nothing lies behind it.
   */
  async #refusalBehind(found: readonly Found[], end: Lsn): Promise<VarveError | undefined> {
    if (this.#super.clean && this.#super.durableLsn === end) return undefined;
    for (const [at, error] of this.#reader.refused) {
      const isTaken = found.some(({ segment, end: to }) => {
        const inside = this.#inside(segment, at);
        return inside >= 0 && inside < to - segment.firstLsn;
      });
      if (!isTaken && !(await this.#isSummary(found, at))) return error;
    }
    return undefined;
  }

  /** Where a place of the device lies behind the first batch of a segment, if it is of its slot. */
  #inside({ slot }: ReadSegmentHeader, at: number): number {
    return at - slotOffset(this.#super.geometry, slot) - BLOCK_BYTES;
  }

  /** Behind a segment that was closed where it was taken to end no header follows. */
  async #isSummary(found: readonly Found[], at: number): Promise<boolean> {
    const { segmentBytes } = this.#super.geometry;
    const of = found.find(({ segment }) => {
      const inside = this.#inside(segment, at);
      return inside >= 0 && inside < segmentBytes - BLOCK_BYTES;
    });
    return of !== undefined && (await this.#reader.closedAt(of.segment)) === of.end;
  }

  /** What was taken, above what is stated durable. */
  #doubtful(found: readonly Found[]): readonly DoubtfulPart[] {
    return found
      .map(({ segment, end }) => {
        const from = this.#claimed > segment.firstLsn ? this.#claimed : segment.firstLsn;
        return { segment, from, to: end };
      })
      .filter(({ segment, from, to }) => from < to || from === segment.firstLsn);
  }

  #segmentOf(found: Found, open: boolean): Segment {
    const summaryBytes = found.headerBytes.reduce((sum, bytes) => sum + bytes.length, 0);
    return {
      sequence: found.segment.sequence,
      slot: found.segment.slot,
      firstLsn: found.segment.firstLsn,
      chain: found.segment.chain,
      header: undefined,
      endLsn: open ? undefined : found.end,
      lastGeneration: generation(found.lastGeneration),
      summaryBytes,
      summary: open ? found.headerBytes : undefined,
      batches: found.batches,
    };
  }
}

function flushMarksOf(batch: Batch): number {
  let marks = 0;
  for (let i = 0; i < batch.header.entryCount; i++) {
    const entry = entryOf(batch, i);
    if (entry.kind === KIND_FLUSH || (entry.flags & FLAG_FUA) !== 0) marks += 1;
  }
  return marks;
}
