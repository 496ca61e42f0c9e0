/**
 * Final storage with its checksum sidecar: blocks at home locations, every read verified.
 *
 * Invariants:
 *   - A block is served only when it is what its sum says: data with the right checksum, or zeros.
 *   - Pages of the sidecar in the cache are never changed in place: a round replaces them.
 */
import { LRUCache } from 'lru-cache';
import { crc32c } from '../base/crc32c.ts';
import { isVarveError, VarveError } from '../base/errors.ts';
import type { Uuid } from '../base/identity.ts';
import {
  BLOCK_BYTES,
  block as blockOf,
  byteCount,
  byteOffset,
  checksum,
  generation,
  type Block,
  type ByteCount,
} from '../base/units.ts';
import {
  isUnreadable,
  mergedRanges,
  UnreadableError,
  type UnreadableCode,
  type UnreadableRange,
} from '../base/unreadable.ts';
import type { LowerDevice } from '../device/lower-device.ts';
import { readNarrowed } from '../device/read-narrowed.ts';
import { bindChecksum, volumeSeed } from '../format/block-checksum.ts';
import {
  SUMS_ENTRIES,
  SUMS_SECTOR_BYTES,
  SUM_DATA,
  SUM_LOST,
  SUM_NEVER,
  SUM_ZERO,
} from '../format/layouts.ts';
import { isSector, readSum, sealSector, sectorOf, writeSum, type Sum } from '../format/sums.ts';

const PAGE_SECTORS = BLOCK_BYTES / SUMS_SECTOR_BYTES;
const ZEROS = new Uint8Array(BLOCK_BYTES);

/** 4 KiB of the sidecar, checked when it was read. */
interface Page {
  readonly bytes: Uint8Array;
  /** Bit i: sector i of the page failed its check. */
  readonly damaged: number;
}

/** What a look at one sector of the sidecar finds. */
export interface SectorState {
  readonly problem: 'damaged' | 'stale' | undefined;
  /** Memory has what it should hold. */
  readonly isKnown: boolean;
  /** The device refuses to read it. */
  readonly isRefused: boolean;
}

/** Nobody gets to see what could not be verified. */
function spoiled(block: Block, content: Uint8Array, why: string): UnreadableRange {
  content.fill(0);
  return { offset: byteOffset(block * BLOCK_BYTES), length: byteCount(BLOCK_BYTES), why };
}

function pageOf(block: Block): number {
  return Math.floor(sectorOf(block) / PAGE_SECTORS);
}

export class FinalStorage {
  readonly blocks: number;
  readonly #final: LowerDevice;
  readonly #sums: LowerDevice;
  readonly #seed: number;
  readonly #pages: LRUCache<number, Page>;
  /** Grows before and after each change of the sidecar. */
  #sumsVersion = 0;

