/**
 * The checksum sidecar of final storage, by pages of 4 KiB: what each block at home should be.
 *
 * Invariants:
 *   - Pages in the cache are never changed in place: a round replaces them.
 *   - What is damaged or blank is read a second time before anything goes on from it.
 *   - A page is written whole: none of its sectors is blank, or all are. A blank one beside others is
 *     damaged, and does not say "never written"; only a page that was first written by a round which
 *     is made again may be torn instead.
 *   - A page that the device refuses is given up only by who asks for it: its sums are `lost` then, and
 *     writing it whole makes it readable.
 */
import { LRUCache } from 'lru-cache';
import { isVarveError, VarveError } from '../base/errors.ts';
import {
  BLOCK_BYTES,
  block as blockOf,
  byteCount,
  byteOffset,
  generation,
  type Block,
  type ByteCount,
  type Generation,
} from '../base/units.ts';
import type { LowerDevice } from '../device/lower-device.ts';
import { readNarrowed } from '../device/read-narrowed.ts';
import { isZero } from '../device/zeros.ts';
import { SUMS_ENTRIES, SUMS_SECTOR_BYTES, SUM_DATA, SUM_ZERO } from '../format/layouts.ts';
import { viewOf } from '../format/record.ts';
import { kindAt, sectorOf, writeSum, type Sum } from '../format/sums.ts';
import type { LastLook } from './last-look.ts';
import {
  ALL_SECTORS,
  giveUp,
  inspectSectors,
  isSectorOf,
  PAGE_SECTORS,
  pageOf,
  REFUSED,
  sealPage,
  sectorIn,
  SECTORS_OF_A_PAGE,
  SINCE_COPY,
  sumIn,
  SUMS_PAGE_BLOCKS,
  type Page,
} from './sums-page.ts';

export interface WriteOptions {
  /** What pages that were blank say of who wrote them first; else the round. */
  readonly firstSince?: Generation;
  /** For a page that the device refuses; else it is an error. */
  readonly lastLook?: LastLook;
  /** Damaged sectors stay damaged: nothing is changed in them. */
  readonly keepsDamaged?: boolean;
}

/** What a look at one sector of the sidecar finds. */
export interface SectorState {
  readonly problem: 'damaged' | 'stale' | undefined;
  /** Memory has what it should hold. */
  readonly isKnown: boolean;
  /** The device refuses to read it. */
  readonly isRefused: boolean;
}

/** Pages that are looked at in one read. */
const SCAN_PAGES = 64;

export class Sidecar {
  readonly #device: LowerDevice;
  readonly #blocks: number;
  readonly #seed: number;
  readonly #pages: LRUCache<number, Page>;
  /** Where the round ends that writes, or the last one ended. */
  round = generation(0);
  /** What the volume is based on is being copied: pages first written by that may be torn. */
  isCopying = false;
  /** A round after this generation was cut or failed, and was not made again yet. */
  unfinishedAfter: Generation | undefined;
  /** Grows before and after each change. */
  #version = 0;

