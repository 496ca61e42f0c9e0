/**
 * Reads at a generation: each block from ring, log or final storage, verified, or zeros.
 *
 * Invariants:
 *   - What is served matched a checksum over volume, block and generation, or is zeros that the
 *     index or the sidecar vouches for. Else BLOCK_CORRUPT; never older data in its place.
 *   - A segment that is being read is held; a read of final storage that overlaps a round is
 *     resolved again when it does not verify.
 */
import { crc32c } from '../base/crc32c.ts';
import { isVarveError, VarveError } from '../base/errors.ts';
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
import type { Done } from '../device/block-device.ts';
import { bindChecksum, volumeSeed } from '../format/block-checksum.ts';
import { SUM_DATA } from '../format/layouts.ts';
import type { Sum } from '../format/sums.ts';
import { FOUND_DATA, FOUND_ZERO } from '../../index/found.ts';
import type { Core } from './core.ts';

/** "Newest": later than any generation. */
export const LATEST: Generation = generationOf(Number.MAX_SAFE_INTEGER);
const PARALLEL = 16;
const RETRIES_MAX = 16;
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
  readonly #seed: number;
  /** Called when a segment lost its last reader: recycling may be waiting for it. */
  onRelease: () => void = () => undefined;

  constructor(core: Core) {
    this.#core = core;
    this.#seed = volumeSeed(core.uuid);
  }

  /** Fills `target` from byte `offset` as the volume was at `at`. */
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

  /** One block's newest version from RAM. @returns false when it is not there */
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
    const where = inRing ? 'the ring' : 'the cache';
    this.#verify(source, block, index.foundGeneration, index.foundChecksum, where);
    if (start === from && end === from + BLOCK_BYTES) target.set(source, start);
    else target.set(source.subarray(start - from, end - from), start);
    return true;
  }

  #verify(
    content: Uint8Array,
    block: Block,
    generation: Generation,
    expected: Checksum,
    where: string,
  ): void {
    const got = bindChecksum(crc32c(content), this.#seed, block, generation);
    if (got === expected) return;
    this.#core.counters.readErrors += 1;
    throw new VarveError(
      'BLOCK_CORRUPT',
      `block ${block}, generation ${generation}, in ${where}: got checksum ${got}, expected ${expected}`,
    );
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
    await this.readBlocks(first, buffer, at);
    if (whole) return;
    const start = Math.max(0, from);
    const stop = Math.min(target.length, from + length);
    target.set(buffer.subarray(start - from, stop - from), start);
  }

  /** Fills whole blocks from `first` on. */
  async readBlocks(first: Block, buffer: Uint8Array, at: Generation): Promise<void> {
    const runs = this.#plan(first, buffer, at);
    let next = 0;
    const work = async (): Promise<void> => {
      for (let run = runs[next++]; run !== undefined; run = runs[next++]) {
        const start = (run.first - first) * BLOCK_BYTES;
        await this.#readRun(run, buffer.subarray(start, start + run.count * BLOCK_BYTES), at);
      }
    };
    const workers: Promise<void>[] = [];
    for (let i = 0; i < Math.min(PARALLEL, runs.length); i++) workers.push(work());
    try {
      await Promise.all(workers);
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

  async #readRun(run: Run, buffer: Uint8Array, at: Generation): Promise<void> {
    if (run.lsn === undefined) await this.#readFinal(run.first, buffer, at);
    else await this.#readLog(run, run.lsn, buffer);
  }

  async #readLog(run: Run, position: Lsn, buffer: Uint8Array): Promise<void> {
    await this.#core.log.readSlot(position, buffer);
    for (let i = 0; i < run.count; i++) {
      const content = buffer.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
      const [generation, expected] = [run.generations[i], run.checksums[i]];
      if (generation === undefined || expected === undefined) continue;
      this.#verify(
        content,
        blockOf(run.first + i),
        generation,
        expected,
        `the log, LSN ${position}`,
      );
      if (run.count <= CACHED_BLOCKS_MAX) {
        this.#core.cache.keepLsn(lsnOf(position + i * BLOCK_BYTES), content);
      }
    }
  }

  async #readFinal(first: Block, buffer: Uint8Array, at: Generation): Promise<void> {
    const core = this.#core;
    const count = buffer.length / BLOCK_BYTES;
    for (let attempt = 0; ; attempt++) {
      const epoch = core.roundEpoch;
      try {
        if (count === 1 && (await this.#fromCache(first, buffer))) return;
        const sums = await core.final.read(first, buffer);
        if (count <= CACHED_BLOCKS_MAX) this.#keep(first, buffer, sums);
        return;
      } catch (error) {
        const moved = epoch !== core.roundEpoch || this.#anyInIndex(first, count, at);
        if (!isVarveError(error, 'BLOCK_CORRUPT') || !moved || attempt >= RETRIES_MAX) {
          if (isVarveError(error)) core.counters.readErrors += 1;
          throw error;
        }
      }
      // A round moved something under the read: what it moved is found through the index again.
      if (this.#anyInIndex(first, count, at)) {
        await this.readBlocks(first, buffer, at);
        return;
      }
    }
  }

  async #fromCache(block: Block, buffer: Uint8Array): Promise<boolean> {
    const sum = await this.#core.final.sum(block);
    if (sum.kind !== SUM_DATA) return false;
    const known = this.#core.cache.atHome(block, sum.generation);
    if (known === undefined) return false;
    this.#verify(known, block, sum.generation, sum.checksum, 'the cache');
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
