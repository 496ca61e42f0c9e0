/**
 * The log's part of a scrub: of each live segment its header, batch headers, payloads and summary. What memory, another structure or final storage still has is
 * written again in its place.
 *
 * Invariants:
 *   - Only what is durable is looked at: that never moves, and is never written again by others.
 *   - A segment is held while it is scrubbed, so its slot is nobody else's.
 *   - What is written matched the checksum that the log has for it.
 */
import { crc32c } from '../base/crc32c.ts';
import { uuidBytes } from '../base/identity.ts';
import {
  block as blockOf,
  BLOCK_BYTES,
  byteOffset,
  generation as generationOf,
  lsn as lsnOf,
  type Block,
  type Lsn,
} from '../base/units.ts';
import { bindChecksum, volumeSeed } from '../format/block-checksum.ts';
import { FLAG_START, KIND_DATA, KIND_RECORD, SUMMARY_MAGIC } from '../format/layouts.ts';
import { decodeBatch, endOf, entryOf, usedBytes, type Batch } from '../../log/batch.ts';
import { slotOffset, summaryBlocksMax } from '../../log/geometry.ts';
import { mendLog } from '../../log/mend.ts';
import type { Segment } from '../../log/segments.ts';
import {
  decodeSegmentHeader,
  decodeSummaryFooter,
  encodeSegmentHeader,
  encodeSummary,
} from '../../log/summary.ts';
import { recordBlock } from './catalogue-entries.ts';
import { LogWindow } from './log-window.ts';
import type { Version } from './other-copies.ts';
import { ScrubFixed } from './scrub-fixed.ts';
import type { ScrubRun } from './scrub-run.ts';

interface BadPayload {
  readonly lsn: Lsn;
  readonly kind: number;
  readonly block: Block;
  readonly version: Version;
  readonly why: string;
}

export class ScrubLog {
  readonly #run: ScrubRun;
  readonly #seed: number;
  readonly #volumeBytes: Uint8Array;
  readonly #window: LogWindow;
  readonly #fixed: ScrubFixed;
  segments = 0;
  batches = 0;
  logBytes = 0;

  constructor(run: ScrubRun) {
    this.#run = run;
    this.#window = new LogWindow(run);
    this.#fixed = new ScrubFixed(run);
    this.#seed = volumeSeed(run.core.uuid);
    this.#volumeBytes = uuidBytes(run.core.uuid);
  }

  /** Bytes that will be looked at, about. */
  get bytes(): number {
    const { log } = this.#run.core;
    return Math.max(0, log.writer.durable.lsn - log.superblock.tailLsn);
  }

