/**
 * Live versions per region of blocks: empty regions of a huge volume are skipped, not probed.
 *
 * Invariants:
 *   - A region is a power of two of blocks, and there are at most REGIONS_MAX of them.
 *   - A count is the number of live versions, of any generation, whose block lies in the region.
 */
import { assert } from '../src/base/assert.ts';
import { block as toBlock, type Block, type BlockCount } from '../src/base/units.ts';

const REGIONS_MAX = 65_536;
const REGION_BLOCKS_BITS_MIN = 8;

export class RegionCounts {
  readonly #counts: Uint32Array;
  readonly #scale: number;
  readonly #regionBlocks: number;

  constructor(blocks: BlockCount) {
    let regionBlocks = 2 ** REGION_BLOCKS_BITS_MIN;
    while (blocks / regionBlocks > REGIONS_MAX) regionBlocks *= 2;
    this.#regionBlocks = regionBlocks;
    this.#scale = 1 / regionBlocks;
    this.#counts = new Uint32Array(Math.ceil(blocks / regionBlocks));
  }

  get bytes(): number {
    return this.#counts.byteLength;
  }

  added(block: Block): void {
    this.#counts[Math.trunc(block * this.#scale)]!++;
  }

  dropped(block: Block): void {
    this.#counts[Math.trunc(block * this.#scale)]!--;
  }

  isEmptyAt(block: Block): boolean {
    return this.#counts[Math.trunc(block * this.#scale)] === 0;
  }

  /** The block after the region that holds `block`. */
  endOf(block: Block): Block {
    return toBlock((Math.trunc(block * this.#scale) + 1) * this.#regionBlocks);
  }

  check(blocks: Iterable<number>): void {
    const recount = new Uint32Array(this.#counts.length);
    for (const block of blocks) recount[Math.trunc(block * this.#scale)]!++;
    for (const [region, count] of recount.entries()) {
      assert(this.#counts[region] === count, 'a region counts its live versions');
    }
  }
}
