/**
 * Reads at a generation: each block from ring, log or final storage, verified, or zeros.
 *
 * Invariants:
 *   - What is served matched a checksum over volume, block and generation, or is zeros that the
 *     index or the sidecar vouches for; never older data in its place.
 *   - A damaged copy is answered from another one, if there is one. A block without any is named in
 *     an UnreadableError, and its neighbours are read all the same.
 *   - A segment that is being read is held; a read of final storage that overlaps a round is
 *     resolved again when it does not verify.
 */
import { crc32c } from '../base/crc32c.ts';
import { isVarveError } from '../base/errors.ts';
import {
  block as blockOf,
  BLOCK_BYTES,
  generation as generationOf,
  lsn as lsnOf,
  type Block,
  type ByteOffset,
  type Checksum,
  type Generation,
  type Lsn,
  type SegmentSequence,
} from '../base/units.ts';
import {
  isUnreadable,
  UnreadableError,
  type UnreadableCode,
  type UnreadableRange,
} from '../base/unreadable.ts';
import type { Done } from '../device/block-device.ts';
import { readNarrowed } from '../device/read-narrowed.ts';
import { bindChecksum, volumeSeed } from '../format/block-checksum.ts';
import { SUM_DATA } from '../format/layouts.ts';
import type { Sum } from '../format/sums.ts';
import { FOUND_DATA, FOUND_ZERO } from '../../index/found.ts';
import { allBlocks, newerThan, unreadable, type BadBlock } from './bad-blocks.ts';
import type { Core } from './core.ts';
import type { OtherCopies, Version } from './other-copies.ts';
import { readImages } from './read-images.ts';

/** "Newest": later than any generation. */
export const LATEST: Generation = generationOf(Number.MAX_SAFE_INTEGER);
const PARALLEL = 16;
const RETRIES_MAX = 16;
/** A round may replace something between the look for its image and that at home: once. */
const IMAGE_LOOKS_MAX = 2;
/** Longer requests are scans, and would wash the cache. */
const CACHED_BLOCKS_MAX = 16;

/** Adjacent blocks that one lower read can fetch. */
interface Run {
  readonly first: Block;
  count: number;
  /** Positions in the log, or undefined: final storage. */
  readonly lsn: Lsn | undefined;
  readonly segment: SegmentSequence | undefined;
  readonly checksums: Checksum[];
  readonly generations: Generation[];
}

export class Reader {
  readonly #core: Core;
  readonly #copies: OtherCopies;
  readonly #seed: number;
  /** Called when a segment lost its last reader: recycling may be waiting for it. */
  onRelease: () => void = () => undefined;

  constructor(core: Core, copies: OtherCopies) {
    this.#core = core;
    this.#copies = copies;
    this.#seed = volumeSeed(core.uuid);
  }

  /**
   * Fills `target` from byte `offset` as the volume was at `at`.
   * @throws UnreadableError naming the ranges that are bad; the rest was filled
   */
  read(offset: ByteOffset, target: Uint8Array, at: Generation): Done {
    const first = Math.floor(offset / BLOCK_BYTES);
    const end = Math.ceil((offset + target.length) / BLOCK_BYTES);
    for (let block = first; block < end; block++) {
      const from = block * BLOCK_BYTES - offset;
      if (!this.#readNow(blockOf(block), target, from, at)) {
        return this.#readRest(blockOf(block), blockOf(end), target, from, at);
      }
    }
    return undefined;
  }

