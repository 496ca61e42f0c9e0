/**
 * Final storage with its checksum sidecar: blocks at home locations, every read verified.
 *
 * Invariants:
 *   - A block is served only when it is what its sum says: data with the right checksum, or zeros.
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
import { bindChecksum, volumeSeed } from '../format/block-checksum.ts';
import { SUM_DATA, SUM_LOST } from '../format/layouts.ts';
import type { Sum } from '../format/sums.ts';
import { pageOf, Sidecar } from './sidecar.ts';

const ZEROS = new Uint8Array(BLOCK_BYTES);

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

  constructor(devices: {
    readonly final: LowerDevice;
    readonly sums: LowerDevice;
    readonly volume: Uuid;
    readonly blocks: number;
    readonly cacheBytes: ByteCount;
  }) {
    this.blocks = devices.blocks;
    this.#final = devices.final;
    this.#seed = volumeSeed(devices.volume);
    const { sums: device, blocks, cacheBytes } = devices;
    this.sidecar = new Sidecar({ device, blocks, seed: this.#seed, cacheBytes });
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
      sums = await this.sidecar.sums(first, count);
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
      const problem = await this.#problemTwice(blockOf(first + i), content, sum);
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
        problem = isVarveError(sum) ? sum.detail : await this.#problemTwice(block, content, sum);
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
  async #problemTwice(block: Block, content: Uint8Array, sum: Sum): Promise<string | undefined> {
    const problem = this.problem(block, content, sum);
    if (problem === undefined || sum.kind === SUM_LOST) return problem;
    try {
      await this.readRaw(block, content);
    } catch (error) {
      if (!isVarveError(error, 'DEVICE_IO')) throw error;
      return problem;
    }
    return this.problem(block, content, sum);
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

  /** Data to home locations, as one write of adjacent blocks; durable after `sync`. */
  async write(first: Block, sources: readonly Uint8Array[]): Promise<void> {
    await this.#final.write(byteOffset(first * BLOCK_BYTES), sources);
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
