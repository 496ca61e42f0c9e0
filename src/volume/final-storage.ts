/**
 * Final storage with its checksum sidecar: blocks at home locations, every read verified. Of a volume
 * with a base, what was never written is what the base has.
 *
 * Invariants:
 *   - A block is served only when it is what its sum says: data with the right checksum, or zeros.
 *   - The base stands in only where the sum says "never written" and home is zeros; once it is being
 *     copied to home, also where home has a part of the copy, and nothing else.
 */
import { crc32c } from '../base/crc32c.ts';
import { isVarveError, type VarveError } from '../base/errors.ts';
import type { Uuid } from '../base/identity.ts';
import {
  BLOCK_BYTES,
  block as blockOf,
  byteCount,
  byteOffset,
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
import { anyAnswers } from '../device/some-places.ts';
import { isZero } from '../device/zeros.ts';
import { bindChecksum, volumeSeed } from '../format/block-checksum.ts';
import { SUM_DATA, SUM_LOST, SUM_NEVER, SUMS_SECTOR_BYTES } from '../format/layouts.ts';
import type { Sum } from '../format/sums.ts';
import { BaseBlocks, runsOf, type BadBase, type BaseDisk } from './base-disk.ts';
import { Sidecar } from './sidecar.ts';
import { pageOf } from './sums-page.ts';

const ZEROS = new Uint8Array(BLOCK_BYTES);
const SECTOR_BYTES = SUMS_SECTOR_BYTES;

/** What a volume is based on. */
export interface BaseOptions {
  readonly disk: BaseDisk;
  /** Its blocks are being copied to home: a crash leaves some of them there without a sum. */
  readonly isCopied: boolean;
  /** Its name, for people. */
  readonly text: string;
  /** Called when it is not needed any more; again at the volume's end is fine. */
  readonly close?: (() => Promise<void>) | undefined;
}

/** Nobody gets to see what could not be verified. */
function spoiled(block: Block, content: Uint8Array, why: string): UnreadableRange {
  content.fill(0);
  return { offset: byteOffset(block * BLOCK_BYTES), length: byteCount(BLOCK_BYTES), why };
}

export class FinalStorage {
  readonly blocks: number;
  readonly #final: LowerDevice;
  readonly sidecar: Sidecar;
  readonly #seed: number;
  #base: BaseBlocks | undefined;
  readonly #closeBase: (() => Promise<void>) | undefined;
  /** Who looks at the base. */
  #users = 0;
  #onUnused: (() => void) | undefined;
  /** There is a base, or was one: "never written" is more than the log tells. */
  readonly hadBase: boolean;
  #baseText: string | undefined;

  constructor(devices: {
    readonly final: LowerDevice;
    readonly sums: LowerDevice;
    readonly volume: Uuid;
    readonly blocks: number;
    readonly cacheBytes: ByteCount;
    readonly base?: BaseOptions | undefined;
    readonly hadBase?: boolean | undefined;
  }) {
    this.blocks = devices.blocks;
    const isCopied = devices.base?.isCopied === true;
    this.#base = devices.base && new BaseBlocks(devices.base.disk, isCopied);
    this.#closeBase = devices.base?.close;
    this.#baseText = devices.base?.text;
    this.hadBase = devices.base !== undefined || devices.hadBase === true;
    this.#final = devices.final;
    this.#seed = volumeSeed(devices.volume);
    const { sums: device, blocks, cacheBytes } = devices;
    this.sidecar = new Sidecar({ device, blocks, seed: this.#seed, cacheBytes });
    this.sidecar.isCopying = isCopied;
  }

  get hasBase(): boolean {
    return this.#base !== undefined;
  }

  /** For people. */
  get baseText(): string | undefined {
    return this.#baseText;
  }

  /** Runs `work` with the base, if there is one; it stays until that has ended. */
  async withBase<T>(work: (base: BaseBlocks | undefined) => Promise<T>): Promise<T> {
    const base = this.#base;
    if (base === undefined) return await work(undefined);
    this.#users += 1;
    try {
      return await work(base);
    } finally {
      this.#users -= 1;
      if (this.#users === 0) this.#onUnused?.();
    }
  }

  /** From here on parts of the base may lie at home without a sum. */
  beginCopy(): void {
    if (this.#base !== undefined) this.#base.isCopied = true;
    this.sidecar.isCopying = true;
  }

  /** Home has all that was the base's: it is looked at no more, and closed when it settles. */
  async dropBase(): Promise<void> {
    this.#base = undefined;
    this.#baseText = undefined;
    this.sidecar.isCopying = false;
    if (this.#users > 0) {
      await new Promise<void>((resume) => {
        this.#onUnused = resume;
      });
    }
    this.#onUnused = undefined;
    await this.#closeBase?.();
  }

  /**
   * Fills `target` with the blocks from `first` on; `target` is whole blocks.
   * @returns the sums that the blocks were verified against
   * @throws UnreadableError naming the blocks that are not what their sums say, whose sums are
   *   damaged, or that the device refuses; the others were filled
   */
  read(first: Block, target: Uint8Array): Promise<readonly Sum[]> {
    return this.withBase((base) => this.#read(first, target, base));
  }

  async #read(
    first: Block,
    target: Uint8Array,
    base: BaseBlocks | undefined,
  ): Promise<readonly Sum[]> {
    const count = target.length / BLOCK_BYTES;
    let sums: readonly Sum[];
    try {
      sums = await this.sidecar.sums(first, count);
      await this.#final.read(byteOffset(first * BLOCK_BYTES), target);
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      return await this.#readEach(first, target, base);
    }
    let bad: UnreadableRange[] | undefined;
    for (let i = 0; i < count; i++) {
      const sum = sums[i];
      if (sum === undefined) continue;
      const content = target.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
      const problem = await this.#problemTwice(blockOf(first + i), content, sum, base);
      if (problem !== undefined) (bad ??= []).push(spoiled(blockOf(first + i), content, problem));
    }
    const isNever = (i: number): boolean => sums[i]?.kind === SUM_NEVER;
    const below = base && (await this.#fromBase(base, first, target, isNever));
    if (bad !== undefined) throw unreadableOf('BLOCK_CORRUPT', bad, below);
    if (below !== undefined) throw unreadableOf(below.code, [], below);
    return sums;
  }

  /** The same where one read for all of it failed: block by block as far as that is needed. */
  async #readEach(
    first: Block,
    target: Uint8Array,
    base: BaseBlocks | undefined,
  ): Promise<readonly Sum[]> {
    const count = target.length / BLOCK_BYTES;
    const start = first * BLOCK_BYTES;
    const refused = await readNarrowed(
      (at, part) => this.#final.read(byteOffset(start + at), part),
      target,
    );
    const sums: Sum[] = [];
    const never = new Set<number>();
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
        problem = isVarveError(sum)
          ? sum.detail
          : await this.#problemTwice(block, content, sum, base);
        if (problem !== undefined && !isVarveError(sum, 'DEVICE_IO')) code = 'BLOCK_CORRUPT';
      }
      if (problem !== undefined) bad.push(spoiled(block, content, problem));
      else if (!isVarveError(sum)) {
        sums.push(sum);
        if (sum.kind === SUM_NEVER) never.add(i);
      }
    }
    const below = base && (await this.#fromBase(base, first, target, (i) => never.has(i)));
    if (below?.code === 'BLOCK_CORRUPT') code = 'BLOCK_CORRUPT';
    if (bad.length > 0 || below !== undefined) throw unreadableOf(code, bad, below);
    return sums;
  }

  /** Puts the base's content into those blocks of `target`, which has what is at home. */
  async #fromBase(
    base: BaseBlocks,
    first: Block,
    target: Uint8Array,
    isNever: (i: number) => boolean,
  ): Promise<BadBase | undefined> {
    let code: UnreadableCode = 'DEVICE_IO';
    const ranges: UnreadableRange[] = [];
    for (const run of runsOf(first, target.length / BLOCK_BYTES, isNever)) {
      const part = target.subarray(run.at * BLOCK_BYTES, (run.at + run.count) * BLOCK_BYTES);
      const home = base.isCopied ? part.slice() : undefined;
      const bad = await base.read(run.first, part);
      if (bad?.code === 'BLOCK_CORRUPT') code = 'BLOCK_CORRUPT';
      ranges.push(...(bad?.ranges ?? []));
      if (home === undefined) continue;
      const known = new Set<number>(bad?.ranges.map(({ offset }) => offset / BLOCK_BYTES));
      for (let i = 0; i < run.count; i++) {
        const block = blockOf(run.first + i);
        const [from, to] = [i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES];
        if (known.has(block)) continue;
        const content = part.subarray(from, to);
        if (await this.#isCopyTwice(block, home.subarray(from, to), content)) continue;
        const where = `block ${block} of final storage, generation 0`;
        ranges.push(spoiled(block, content, `${where}: neither zeros nor what the base has`));
        code = 'BLOCK_CORRUPT';
      }
    }
    if (ranges.length === 0) return undefined;
    return { code, ranges: ranges.sort((one, other) => one.offset - other.offset) };
  }

  /** The same with a second look, as `#problemTwice`. */
  async #isCopyTwice(block: Block, home: Uint8Array, content: Uint8Array): Promise<boolean> {
    if (isCopy(home, content)) return true;
    try {
      await this.readRaw(block, home);
    } catch (error) {
      if (!isVarveError(error, 'DEVICE_IO')) throw error;
      return false;
    }
    return isCopy(home, content);
  }

  async #sumOrError(block: Block): Promise<Sum | VarveError> {
    try {
      return await this.sidecar.sum(block);
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      return error;
    }
  }

  /** Unverified: for those who compare with `problem` themselves. */
  async readRaw(first: Block, target: Uint8Array): Promise<void> {
    await this.#final.read(byteOffset(first * BLOCK_BYTES), target);
  }

  /** The same, with a second look: a device may have answered with what lies elsewhere. */
  async #problemTwice(
    block: Block,
    content: Uint8Array,
    sum: Sum,
    base: BaseBlocks | undefined,
  ): Promise<string | undefined> {
    const problem = this.problem(block, content, sum, base);
    if (problem === undefined || sum.kind === SUM_LOST) return problem;
    try {
      await this.readRaw(block, content);
    } catch (error) {
      if (!isVarveError(error, 'DEVICE_IO')) throw error;
      return problem;
    }
    return this.problem(block, content, sum, base);
  }

  /** What is wrong with a block's content, or undefined. */
  problem(block: Block, content: Uint8Array, sum: Sum, base = this.#base): string | undefined {
    const where = `block ${block} of final storage, generation ${sum.generation}`;
    if (sum.kind === SUM_LOST) return `${where}: lost when it was moved there from the log`;
    if (sum.kind === SUM_DATA) {
      const got = bindChecksum(crc32c(content), this.#seed, block, sum.generation);
      if (got === sum.checksum) return undefined;
      return `${where}: got checksum ${got}, expected ${sum.checksum}`;
    }
    if (Buffer.compare(content, ZEROS) === 0) return undefined;
    // Who has the base compares it.
    if (sum.kind === SUM_NEVER && base?.isCopied === true) return undefined;
    return `${where}: expected zeros, as its sum (kind ${sum.kind}) says`;
  }

  /** Data to home locations, as one write of adjacent blocks; durable after `sync`. */
  async write(first: Block, sources: readonly Uint8Array[]): Promise<void> {
    await this.#final.write(byteOffset(first * BLOCK_BYTES), sources);
  }

  /**
   * Whether each part of it reads anything at all, past what is cached: home, sums, and the base. Bad
   * places are for good; a device that is away may come back whole.
   */
  async isThere(): Promise<boolean> {
    const content = new Uint8Array(BLOCK_BYTES);
    const isHome = await anyAnswers(this.blocks, async (block) => {
      await this.readRaw(blockOf(block), content);
      return true;
    });
    const isSums = await anyAnswers(this.sidecar.pages, async (page) => {
      const states = await this.sidecar.inspectPage(page);
      return states.some(({ isRefused }) => !isRefused);
    });
    const isBase = await this.withBase(async (base) => {
      if (base === undefined || base.size === 0) return true;
      return await anyAnswers(Math.ceil(base.size / BLOCK_BYTES), async (block) => {
        const bad = await base.read(blockOf(block), content);
        return bad?.code !== 'DEVICE_IO';
      });
    });
    return isHome && isSums && isBase;
  }

  async punch(first: Block, count: number): Promise<void> {
    const length = count * BLOCK_BYTES;
    await this.#final.punch(byteOffset(first * BLOCK_BYTES), byteCount(length));
  }

  /** Bytes that final storage takes, holes left out. */
  async allocated(): Promise<ByteCount> {
    return await this.#final.allocated();
  }

  async syncFinal(point: 'final' | 'create-final' | 'repair'): Promise<void> {
    await this.#final.sync(point);
  }
}

/** Whether a copy of `content` was written there, or a part of it in any order. */
function isCopy(home: Uint8Array, content: Uint8Array): boolean {
  for (let at = 0; at < BLOCK_BYTES; at += SECTOR_BYTES) {
    const sector = home.subarray(at, at + SECTOR_BYTES);
    const isSame = Buffer.compare(sector, content.subarray(at, at + SECTOR_BYTES)) === 0;
    if (!isSame && !isZero(sector)) return false;
  }
  return true;
}

function unreadableOf(
  code: UnreadableCode,
  bad: readonly UnreadableRange[],
  below: BadBase | undefined,
): UnreadableError {
  const all = [...bad, ...(below?.ranges ?? [])];
  return new UnreadableError(
    code,
    mergedRanges(all.sort((one, other) => one.offset - other.offset)),
  );
}