  constructor(devices: {
    readonly final: LowerDevice;
    readonly sums: LowerDevice;
    readonly volume: Uuid;
    readonly blocks: number;
    readonly cacheBytes: ByteCount;
  }) {
    this.blocks = devices.blocks;
    this.#final = devices.final;
    this.#sums = devices.sums;
    this.#seed = volumeSeed(devices.volume);
    this.#pages = new LRUCache({
      maxSize: Math.max(devices.cacheBytes, BLOCK_BYTES),
      sizeCalculation: ({ bytes }) => bytes.length,
    });
  }

  /**
   * Fills `target` with the blocks from `first` on; `target` is whole blocks.
   * @returns the sums that the blocks were verified against
   * @throws UnreadableError naming the blocks that are not what their sums say, whose sums are
   *   damaged, or that the device refuses; the others were filled
   */
  async read(first: Block, target: Uint8Array): Promise<readonly Sum[]> {
    const count = target.length / BLOCK_BYTES;
    let sums: readonly Sum[];
    try {
      sums = await this.sums(first, count);
      await this.#final.read(byteOffset(first * BLOCK_BYTES), target);
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      return await this.#readEach(first, target);
    }
    let bad: UnreadableRange[] | undefined;
    for (let i = 0; i < count; i++) {
      const sum = sums[i];
      if (sum === undefined) continue;
      const content = target.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
      const problem = this.problem(blockOf(first + i), content, sum);
      if (problem !== undefined) (bad ??= []).push(spoiled(blockOf(first + i), content, problem));
    }
    if (bad !== undefined) throw new UnreadableError('BLOCK_CORRUPT', mergedRanges(bad));
    return sums;
  }

  /** The same where one read for all of it failed: block by block as far as that is needed. */
  async #readEach(first: Block, target: Uint8Array): Promise<readonly Sum[]> {
    const count = target.length / BLOCK_BYTES;
    const start = first * BLOCK_BYTES;
    const refused = await readNarrowed(
      (at, part) => this.#final.read(byteOffset(start + at), part),
      target,
    );
    const sums: Sum[] = [];
    const bad: UnreadableRange[] = [];
    let code: UnreadableCode = 'DEVICE_IO';
    let before: Sum | VarveError | undefined;
    for (let i = 0; i < count; i++) {
      const block = blockOf(first + i);
      const content = target.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
      // A page that the device refuses is asked for once, not once for each of its blocks.
      const isSamePage = i > 0 && pageOf(block) === pageOf(blockOf(block - 1));
      const sum: Sum | VarveError =
        isSamePage && before !== undefined && isVarveError(before, 'DEVICE_IO')
          ? before
          : await this.#sumOrError(block);
      before = sum;
      let problem = refused.get(i)?.detail;
      if (problem === undefined) {
        problem = isVarveError(sum) ? sum.detail : this.problem(block, content, sum);
        if (problem !== undefined && !isVarveError(sum, 'DEVICE_IO')) code = 'BLOCK_CORRUPT';
      }
      if (problem !== undefined) bad.push(spoiled(block, content, problem));
      else if (!isVarveError(sum)) sums.push(sum);
    }
    if (bad.length > 0) throw new UnreadableError(code, mergedRanges(bad));
    return sums;
  }

  async #sumOrError(block: Block): Promise<Sum | VarveError> {
    try {
      return await this.sum(block);
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      return error;
    }
  }

  /** Unverified: for those who compare with `problem` themselves. */
  async readRaw(first: Block, target: Uint8Array): Promise<void> {
    await this.#final.read(byteOffset(first * BLOCK_BYTES), target);
  }

  /** What is wrong with a block's content, or undefined. */
  problem(block: Block, content: Uint8Array, sum: Sum): string | undefined {
    const where = `block ${block} of final storage, generation ${sum.generation}`;
    if (sum.kind === SUM_LOST) return `${where}: lost when it was moved there from the log`;
    if (sum.kind === SUM_DATA) {
      const got = bindChecksum(crc32c(content), this.#seed, block, sum.generation);
      if (got === sum.checksum) return undefined;
      return `${where}: got checksum ${got}, expected ${sum.checksum}`;
    }
    if (Buffer.compare(content, ZEROS) === 0) return undefined;
    return `${where}: expected zeros, as its sum (kind ${sum.kind}) says`;
  }

  /** @throws VarveError BLOCK_CORRUPT when the sector of the sidecar is damaged */
  async sum(block: Block): Promise<Sum> {
    const number = pageOf(block);
    return this.#sumIn(this.#pages.get(number) ?? (await this.#load(number)), block);
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
      sums.push(this.#sumIn(page, block));
    }
    return sums;
  }

  #sumIn(page: Page, block: Block): Sum {
    const sector = sectorOf(block);
    const inPage = sector % PAGE_SECTORS;
    if ((page.damaged & (1 << inPage)) !== 0) {
      throw new VarveError('BLOCK_CORRUPT', `block ${block}: sector ${sector} of its checksums`);
    }
    const at = inPage * SUMS_SECTOR_BYTES;
    return readSum(page.bytes.subarray(at, at + SUMS_SECTOR_BYTES), block);
  }

  async #load(number: number): Promise<Page> {
    const bytes = new Uint8Array(BLOCK_BYTES);
    const version = this.#sumsVersion;
    await this.#sums.read(byteOffset(number * BLOCK_BYTES), bytes);
    // A round may have replaced it meanwhile; what it put there is newer.
    const newer = this.#pages.get(number);
    if (newer !== undefined) return newer;
    let damaged = 0;
    for (let i = 0; i < PAGE_SECTORS; i++) {
      const sector = bytes.subarray(i * SUMS_SECTOR_BYTES, (i + 1) * SUMS_SECTOR_BYTES);
      if (!isSector(sector, number * PAGE_SECTORS + i, this.#seed)) damaged |= 1 << i;
    }
    const page = { bytes, damaged };
    // What was read beside a change may be old: it serves this read, which is verified, no other.
    if (version === this.#sumsVersion) this.#pages.set(number, page);
    return page;
  }

  /** Data to home locations, as one write of adjacent blocks; durable after `sync`. */
  async write(first: Block, sources: readonly Uint8Array[]): Promise<void> {
    await this.#final.write(byteOffset(first * BLOCK_BYTES), sources);
  }

  async punch(first: Block, count: number): Promise<void> {
    const length = count * BLOCK_BYTES;
    await this.#final.punch(byteOffset(first * BLOCK_BYTES), byteCount(length));
  }

  /**
   * New sums for blocks in ascending order. A damaged sector keeps its other entries unreadable:
   * they become `lost`, because nothing says what they were.
   */
  async writeSums(changes: readonly { readonly block: Block; readonly sum: Sum }[]): Promise<void> {
    let i = 0;
    while (i < changes.length) {
      const number = pageOf(changes[i]?.block ?? blockOf(0));
      const before = this.#pages.get(number) ?? (await this.#load(number));
      const bytes = Uint8Array.from(before.bytes);
      this.#giveUp(bytes, before.damaged, number);
      for (; i < changes.length; i++) {
        const change = changes[i];
        if (change === undefined || pageOf(change.block) !== number) break;
        const at = (sectorOf(change.block) % PAGE_SECTORS) * SUMS_SECTOR_BYTES;
        writeSum(bytes.subarray(at, at + SUMS_SECTOR_BYTES), change.block, change.sum);
      }
      this.#sealPage(bytes, number);
      this.#sumsVersion += 1;
      await this.#sums.write(byteOffset(number * BLOCK_BYTES), [bytes]);
      this.#sumsVersion += 1;
      this.#pages.set(number, { bytes, damaged: 0 });
    }
  }

  /** Pages of the sidecar. */
  get pages(): number {
    return pageOf(blockOf(this.blocks - 1)) + 1;
  }

  /** The first block that a page is for, and how many there are. */
  pageBlocks(number: number): { readonly first: Block; readonly count: number } {
    const first = number * PAGE_SECTORS * SUMS_ENTRIES;
    const count = Math.min(PAGE_SECTORS * SUMS_ENTRIES, this.blocks - first);
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
      await this.#sums.read(byteOffset(number * BLOCK_BYTES), bytes);
    } catch (error) {
      if (!isVarveError(error, 'DEVICE_IO')) throw error;
      isRefused = true;
    }
    const known = this.#pages.peek(number);
    const states: SectorState[] = [];
    for (let i = 0; i < PAGE_SECTORS; i++) {
      const [from, to] = [i * SUMS_SECTOR_BYTES, (i + 1) * SUMS_SECTOR_BYTES];
      const sector = bytes.subarray(from, to);
      const isKnown = known !== undefined && (known.damaged & (1 << i)) === 0;
      const isBad = isRefused || !isSector(sector, number * PAGE_SECTORS + i, this.#seed);
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
    const before = this.#pages.get(number) ?? (await this.#loadOrBlank(number));
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
      const isBlank = sums.every(({ kind }) => kind === SUM_NEVER);
      if (!isBlank) sealSector(sector, number * PAGE_SECTORS + i, this.#seed);
      damaged &= ~(1 << i);
    }
    this.#sumsVersion += 1;
    await this.#sums.write(byteOffset(number * BLOCK_BYTES), [bytes]);
    this.#sumsVersion += 1;
    this.#pages.set(number, { bytes, damaged });
  }

  /** A page that the device refuses is damaged in all its sectors, and has no bytes. */
  async #loadOrBlank(number: number): Promise<Page> {
    try {
      return await this.#load(number);
    } catch (error) {
      if (!isVarveError(error, 'DEVICE_IO')) throw error;
      return { bytes: new Uint8Array(0), damaged: 2 ** PAGE_SECTORS - 1 };
    }
  }

  /**
   * One sum for a range of any length. Zeros over whole pages of the sidecar are punched there,
   * which says "never written": so a trim of everything stays one step.
   */
  async fillSums(first: Block, count: number, sum: Sum): Promise<void> {
    const step = PAGE_SECTORS * SUMS_ENTRIES;
    const end = first + count;
    const wholeFrom = Math.ceil(first / step);
    const wholeTo = Math.floor(end / step);
    if (sum.kind !== SUM_ZERO || wholeTo <= wholeFrom) {
      await this.#fillEntries(first, end, sum);
      return;
    }
    await this.#fillEntries(first, wholeFrom * step, sum);
    const length = byteCount((wholeTo - wholeFrom) * BLOCK_BYTES);
    this.#sumsVersion += 1;
    await this.#sums.punch(byteOffset(wholeFrom * BLOCK_BYTES), length);
    this.#sumsVersion += 1;
    for (const number of this.#pages.keys()) {
      if (number >= wholeFrom && number < wholeTo) this.#pages.delete(number);
    }
    await this.#fillEntries(wholeTo * step, end, sum);
  }

  async #fillEntries(first: number, end: number, sum: Sum): Promise<void> {
    const step = PAGE_SECTORS * SUMS_ENTRIES;
    for (let at = first; at < end;) {
      const stop = Math.min(end, (Math.floor(at / step) + 1) * step);
      const changes: { block: Block; sum: Sum }[] = [];
      for (let block = at; block < stop; block++) changes.push({ block: blockOf(block), sum });
      await this.writeSums(changes);
      at = stop;
    }
  }

  /** Entries of damaged sectors: nothing says what they were. */
  #giveUp(bytes: Uint8Array, damaged: number, number: number): void {
    for (let i = 0; i < PAGE_SECTORS; i++) {
      if ((damaged & (1 << i)) === 0) continue;
      const sector = bytes.subarray(i * SUMS_SECTOR_BYTES, (i + 1) * SUMS_SECTOR_BYTES);
      sector.fill(0);
      for (let entry = 0; entry < SUMS_ENTRIES; entry++) {
        const block = blockOf((number * PAGE_SECTORS + i) * SUMS_ENTRIES + entry);
        writeSum(sector, block, {
          kind: SUM_LOST,
          generation: generation(0),
          checksum: checksum(0),
        });
      }
    }
  }

  #sealPage(page: Uint8Array, number: number): void {
    for (let i = 0; i < PAGE_SECTORS; i++) {
      const bytes = page.subarray(i * SUMS_SECTOR_BYTES, (i + 1) * SUMS_SECTOR_BYTES);
      if (bytes.some((byte) => byte !== 0))
        sealSector(bytes, number * PAGE_SECTORS + i, this.#seed);
    }
  }

  /** Bytes that final storage takes, holes left out. */
  async allocated(): Promise<ByteCount> {
    return await this.#final.allocated();
  }

  async syncFinal(point: 'final' | 'create-final' | 'repair'): Promise<void> {
    await this.#final.sync(point);
  }

  async syncSums(point: 'sums' | 'create-sums' | 'repair'): Promise<void> {
    await this.#sums.sync(point);
  }
}
