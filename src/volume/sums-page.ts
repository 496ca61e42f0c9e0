/**
 * One page of the checksum sidecar: 4 KiB, the sectors in it, and the sums in those. Pure.
 *
 * Invariants:
 *   - What is damaged in a page is known when it was read, and its sums are never answered.
 */
import { VarveError } from '../base/errors.ts';
import {
  block as blockOf,
  BLOCK_BYTES,
  checksum,
  generation,
  type Block,
  type Generation,
} from '../base/units.ts';
import { isZero } from '../device/zeros.ts';
import { SUM_LOST, SUMS_ENTRIES, SUMS_SECTOR_BYTES } from '../format/layouts.ts';
import {
  isSector,
  readSum,
  sealSector,
  sectorOf,
  sinceOf,
  writeSum,
  type Sum,
} from '../format/sums.ts';

export const PAGE_SECTORS = BLOCK_BYTES / SUMS_SECTOR_BYTES;
export const ALL_SECTORS = 2 ** PAGE_SECTORS - 1;
/** Blocks that one page is for. */
export const SUMS_PAGE_BLOCKS = PAGE_SECTORS * SUMS_ENTRIES;
export const SECTORS_OF_A_PAGE = Array.from({ length: PAGE_SECTORS }, (_, i) => i);

/** 4 KiB of the sidecar, checked when it was read. */
export interface Page {
  readonly bytes: Uint8Array;
  /** Bit i: sector i of the page failed its check. */
  readonly damaged: number;
  /** Where the round ended that wrote the page first; undefined where nothing says so. */
  readonly since: Generation | undefined;
}

/** Written first by a copy of the base: a generation that no round has. */
export const SINCE_COPY: Generation = generation(2 ** 48 - 1);

/** In place of a page that the device refuses. Blank sectors of what is written there are damage. */
export const REFUSED: Page = {
  bytes: new Uint8Array(0),
  damaged: ALL_SECTORS,
  since: generation(0),
};

/** The page that the block's sum is in. */
export function pageOf(block: Block): number {
  return Math.floor(sectorOf(block) / PAGE_SECTORS);
}

/** @throws VarveError BLOCK_CORRUPT when the sector that it is in is damaged */
export function sumIn(page: Page, block: Block): Sum {
  return readSum(sectorIn(page, block), block);
}

/** @throws VarveError BLOCK_CORRUPT when it is damaged */
export function sectorIn(page: Page, block: Block): Uint8Array {
  const sector = sectorOf(block);
  const inPage = sector % PAGE_SECTORS;
  if ((page.damaged & (1 << inPage)) !== 0) {
    throw new VarveError('BLOCK_CORRUPT', `block ${block}: sector ${sector} of its checksums`);
  }
  const at = inPage * SUMS_SECTOR_BYTES;
  return page.bytes.subarray(at, at + SUMS_SECTOR_BYTES);
}

/** Whether sector `i` of page `number` is what a sidecar of this seed may have there. */
export function isSectorOf(page: Uint8Array, number: number, i: number, seed: number): boolean {
  const sector = page.subarray(i * SUMS_SECTOR_BYTES, (i + 1) * SUMS_SECTOR_BYTES);
  return isSector(sector, number * PAGE_SECTORS + i, seed);
}

/** Which sectors of a page are damaged, which are blank (a bit each), and since when it is written. */
export function inspectSectors(
  page: Uint8Array,
  number: number,
  seed: number,
): { readonly damaged: number; readonly blank: number; readonly since: Generation | undefined } {
  let damaged = 0;
  let blank = 0;
  let since: Generation | undefined;
  for (const i of SECTORS_OF_A_PAGE) {
    const at = i * SUMS_SECTOR_BYTES;
    if (!isSectorOf(page, number, i, seed)) damaged |= 1 << i;
    else if (page[at] === 0) blank |= 1 << i;
    else since = generation(Math.min(since ?? Infinity, sinceOf(page.subarray(at))));
  }
  return { damaged, blank, since };
}

/** Entries of damaged sectors: nothing says what they were. */
export function giveUp(page: Uint8Array, damaged: number, number: number): void {
  for (const i of SECTORS_OF_A_PAGE) {
    if ((damaged & (1 << i)) === 0) continue;
    const sector = page.subarray(i * SUMS_SECTOR_BYTES, (i + 1) * SUMS_SECTOR_BYTES);
    sector.fill(0);
    for (let entry = 0; entry < SUMS_ENTRIES; entry++) {
      const block = blockOf((number * PAGE_SECTORS + i) * SUMS_ENTRIES + entry);
      const sum = { kind: SUM_LOST, generation: generation(0), checksum: checksum(0) };
      writeSum(sector, block, sum);
    }
  }
}

/** @param damaged - sectors that stay as they are */
export function sealPage(
  page: Uint8Array,
  number: number,
  {
    damaged,
    since,
    seed,
  }: { readonly damaged: number; readonly since: Generation; readonly seed: number },
): void {
  if (isZero(page)) return;
  for (const i of SECTORS_OF_A_PAGE) {
    if ((damaged & (1 << i)) !== 0) continue;
    const bytes = page.subarray(i * SUMS_SECTOR_BYTES, (i + 1) * SUMS_SECTOR_BYTES);
    sealSector(bytes, { sector: number * PAGE_SECTORS + i, seed, since });
  }
}