  async all(): Promise<void> {
    await this.#fixed.all();
    const { log, references } = this.#run.core;
    const durable = log.writer.durable.lsn;
    let scrubbed = 0;
    for (;;) {
      // Rounds recycle at one end, writers open at the other: the next one is looked for each time.
      const tail = log.superblock.tailSequence;
      const next = log.segments.live.find(
        ({ sequence, firstLsn }) => sequence > scrubbed && sequence >= tail && firstLsn < durable,
      );
      if (next === undefined) break;
      scrubbed = next.sequence;
      if (!references.has(next.sequence)) continue;
      references.acquire(next.sequence);
      this.#run.held = next.sequence;
      try {
        await this.#segment(next, durable);
      } finally {
        this.#run.held = undefined;
        references.release(next.sequence);
        if (references.readers(next.sequence) === 0) this.#run.onRelease();
      }
    }
    this.#run.checked.push(
      `log: ${this.segments} segments, ${this.batches} batches, ${this.logBytes} bytes: ` +
        `headers, chain, payload checksums, summaries; superblocks and checkpoint`,
    );
  }

  async #segment(segment: Segment, durable: Lsn): Promise<void> {
    this.segments += 1;
    const where = `segment ${segment.sequence}, slot ${segment.slot}`;
    const listed = await this.#summaryOf(segment);
    let chain: number | undefined = await this.#header(segment, where);
    const end = Math.min(segment.endLsn ?? durable, durable);
    const headers: Uint8Array[] = [];
    let isWhole = true;
    let position: number = segment.firstLsn;
    // What a round has settled is of no use any more, and writers may be waiting for its slot.
    while (position < end && !this.#run.isWanted) {
      const batch = await this.#batch(segment, lsnOf(position), chain, listed.batches, where);
      if (batch === undefined) {
        isWhole = false;
        chain = undefined;
        position = await this.#nextBatch(segment, lsnOf(position + BLOCK_BYTES), end);
        continue;
      }
      await this.#payloads(segment, batch);
      headers.push(batch.bytes.slice(0, usedBytes(batch.header.entryCount)));
      this.batches += 1;
      this.logBytes += endOf(batch) - position;
      chain = batch.checksum;
      position = endOf(batch);
    }
    const isClosed = segment.endLsn !== undefined && segment.endLsn <= durable;
    if (isWhole && isClosed && position === segment.endLsn) {
      await this.#summary(segment, headers, listed.isDamaged, where);
    }
  }

  /** @returns the checksum that chains its first batch, if that is known */
  async #header(segment: Segment, where: string): Promise<number | undefined> {
    const { core, repair } = this.#run;
    const at = slotOffset(core.log.geometry, segment.slot);
    const { bytes, problem } = await this.#window.blockAt(at);
    const found = problem === undefined ? decodeSegmentHeader(bytes, core.uuid) : undefined;
    const isRight =
      found !== undefined &&
      found.sequence === segment.sequence &&
      found.slot === segment.slot &&
      found.firstLsn === segment.firstLsn &&
      found.chain === segment.chain;
    if (isRight) return found.checksum;
    // It is known from the opening, or from when it was written; or it is still to be written.
    const known = core.segmentHeaders.get(segment.sequence);
    if (segment.header !== undefined) return undefined;
    const isFitting = known?.slot === segment.slot && known.firstLsn === segment.firstLsn;
    const mended = repair && isFitting ? encodeSegmentHeader(core.uuid, known) : undefined;
    const isMended = mended !== undefined && (await mendLog(core.log, at, mended));
    this.#run.note({
      place: 'segment header',
      what: `${where}: ${problem ?? 'it fails its checksum, or is of another segment'}`,
      repairedFrom: isMended ? 'memory' : undefined,
    });
    return isFitting ? known.checksum : undefined;
  }

  /** The batch at a position, mended if need be; undefined when nothing says what it was. */
  async #batch(
    segment: Segment,
    position: Lsn,
    chain: number | undefined,
    listed: ReadonlyMap<number, Uint8Array>,
    where: string,
  ): Promise<Batch | undefined> {
    const { core, repair } = this.#run;
    const at = core.log.segments.place(segment, position);
    const fits = (batch: Batch | undefined): batch is Batch =>
      batch !== undefined &&
      batch.header.segment === segment.sequence &&
      batch.header.lsn === position &&
      (chain === undefined || batch.header.chain === chain);
    const { bytes, problem } = await this.#window.blockAt(at);
    const found = problem === undefined ? decodeBatch(bytes.slice(), this.#volumeBytes) : undefined;
    if (fits(found)) return found;
    const { ring } = core.log;
    const inRing = ring.holds(position) ? ring.blockAt(position).slice() : undefined;
    let from = 'the ring';
    let good = inRing === undefined ? undefined : decodeBatch(inRing, this.#volumeBytes);
    if (!fits(good)) {
      from = "the segment's summary";
      const used = listed.get(position);
      good = used === undefined ? undefined : decodeBatch(used, this.#volumeBytes);
    }
    let isMended = false;
    if (fits(good) && repair) {
      const whole = new Uint8Array(BLOCK_BYTES);
      whole.set(good.bytes.subarray(0, usedBytes(good.header.entryCount)));
      isMended = await mendLog(core.log, at, whole);
    }
    this.#run.note({
      place: 'batch header',
      what: `${where}, LSN ${position}: bad batch header${problem === undefined ? '' : `: ${problem}`}`,
      repairedFrom: isMended ? from : undefined,
    });
    return fits(good) ? good : undefined;
  }

  /** The position of the next batch header behind a damaged one, or the end. */
  async #nextBatch(segment: Segment, from: Lsn, end: number): Promise<number> {
    for (let position: number = from; position < end; position += BLOCK_BYTES) {
      const at = this.#run.core.log.segments.place(segment, lsnOf(position));
      const { bytes, problem } = await this.#window.blockAt(at);
      const batch = problem === undefined ? decodeBatch(bytes, this.#volumeBytes) : undefined;
      if (batch?.header.segment === segment.sequence && batch.header.lsn === position) {
        return position;
      }
    }
    return end;
  }

  async #payloads(segment: Segment, batch: Batch): Promise<void> {
    const { core } = this.#run;
    const bad: BadPayload[] = [];
    let position = lsnOf(batch.header.lsn + BLOCK_BYTES);
    let generation: number = batch.header.generation;
    for (let i = 0; i < batch.header.entryCount; i++) {
      const entry = entryOf(batch, i);
      if ((entry.flags & FLAG_START) !== 0) generation += 1;
      if (entry.kind !== KIND_DATA && entry.kind !== KIND_RECORD) continue;
      const lsn = position;
      position = lsnOf(position + BLOCK_BYTES);
      const at = core.log.segments.place(segment, lsn);
      const { bytes, problem } = await this.#window.blockAt(at);
      const place = entry.kind === KIND_DATA ? entry.block : lsn / BLOCK_BYTES;
      const sum = bindChecksum(crc32c(bytes), this.#seed, place, generation);
      if (problem === undefined && sum === entry.checksum) continue;
      const block = blockOf(place);
      const version = { block, generation: generationOf(generation), checksum: entry.checksum };
      // What is settled is read from final storage only, and checked there.
      if (entry.kind === KIND_DATA && generation <= core.settled) continue;
      if (entry.kind === KIND_RECORD && lsn < this.#fixed.checkpointLsn) continue;
      bad.push({ lsn, kind: entry.kind, block, version, why: problem ?? 'bad checksum' });
    }
    for (const one of bad) await this.#mendPayload(segment, one);
  }

  async #mendPayload(segment: Segment, bad: BadPayload): Promise<void> {
    const { core, repair } = this.#run;
    const { lsn, kind, block, version } = bad;
    const found =
      kind === KIND_RECORD ? this.#recordCopy(bad) : await this.#payloadCopy(version, lsn);
    const at = core.log.segments.place(segment, lsn);
    const isMended =
      repair && found !== undefined && (await mendLog(core.log, at, found.content.slice()));
    const isData = kind === KIND_DATA;
    let from = isMended ? found.from : undefined;
    if (!isData && from === undefined && repair) {
      // What the record said is in memory: with a checkpoint that has it, the record is not needed.
      await this.#fixed.publishCheckpoint();
      if (lsn < this.#fixed.checkpointLsn) from = 'memory';
    }
    const what = isData ? `block ${block}, generation ${version.generation}` : 'catalogue record';
    this.#run.note({
      place: isData ? 'payload' : 'record',
      what: `${what}, LSN ${lsn}: ${bad.why}`,
      repairedFrom: from,
      block: isData ? block : undefined,
      generation: version.generation,
      seenBy: isData ? this.#run.seenBy(block, version.generation) : undefined,
    });
  }

  async #payloadCopy(
    version: Version,
    lsn: Lsn,
  ): Promise<{ content: Uint8Array; from: string } | undefined> {
    const { core, copies } = this.#run;
    const near = core.log.ring.holds(lsn) ? core.log.ring.blockAt(lsn) : core.cache.atLsn(lsn);
    // A copy: the ring moves on while it is written.
    const kept = near?.slice();
    if (kept !== undefined && copies.fits(version, kept)) return { content: kept, from: 'memory' };
    let found: { content: Uint8Array; from: string } | undefined;
    await copies.ofLog(
      [version],
      (_block, content, from) => {
        found = { content, from };
      },
      { thorough: true },
    );
    return found;
  }

  /** A record's content, made again from the catalogue in memory. */
  #recordCopy({ lsn, version }: BadPayload): { content: Uint8Array; from: string } | undefined {
    const { core, copies } = this.#run;
    const near = core.log.ring.holds(lsn) ? [core.log.ring.blockAt(lsn).slice()] : [];
    const made = core.catalogue.entries().map((entry) => recordBlock(entry));
    const content = [...near, ...made].find((one) => copies.fits(version, one));
    return content === undefined ? undefined : { content, from: 'memory' };
  }

  /** What the summary on the device lists: used parts of headers by position. */
  async #summaryOf(
    segment: Segment,
  ): Promise<{ batches: ReadonlyMap<number, Uint8Array>; isDamaged: boolean }> {
    const { core } = this.#run;
    const { geometry } = core.log;
    const batches = new Map<number, Uint8Array>();
    if (segment.endLsn === undefined) return { batches, isDamaged: false };
    const footerAt = slotOffset(geometry, segment.slot) + geometry.segmentBytes - BLOCK_BYTES;
    const { bytes, problem } = await this.#window.blockAt(byteOffset(footerAt), BLOCK_BYTES);
    const footer = problem === undefined ? decodeSummaryFooter(bytes, core.uuid) : undefined;
    const isOurs = Buffer.from(bytes.subarray(0, 8)).toString('latin1') === SUMMARY_MAGIC;
    if (footer === undefined) return { batches, isDamaged: problem !== undefined || isOurs };
    if (footer.sequence !== segment.sequence) return { batches, isDamaged: false };
    if (footer.bodyBytes > summaryBlocksMax(geometry) * BLOCK_BYTES) {
      return { batches, isDamaged: true };
    }
    const blocks = Math.ceil(footer.bodyBytes / BLOCK_BYTES);
    const body: Uint8Array[] = [];
    for (let i = 0; i < blocks; i++) {
      const left = (blocks - i) * BLOCK_BYTES;
      const one = await this.#window.blockAt(byteOffset(footerAt - left), left);
      if (one.problem !== undefined) return { batches, isDamaged: true };
      body.push(one.bytes.slice());
    }
    const joined = Buffer.concat(body);
    const used = joined.subarray(joined.length - footer.bodyBytes);
    if (crc32c(used) !== footer.bodyChecksum) return { batches, isDamaged: true };
    for (let at = 0; at < used.length;) {
      const batch = decodeBatch(used.subarray(at), this.#volumeBytes);
      if (batch === undefined) return { batches, isDamaged: true };
      const length = usedBytes(batch.header.entryCount);
      batches.set(batch.header.lsn, used.subarray(at, at + length));
      at += length;
    }
    return { batches, isDamaged: false };
  }

  /** Derived from the headers, which were verified: written again where it is damaged. */
  async #summary(
    segment: Segment,
    headers: readonly Uint8Array[],
    isDamaged: boolean,
    where: string,
  ): Promise<void> {
    const { core, repair } = this.#run;
    const { geometry, segments } = core.log;
    if (!isDamaged || segment.endLsn === undefined) return;
    const bytes = encodeSummary(core.uuid, segment.sequence, segment.endLsn, headers);
    const slotEnd = slotOffset(geometry, segment.slot) + geometry.segmentBytes;
    const used = segments.place(segment, lsnOf(segment.endLsn - BLOCK_BYTES)) + BLOCK_BYTES;
    const isSmall = bytes.length <= (summaryBlocksMax(geometry) + 1) * BLOCK_BYTES;
    // One that does not fit was never written: its last block is a batch's.
    if (slotEnd - bytes.length < used || !isSmall) return;
    const isMended = repair && (await mendLog(core.log, byteOffset(slotEnd - bytes.length), bytes));
    this.#run.note({
      place: 'summary',
      what: `${where}: the summary of its headers is damaged`,
      repairedFrom: isMended ? 'its headers' : undefined,
    });
  }
}