  /** One block's newest version from RAM. @returns false when it is not there, or damaged there */
  #readNow(block: Block, target: Uint8Array, from: number, at: Generation): boolean {
    const { index, log, cache } = this.#core;
    const found = index.find(block, at);
    const start = Math.max(0, from);
    const end = Math.min(target.length, from + BLOCK_BYTES);
    if (found === FOUND_ZERO) {
      target.fill(0, start, end);
      return true;
    }
    if (found !== FOUND_DATA) return false;
    const position = index.foundLsn;
    const inRing = log.ring.holds(position);
    const source = inRing ? log.ring.blockAt(position) : cache.atLsn(position);
    if (source === undefined) return false;
    if (!this.#fits(source, block, index.foundGeneration, index.foundChecksum)) {
      cache.dropLsn(position);
      return false;
    }
    if (start === from && end === from + BLOCK_BYTES) target.set(source, start);
    else target.set(source.subarray(start - from, end - from), start);
    return true;
  }

  #fits(content: Uint8Array, block: Block, generation: Generation, expected: Checksum): boolean {
    return bindChecksum(crc32c(content), this.#seed, block, generation) === expected;
  }

  /** The part that needs I/O: whole blocks into `target` or, at ragged ends, a buffer between. */
  async #readRest(
    first: Block,
    end: Block,
    target: Uint8Array,
    from: number,
    at: Generation,
  ): Promise<void> {
    const length = (end - first) * BLOCK_BYTES;
    const whole = from >= 0 && from + length <= target.length;
    const buffer = whole ? target.subarray(from, from + length) : new Uint8Array(length);
    const bad = await this.#readBlocks(first, buffer, at);
    if (!whole) {
      const start = Math.max(0, from);
      const stop = Math.min(target.length, from + length);
      target.set(buffer.subarray(start - from, stop - from), start);
    }
    if (bad !== undefined) {
      // Of a moment that nobody keeps any more nothing has to be there.
      if (this.#isKept(at)) this.#core.counters.readErrors += bad.length;
      const offset = first * BLOCK_BYTES - from;
      throw unreadable(bad, offset, offset + target.length);
    }
  }

  #isKept(at: Generation): boolean {
    return at >= this.#core.horizon.generation || this.#core.pins.isPinned(at);
  }

  /** Fills whole blocks from `first` on. @returns those that can't be read from anywhere */
  async #readBlocks(
    first: Block,
    buffer: Uint8Array,
    at: Generation,
  ): Promise<readonly BadBlock[] | undefined> {
    const runs = this.#plan(first, buffer, at);
    let next = 0;
    const work = async (): Promise<BadBlock[] | undefined> => {
      let found: BadBlock[] | undefined;
      for (let run = runs[next++]; run !== undefined; run = runs[next++]) {
        const start = (run.first - first) * BLOCK_BYTES;
        const target = buffer.subarray(start, start + run.count * BLOCK_BYTES);
        const bad = await this.#readRun(run, target, at);
        if (bad !== undefined) found = found === undefined ? [...bad] : [...found, ...bad];
      }
      return found;
    };
    const workers: Promise<BadBlock[] | undefined>[] = [];
    for (let i = 0; i < Math.min(PARALLEL, runs.length); i++) workers.push(work());
    try {
      const results = await Promise.all(workers);
      if (results.every((result) => result === undefined)) return undefined;
      const bad = results.flatMap((result) => result ?? []);
      bad.sort((one, other) => one.block - other.block);
      return bad;
    } finally {
      // A failed run leaves others not begun; their segments are let go all the same.
      await Promise.allSettled(workers);
      for (const run of runs) this.#release(run);
    }
  }

  /** Takes what RAM holds at once, and groups the rest; segments are held from here on. */
  #plan(first: Block, buffer: Uint8Array, at: Generation): Run[] {
    const { index, references } = this.#core;
    const runs: Run[] = [];
    let last: Run | undefined;
    for (let i = 0; i < buffer.length / BLOCK_BYTES; i++) {
      const block = blockOf(first + i);
      if (this.#readNow(block, buffer, i * BLOCK_BYTES, at)) {
        last = undefined;
        continue;
      }
      const data = index.find(block, at) === FOUND_DATA;
      const position = data ? index.foundLsn : undefined;
      const segment = position === undefined ? undefined : references.segmentOf(position);
      const expected =
        last?.lsn === undefined ? undefined : lsnOf(last.lsn + last.count * BLOCK_BYTES);
      if (last === undefined || last.segment !== segment || expected !== position) {
        last = { first: block, count: 0, lsn: position, segment, checksums: [], generations: [] };
        if (segment !== undefined) references.acquire(segment);
        runs.push(last);
      }
      last.count += 1;
      if (data) {
        last.checksums.push(index.foundChecksum);
        last.generations.push(index.foundGeneration);
      }
    }
    return runs;
  }

  #release(run: Run): void {
    if (run.segment === undefined) return;
    this.#core.references.release(run.segment);
    if (this.#core.references.readers(run.segment) === 0) this.onRelease();
  }

  async #readRun(
    run: Run,
    buffer: Uint8Array,
    at: Generation,
  ): Promise<readonly BadBlock[] | undefined> {
    if (run.lsn === undefined) return await this.#readHome(run.first, buffer, at);
    return await this.#readLog(run, run.lsn, buffer);
  }

  async #readLog(
    run: Run,
    position: Lsn,
    buffer: Uint8Array,
  ): Promise<readonly BadBlock[] | undefined> {
    const { log, cache } = this.#core;
    let refused: ReadonlyMap<number, Error> | undefined;
    try {
      await log.readSlot(position, buffer);
    } catch (error) {
      if (!isVarveError(error, 'DEVICE_IO')) throw error;
      refused = await readNarrowed(
        (from, part) => log.readSlot(lsnOf(position + from), part),
        buffer,
      );
    }
    let bad: BadBlock[] | undefined;
    for (let i = 0; i < run.count; i++) {
      const content = buffer.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
      const [generation, checksum] = [run.generations[i], run.checksums[i]];
      if (generation === undefined || checksum === undefined) continue;
      const block = blockOf(run.first + i);
      const lsn = lsnOf(position + i * BLOCK_BYTES);
      const failure = refused?.get(i);
      if (failure === undefined && this.#fits(content, block, generation, checksum)) {
        if (run.count <= CACHED_BLOCKS_MAX) cache.keepLsn(lsn, content);
        // Read from the log though the ring has it: what the ring has was damaged.
        if (log.ring.holds(lsn)) this.#rescued(1);
        continue;
      }
      content.fill(0);
      const where = `block ${block}, generation ${generation}, in the log at LSN ${lsn}`;
      const why = `${where}: ${failure?.message ?? 'it fails its checksum'}`;
      const code = failure === undefined ? 'BLOCK_CORRUPT' : 'DEVICE_IO';
      (bad ??= []).push({ block, why, code, version: { block, generation, checksum } });
    }
    return bad === undefined ? undefined : await this.#elsewhere('log', bad, run.first, buffer);
  }

  /**
   * What is at home, or was there at the moment: a round keeps what it replaces before it does so,
   * so who meets something later at home finds an image.
   */
  async #readHome(
    first: Block,
    buffer: Uint8Array,
    at: Generation,
  ): Promise<readonly BadBlock[] | undefined> {
    for (let attempt = 0; ; attempt++) {
      if (at >= this.#core.horizon.generation) {
        // A round that gets no further takes its horizon back, and what was given up for it counts.
        let wasOvertaken = false;
        const isOvertaken = (): boolean => (wasOvertaken ||= at < this.#core.horizon.generation);
        const bad = await this.#readFinal(first, buffer, at, isOvertaken);
        if (bad === undefined || !isOvertaken()) return bad;
      } else {
        // A slow read may be overtaken by one round after the other.
        const { horizon } = this.#core.log.superblock;
        const isOvertaken = (): boolean =>
          horizon.generation !== this.#core.log.superblock.horizon.generation;
        const bad = await this.#readPinned(first, buffer, at, isOvertaken);
        if (bad === undefined || (!isOvertaken() && attempt >= IMAGE_LOOKS_MAX)) return bad;
      }
    }
  }

  async #readPinned(
    first: Block,
    buffer: Uint8Array,
    at: Generation,
    isOvertaken: () => boolean,
  ): Promise<readonly BadBlock[] | undefined> {
    const { rest, bad, refusal } = await readImages(this.#core, first, buffer, at);
    const all: BadBlock[] = bad.map((one) => ({ ...one, version: undefined }));
    for (const run of rest) {
      const start = (run.first - first) * BLOCK_BYTES;
      const part = buffer.subarray(start, start + run.count * BLOCK_BYTES);
      for (const one of (await this.#readFinal(run.first, part, at, isOvertaken)) ?? []) {
        all.push(
          refusal === undefined
            ? one
            : { ...one, code: refusal.code, why: `${one.why}; ${refusal.why}` },
        );
      }
    }
    return all.length === 0 ? undefined : all;
  }

  /**
   * @param isOvertaken - a round may be writing over what was there at the moment: what can't be read
   *   is no damage, and has an image by now
   */
  async #readFinal(
    first: Block,
    buffer: Uint8Array,
    at: Generation,
    isOvertaken: () => boolean,
  ): Promise<readonly BadBlock[] | undefined> {
    const core = this.#core;
    const count = buffer.length / BLOCK_BYTES;
    for (let attempt = 0; ; attempt++) {
      const epoch = core.roundEpoch;
      try {
        if (count === 1 && (await this.#fromCache(first, buffer, at))) return undefined;
        const sums = await core.final.read(first, buffer);
        const isSteady = epoch === core.roundEpoch && !this.#anyInIndex(first, count, LATEST);
        // What a round is about to replace would be put back behind its back.
        if (count <= CACHED_BLOCKS_MAX && isSteady) this.#keep(first, buffer, sums);
        const newer = newerThan(sums, first, at);
        if (newer.length === 0) return undefined;
        if (epoch === core.roundEpoch && !this.#anyInIndex(first, count, at)) return newer;
      } catch (error) {
        if (!isUnreadable(error)) throw error;
        const moved = epoch !== core.roundEpoch || this.#anyInIndex(first, count, at);
        if (!moved || attempt >= RETRIES_MAX) {
          const ranges =
            error instanceof UnreadableError ? error.ranges : allBlocks(first, count, error);
          const bad = await this.#badAtHome(ranges, error, at);
          if (isOvertaken()) return bad;
          const newer = await this.#newerBeside(bad, first, count, at);
          const left = (await this.#elsewhere('home', bad, first, buffer)) ?? [];
          return left.length + newer.length === 0 ? undefined : [...left, ...newer];
        }
      }
      // A round moved something under the read: what it moved is found through the index again.
      if (this.#anyInIndex(first, count, at)) return await this.#readBlocks(first, buffer, at);
    }
  }

  /** The bad blocks of final storage, with what their sums say that they should be. */
  async #badAtHome(
    ranges: readonly UnreadableRange[],
    error: { readonly code: string },
    at: Generation,
  ): Promise<BadBlock[]> {
    const code: UnreadableCode = error.code === 'DEVICE_IO' ? 'DEVICE_IO' : 'BLOCK_CORRUPT';
    const bad: BadBlock[] = [];
    for (const { offset, length, why } of ranges) {
      for (let from: number = offset; from < offset + length; from += BLOCK_BYTES) {
        const block = blockOf(from / BLOCK_BYTES);
        const version = await this.#sumAsVersion(block);
        const isOld = version !== undefined && version.generation <= at;
        bad.push({ block, why, code, version: isOld ? version : undefined });
      }
    }
    return bad;
  }

  /** Blocks beside the bad ones whose content is sound, and later than the moment. */
  async #newerBeside(
    bad: readonly BadBlock[],
    first: Block,
    count: number,
    at: Generation,
  ): Promise<readonly BadBlock[]> {
    if (at === LATEST) return [];
    const known = new Set<number>(bad.map(({ block }) => block));
    const newer: BadBlock[] = [];
    for (let i = 0; i < count; i++) {
      const block = blockOf(first + i);
      if (!known.has(block))
        newer.push(...newerThan([await this.#core.final.sidecar.sum(block)], block, at));
    }
    return newer;
  }

  async #sumAsVersion(block: Block): Promise<Version | undefined> {
    try {
      const { kind, generation, checksum } = await this.#core.final.sidecar.sum(block);
      return kind === SUM_DATA ? { block, generation, checksum } : undefined;
    } catch (error) {
      if (isUnreadable(error)) return undefined;
      throw error;
    }
  }

  /** Fills in what another copy has. @returns the blocks that none has */
  async #elsewhere(
    from: 'log' | 'home',
    bad: readonly BadBlock[],
    first: Block,
    buffer: Uint8Array,
  ): Promise<readonly BadBlock[] | undefined> {
    const saved = new Set<Block>();
    const versions = bad.flatMap(({ version }) => (version === undefined ? [] : [version]));
    const fill = (block: Block, content: Uint8Array): void => {
      buffer.set(content, (block - first) * BLOCK_BYTES);
      saved.add(block);
    };
    if (from === 'log') await this.#copies.ofLog(versions, fill, { thorough: false });
    else {
      await this.#copies.ofHome(versions, fill);
      for (const { block, generation } of versions) {
        const at = (block - first) * BLOCK_BYTES;
        // It stays in memory, so that the search is not made again for each read.
        if (saved.has(block)) {
          this.#core.cache.keepHome(block, generation, buffer.subarray(at, at + BLOCK_BYTES));
        }
      }
    }
    this.#rescued(saved.size);
    const left = bad.filter(({ block }) => !saved.has(block));
    return left.length === 0 ? undefined : left;
  }

  #rescued(blocks: number): void {
    this.#core.counters.readErrors += blocks;
    this.#core.counters.readRescues += blocks;
  }

  async #fromCache(block: Block, buffer: Uint8Array, at: Generation): Promise<boolean> {
    const sum = await this.#core.final.sidecar.sum(block);
    if (sum.kind !== SUM_DATA || sum.generation > at) return false;
    const known = this.#core.cache.atHome(block, sum.generation);
    if (known === undefined || !this.#fits(known, block, sum.generation, sum.checksum))
      return false;
    buffer.set(known);
    return true;
  }

  /** Under the sums that the content was verified against: a round may have newer ones by now. */
  #keep(first: Block, buffer: Uint8Array, sums: readonly Sum[]): void {
    sums.forEach(({ kind, generation }, i) => {
      if (kind !== SUM_DATA) return;
      const content = buffer.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
      this.#core.cache.keepHome(blockOf(first + i), generation, content);
    });
  }

  #anyInIndex(first: Block, count: number, at: Generation): boolean {
    for (let i = 0; i < count; i++) {
      if (this.#core.index.find(blockOf(first + i), at) !== 0) return true;
    }
    return false;
  }
}