  constructor(options: {
    readonly device: LowerDevice;
    readonly blocks: number;
    /** `volumeSeed` of the volume. */
    readonly seed: number;
    readonly cacheBytes: ByteCount;
  }) {
    this.#device = options.device;
    this.#blocks = options.blocks;
    this.#seed = options.seed;
    this.#pages = new LRUCache({
      maxSize: Math.max(options.cacheBytes, BLOCK_BYTES),
      sizeCalculation: ({ bytes }) => bytes.length,
    });
  }

  /** @throws VarveError BLOCK_CORRUPT when the sector of the sidecar is damaged */
  async sum(block: Block): Promise<Sum> {
    const number = pageOf(block);
    return sumIn(this.#pages.get(number) ?? (await this.#load(number)), block);
  }

  /**
   * The sums of blocks from `first` on.
   * @throws VarveError BLOCK_CORRUPT when a sector of the sidecar is damaged
   */
  async sums(first: Block, count: number): Promise<readonly Sum[]> {
    const sums: Sum[] = [];
    let number = -1;
    let page: Page | undefined;
    for (let i = 0; i < count; i++) {
      const block = blockOf(first + i);
      if (page === undefined || pageOf(block) !== number) {
        number = pageOf(block);
        page = this.#pages.get(number) ?? (await this.#load(number));
      }
      sums.push(sumIn(page, block));
    }
    return sums;
  }

  /** Whether sums of copies from a base are in a page, or were: it was first written for some. */
  async hasCopies(number: number): Promise<boolean> {
    const page = this.#pages.get(number) ?? (await this.#load(number));
    if (page.since === SINCE_COPY) return true;
    const { first, count } = this.pageBlocks(number);
    for (let i = 0; i < count; i++) {
      const block = blockOf(first + i);
      if ((page.damaged & (1 << (sectorOf(block) % PAGE_SECTORS))) !== 0) continue;
      const sum = sumIn(page, block);
      if (sum.kind === SUM_DATA && sum.generation === 0) return true;
    }
    return false;
  }

  /**
   * The kinds alone, without a thing in memory for each block: `SUM_DATA` also for what was written
   * after `at`.
   * @throws VarveError BLOCK_CORRUPT when a sector of the sidecar is damaged
   */
  async kinds(first: Block, count: number, at: Generation): Promise<Uint8Array> {
    const kinds = new Uint8Array(count);
    let number = -1;
    let page: Page | undefined;
    for (let i = 0; i < count;) {
      const block = blockOf(first + i);
      if (page === undefined || pageOf(block) !== number) {
        number = pageOf(block);
        page = this.#pages.get(number) ?? (await this.#load(number));
      }
      const view = viewOf(sectorIn(page, block));
      const end = Math.min(count, (sectorOf(block) + 1) * SUMS_ENTRIES - first);
      for (; i < end; i++) kinds[i] = kindAt(view, blockOf(first + i), at);
    }
    return kinds;
  }

  async #load(number: number): Promise<Page> {
    const bytes = new Uint8Array(BLOCK_BYTES);
    const version = this.#version;
    await this.#readPage(number, bytes);
    // A round may have replaced it meanwhile; what it put there is newer.
    const newer = this.#pages.get(number);
    if (newer !== undefined) return newer;
    const page = { bytes, ...this.#judge(bytes, number) };
    // What was read beside a change may be old: it serves this read, which is verified, no other.
    if (version === this.#version) this.#pages.set(number, page);
    return page;
  }

  /**
   * Reads a page; what is damaged or blank in it a second time. A read that went astray may have met
   * a blank page, and rounds would go on from there: all its sums would be gone.
   */
  async #readPage(number: number, bytes: Uint8Array): Promise<void> {
    const at = byteOffset(number * BLOCK_BYTES);
    await this.#device.read(at, bytes);
    const isDoubtful = (i: number): boolean =>
      bytes[i * SUMS_SECTOR_BYTES] === 0 || !isSectorOf(bytes, number, i, this.#seed);
    const doubtful = SECTORS_OF_A_PAGE.filter(isDoubtful);
    if (doubtful.length === 0) return;
    const again = new Uint8Array(BLOCK_BYTES);
    await this.#device.read(at, again);
    for (const i of doubtful) {
      if (!isSectorOf(again, number, i, this.#seed)) continue;
      const [from, to] = [i * SUMS_SECTOR_BYTES, (i + 1) * SUMS_SECTOR_BYTES];
      bytes.set(again.subarray(from, to), from);
    }
  }

  /** What says nothing in a page, or is blank although the page was written whole. */
  #judge(bytes: Uint8Array, number: number): Pick<Page, 'damaged' | 'since'> {
    const { damaged, blank, since } = inspectSectors(bytes, number, this.#seed);
    const isWhole =
      since !== undefined &&
      (since === SINCE_COPY ? !this.isCopying : since <= (this.unfinishedAfter ?? Infinity));
    return { damaged: isWhole ? damaged | blank : damaged, since };
  }

  /**
   * New sums for blocks in ascending order. A damaged sector keeps its other entries unreadable:
   * they become `lost`, because nothing says what they were. So does a page that is given up.
   */
  async write(
    changes: readonly { readonly block: Block; readonly sum: Sum }[],
    { firstSince = this.round, lastLook, keepsDamaged = false }: WriteOptions = {},
  ): Promise<void> {
    let i = 0;
    while (i < changes.length) {
      const number = pageOf(changes[i]?.block ?? blockOf(0));
      const before = this.#pages.get(number) ?? (await this.#loadOrGiveUp(number, lastLook));
      const bytes = new Uint8Array(BLOCK_BYTES);
      bytes.set(before.bytes);
      const damaged = keepsDamaged ? before.damaged : 0;
      if (!keepsDamaged) giveUp(bytes, before.damaged, number);
      for (; i < changes.length; i++) {
        const change = changes[i];
        if (change === undefined || pageOf(change.block) !== number) break;
        const at = (sectorOf(change.block) % PAGE_SECTORS) * SUMS_SECTOR_BYTES;
        writeSum(bytes.subarray(at, at + SUMS_SECTOR_BYTES), change.block, change.sum);
      }
      const since = before.since ?? firstSince;
      sealPage(bytes, number, { damaged, since, seed: this.#seed });
      this.#version += 1;
      await this.#device.write(byteOffset(number * BLOCK_BYTES), [bytes]);
      this.#version += 1;
      this.#pages.set(number, { bytes, damaged, since });
    }
  }

  async #loadOrGiveUp(number: number, lastLook: LastLook | undefined): Promise<Page> {
    try {
      return await this.#load(number);
    } catch (error) {
      if (lastLook === undefined || !isVarveError(error, 'DEVICE_IO')) throw error;
      const { first } = this.pageBlocks(number);
      return (await lastLook(first, error, () => this.#load(number))) ?? REFUSED;
    }
  }

  /** Pages of the sidecar. */
  get pages(): number {
    return pageOf(blockOf(this.#blocks - 1)) + 1;
  }

  /** The first block that a page is for, and how many there are. */
  pageBlocks(number: number): { readonly first: Block; readonly count: number } {
    const first = number * SUMS_PAGE_BLOCKS;
    const count = Math.min(SUMS_PAGE_BLOCKS, this.#blocks - first);
    return { first: blockOf(first), count };
  }

  /**
   * A page as the device has it, past the cache.
   * @returns for each of its sectors what is wrong with it: `damaged`, or `stale` when it is not
   *   what was written last; undefined when nothing is
   */
  async inspectPage(number: number): Promise<readonly SectorState[]> {
    const bytes = new Uint8Array(BLOCK_BYTES);
    let isRefused = false;
    try {
      await this.#device.read(byteOffset(number * BLOCK_BYTES), bytes);
    } catch (error) {
      if (!isVarveError(error, 'DEVICE_IO')) throw error;
      isRefused = true;
    }
    const known = this.#pages.peek(number);
    const damaged = isRefused ? ALL_SECTORS : this.#judge(bytes, number).damaged;
    const states: SectorState[] = [];
    for (let i = 0; i < PAGE_SECTORS; i++) {
      const [from, to] = [i * SUMS_SECTOR_BYTES, (i + 1) * SUMS_SECTOR_BYTES];
      const sector = bytes.subarray(from, to);
      const isKnown = known !== undefined && (known.damaged & (1 << i)) === 0;
      const isBad = (damaged & (1 << i)) !== 0;
      const isOther = isKnown && Buffer.compare(sector, known.bytes.subarray(from, to)) !== 0;
      const problem = isBad ? 'damaged' : isOther ? 'stale' : undefined;
      states.push({ problem, isKnown, isRefused });
    }
    return states;
  }

  /**
   * Writes a page again: sectors as memory knows them, or as they are given here. Others stay as the
   * device has them. The caller holds `home`, and syncs.
   * @param given - all sums of a sector, by its place in the page
   * @throws VarveError DEVICE_IO when the device refuses the page, and not all of it is given
   */
  async mendPage(number: number, given: ReadonlyMap<number, readonly Sum[]>): Promise<void> {
    const before = this.#pages.get(number) ?? (await this.#loadOrRefused(number));
    if (before.bytes.length === 0 && given.size < PAGE_SECTORS) {
      throw new VarveError('DEVICE_IO', `page ${number} of the checksums can't be read`);
    }
    const bytes = new Uint8Array(BLOCK_BYTES);
    bytes.set(before.bytes);
    let { damaged } = before;
    for (const [i, sums] of given) {
      const sector = bytes.subarray(i * SUMS_SECTOR_BYTES, (i + 1) * SUMS_SECTOR_BYTES);
      sector.fill(0);
      const first = (number * PAGE_SECTORS + i) * SUMS_ENTRIES;
      sums.forEach((sum, entry) => writeSum(sector, blockOf(first + entry), sum));
      damaged &= ~(1 << i);
    }
    const since = before.since ?? this.round;
    sealPage(bytes, number, { damaged, since, seed: this.#seed });
    this.#version += 1;
    await this.#device.write(byteOffset(number * BLOCK_BYTES), [bytes]);
    this.#version += 1;
    this.#pages.set(number, { bytes, damaged, since });
  }

  async #loadOrRefused(number: number): Promise<Page> {
    try {
      return await this.#load(number);
    } catch (error) {
      if (!isVarveError(error, 'DEVICE_IO')) throw error;
      return REFUSED;
    }
  }

  /**
   * One sum for a range of any length. Zeros over whole pages of the sidecar are punched there,
   * which says "never written": so a trim of everything stays one step.
   * @param lastLook - for a page that the device refuses
   * @param isKept - given while older moments are kept, or over a base: whether something of these
   *   blocks may be, or lie there. Then, and where a page is not blank, they say since when they are
   *   zeros
   */
  async fill(
    first: Block,
    count: number,
    sum: Sum,
    lastLook?: LastLook,
    isKept?: (first: Block, count: number) => Promise<boolean>,
  ): Promise<void> {
    const step = SUMS_PAGE_BLOCKS;
    const end = first + count;
    const wholeFrom = Math.ceil(first / step);
    const wholeTo = Math.floor(end / step);
    if (sum.kind !== SUM_ZERO || wholeTo <= wholeFrom) {
      await this.#fillEntries(first, end, sum, lastLook);
      return;
    }
    await this.#fillEntries(first, wholeFrom * step, sum, lastLook);
    if (isKept === undefined) await this.#punch(wholeFrom, wholeTo);
    else {
      const isNothing = async (from: number, to: number): Promise<boolean> =>
        !(await isKept(blockOf(from * step), (to - from) * step));
      for await (const { from, to, isBlank } of this.blankRuns(wholeFrom, wholeTo)) {
        if (isBlank && (await isNothing(from, to))) await this.#punch(from, to);
        else
          for (let page = from; page < to; page++) {
            if (isBlank && (await isNothing(page, page + 1))) await this.#punch(page, page + 1);
            else await this.#fillEntries(page * step, (page + 1) * step, sum, lastLook);
          }
      }
    }
    await this.#fillEntries(wholeTo * step, end, sum, lastLook);
  }

  async #punch(from: number, to: number): Promise<void> {
    this.#version += 1;
    const length = byteCount((to - from) * BLOCK_BYTES);
    await this.#device.punch(byteOffset(from * BLOCK_BYTES), length);
    this.#version += 1;
    for (const number of this.#pages.keys()) {
      if (number >= from && number < to) this.#pages.delete(number);
    }
  }

  /**
   * Pages [from, to), in runs of those that are blank, in two reads, and those that are not, or that
   * are refused.
   */
  async *blankRuns(
    from: number,
    to: number,
  ): AsyncGenerator<{ readonly from: number; readonly to: number; readonly isBlank: boolean }> {
    const bytes = new Uint8Array(SCAN_PAGES * BLOCK_BYTES);
    for (let first = from; first < to; first += SCAN_PAGES) {
      const count = Math.min(SCAN_PAGES, to - first);
      const blanks = new Uint8Array(count).fill(1);
      for (let look = 0; look < 2 && blanks.includes(1); look++) {
        const refused = await readNarrowed(
          (at, target) => this.#device.read(byteOffset(first * BLOCK_BYTES + at), target),
          bytes.subarray(0, count * BLOCK_BYTES),
        );
        for (let i = 0; i < count; i++) {
          const page = bytes.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
          if (refused.has(i) || !isZero(page)) blanks[i] = 0;
        }
      }
      const isBlank = (i: number): boolean => blanks[i] === 1;
      for (let i = 0; i < count;) {
        const blank = isBlank(i);
        let after = i + 1;
        while (after < count && isBlank(after) === blank) after += 1;
        yield { from: first + i, to: first + after, isBlank: blank };
        i = after;
      }
    }
  }

  async #fillEntries(
    first: number,
    end: number,
    sum: Sum,
    lastLook: LastLook | undefined,
  ): Promise<void> {
    const step = SUMS_PAGE_BLOCKS;
    for (let at = first; at < end;) {
      const stop = Math.min(end, (Math.floor(at / step) + 1) * step);
      const changes: { block: Block; sum: Sum }[] = [];
      for (let block = at; block < stop; block++) changes.push({ block: blockOf(block), sum });
      await this.write(changes, lastLook && { lastLook });
      at = stop;
    }
  }

  async sync(point: 'sums' | 'create-sums' | 'repair'): Promise<void> {
    await this.#device.sync(point);
  }
}
