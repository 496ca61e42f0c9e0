/**
 * The versions of the window, in generation order: appended at the back, dropped at the front.
 *
 * A version is a row of seven 32-bit words in a chunk, so that reading one costs one cache line:
 * block, generation, LSN in blocks (low 32 bits each), checksum, link to the version of the same
 * block that it replaced, skip link, and one word for the high bits of the block and the rank.
 *
 * Invariants:
 *   - Version numbers grow by one, modulo 2^28; at most 2^27 versions live at a time, so a number
 *     that was dropped is told from a live one by its distance from the front.
 *   - A link is older than its version. One that was never set, or whose target was dropped, is not
 *     live: nobody has to clear it.
 *   - Generations do not decrease, LSNs strictly increase, and the live ones span less than 2^32
 *     generations and 2^32 blocks of log: the full value is base + (low - base) modulo 2^32.
 *   - Rank r: the skip link leads 2^r - 1 versions of the same block back (skew-binary numbers), so
 *     a chain of n versions is searched in O(log n) steps. Source: Myers, "An applicative
 *     random-access stack", 1983.
 */
import { assert } from '../src/base/assert.ts';
import {
  BLOCK_BYTES,
  block as toBlock,
  checksum as toChecksum,
  generation as toGeneration,
  lsn as toLsn,
  type Block,
  type Checksum,
  type Generation,
  type Lsn,
} from '../src/base/units.ts';

/** "No version", where a version number is expected. */
export const NO_VERSION = -1;

/** Version numbers have this many bits; the rest of a word is free for others. */
export const VERSION_BITS = 28;
export const VERSION_MASK = 2 ** VERSION_BITS - 1;
/** The volume starts a round before the window has this many: 512 GiB of payload, 5 GiB of RAM. */
export const VERSIONS_MAX = 2 ** (VERSION_BITS - 1);
const SPAN_MAX = 2 ** 32;

const CHUNK_BITS = 16;
const CHUNK_ROWS = 1 << CHUNK_BITS;
const CHUNK_MASK = CHUNK_ROWS - 1;
const CHUNK_ID_MASK = VERSION_MASK >>> CHUNK_BITS;
/** The first chunk of an empty store starts this small and doubles. */
const CHUNK_ROWS_MIN = 256;

const ROW_WORDS = 7;
const BLOCK = 0;
const GENERATION = 1;
const LSN = 2;
const CHECKSUM = 3;
const REPLACED = 4;
const SKIP = 5;
/** Bits 0 to 15: high bits of the block. Bits 16 to 21: rank. */
const HIGH = 6;
const HIGH_MASK = 0xffff;
const RANK_SHIFT = 16;

export class VersionStore {
  readonly #chunks: Int32Array[] = [];
  /** The chunk that drained last, to be filled again. */
  #spare: Int32Array | undefined;
  /** Number >>> CHUNK_BITS of the first chunk. */
  #chunkFirst: number;
  #front: number;
  #live = 0;
  #generationBase = 0;
  #generationLast = 0;
  /** In blocks. */
  #lsnBase = 0;
  #lsnLast = -1;

  /** @param first - the first version number; tests begin just below the wrap */
  constructor(first = 0) {
    assert(first >= 0 && first <= VERSION_MASK, 'a version number is below 2^28');
    assert((first & CHUNK_MASK) === 0, 'an empty store begins at the edge of a chunk');
    this.#front = first;
    this.#chunkFirst = first >>> CHUNK_BITS;
  }

  get live(): number {
    return this.#live;
  }

  /** The oldest live version; meaningful when there is one. */
  get front(): number {
    return this.#front;
  }

  get bytes(): number {
    let bytes = this.#spare?.byteLength ?? 0;
    for (const chunk of this.#chunks) bytes += chunk.byteLength;
    return bytes;
  }

  isLive(version: number): boolean {
    return ((version - this.#front) & VERSION_MASK) < this.#live;
  }

  /** The version that comes `ordinal` after the front. */
  at(ordinal: number): number {
    return (this.#front + ordinal) & VERSION_MASK;
  }

  /** How many live versions are older than this one. */
  ordinalOf(version: number): number {
    return (version - this.#front) & VERSION_MASK;
  }

  /** @returns the number of the new version, which has no links yet */
  append(block: Block, generation: Generation, lsn: Lsn, checksum: Checksum): number {
    const lsnBlocks = lsn / BLOCK_BYTES;
    if (this.#live === 0) this.#restart(generation, lsnBlocks);
    assert(generation >= this.#generationLast, 'generations do not decrease');
    assert(lsnBlocks > this.#lsnLast, 'LSNs strictly increase');
    assert(generation - this.#generationBase < SPAN_MAX, 'the window spans < 2^32 generations');
    assert(lsnBlocks - this.#lsnBase < SPAN_MAX, 'the window spans < 2^32 blocks of log');
    assert(this.#live < VERSIONS_MAX, 'the window holds at most 2^27 versions');
    this.#generationLast = generation;
    this.#lsnLast = lsnBlocks;
    const version = (this.#front + this.#live) & VERSION_MASK;
    const rows = this.#chunkToFill(version);
    const row = (version & CHUNK_MASK) * ROW_WORDS;
    const none = (this.#front - 1) & VERSION_MASK;
    rows[row + BLOCK] = block;
    rows[row + GENERATION] = generation;
    rows[row + LSN] = lsnBlocks;
    rows[row + CHECKSUM] = checksum;
    rows[row + REPLACED] = none;
    rows[row + SKIP] = none;
    rows[row + HIGH] = Math.trunc(block / 2 ** 32);
    this.#live++;
    return version;
  }

  /** Says that `version` replaces `replaced`, an older live version of the same block. */
  link(version: number, replaced: number): void {
    const rows = this.#rowsOf(version);
    const row = (version & CHUNK_MASK) * ROW_WORDS;
    const replacedRows = this.#rowsOf(replaced);
    const replacedRow = (replaced & CHUNK_MASK) * ROW_WORDS;
    const rank = replacedRows[replacedRow + HIGH]! >>> RANK_SHIFT;
    const skip = replacedRows[replacedRow + SKIP]!;
    rows[row + REPLACED] = replaced;
    rows[row + SKIP] = replaced;
    let rankNew = 1;
    // Two neighbouring trees of one rank become one of the next; else a tree of one begins.
    if (this.isLive(skip)) {
      const skipRows = this.#rowsOf(skip);
      const skipRow = (skip & CHUNK_MASK) * ROW_WORDS;
      if (rank === skipRows[skipRow + HIGH]! >>> RANK_SHIFT) {
        rows[row + SKIP] = skipRows[skipRow + SKIP]!;
        rankNew = rank + 1;
      }
    }
    rows[row + HIGH] = (rows[row + HIGH]! & HIGH_MASK) | (rankNew << RANK_SHIFT);
  }

  /** The newest version at or before `at` in the chain of `version`, itself included. */
  newestAt(version: number, at: Generation): number {
    if (at >= this.#generationLast) return version;
    const span = at - this.#generationBase;
    if (span < 0) return NO_VERSION;
    const base = this.#generationBase | 0;
    let here = version;
    for (;;) {
      const rows = this.#rowsOf(here);
      const row = (here & CHUNK_MASK) * ROW_WORDS;
      if ((rows[row + GENERATION]! - base) >>> 0 <= span) return here;
      const skip = rows[row + SKIP]!;
      here = rows[row + REPLACED]!;
      if (this.isLive(skip)) {
        const word = this.#rowsOf(skip)[(skip & CHUNK_MASK) * ROW_WORDS + GENERATION]!;
        if ((word - base) >>> 0 > span) here = skip;
      }
      if (!this.isLive(here)) return NO_VERSION;
    }
  }

  holdsBlock(version: number, low: number, high: number): boolean {
    const rows = this.#rowsOf(version);
    const row = (version & CHUNK_MASK) * ROW_WORDS;
    return rows[row + BLOCK] === low && (rows[row + HIGH]! & HIGH_MASK) === high;
  }

  blockOf(version: number): Block {
    const rows = this.#rowsOf(version);
    const row = (version & CHUNK_MASK) * ROW_WORDS;
    return toBlock((rows[row + HIGH]! & HIGH_MASK) * 2 ** 32 + (rows[row + BLOCK]! >>> 0));
  }

  generationOf(version: number): Generation {
    const base = this.#generationBase;
    return toGeneration(base + ((this.#word(version, GENERATION) - (base | 0)) >>> 0));
  }

  lsnOf(version: number): Lsn {
    const base = this.#lsnBase;
    return toLsn((base + ((this.#word(version, LSN) - (base | 0)) >>> 0)) * BLOCK_BYTES);
  }

  checksumOf(version: number): Checksum {
    return toChecksum(this.#word(version, CHECKSUM));
  }

  /** The version that this one replaced; perhaps not live any more. */
  replacedBy(version: number): number {
    return this.#word(version, REPLACED);
  }

  skipOf(version: number): number {
    return this.#word(version, SKIP);
  }

  rankOf(version: number): number {
    return this.#word(version, HIGH) >>> RANK_SHIFT;
  }

  /** Forgets the oldest version. */
  dropFront(): void {
    assert(this.#live > 0, 'only a live version is dropped');
    this.#live--;
    this.#front = (this.#front + 1) & VERSION_MASK;
    if (this.#live === 0) {
      this.#releaseAll();
      return;
    }
    if ((this.#front & CHUNK_MASK) === 0) {
      this.#reuse(this.#chunks.shift());
      this.#chunkFirst = this.#front >>> CHUNK_BITS;
    }
    this.#generationBase = this.generationOf(this.#front);
    this.#lsnBase = this.lsnOf(this.#front) / BLOCK_BYTES;
  }

  /** How many versions, counted from the front, have a generation at or before `target`. */
  countUpTo(target: Generation): number {
    let low = 0;
    let high = this.#live;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.generationOf(this.at(middle)) <= target) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #word(version: number, column: number): number {
    return this.#rowsOf(version)[(version & CHUNK_MASK) * ROW_WORDS + column]!;
  }

  #rowsOf(version: number): Int32Array {
    return this.#chunks[((version >>> CHUNK_BITS) - this.#chunkFirst) & CHUNK_ID_MASK]!;
  }

  #restart(generation: Generation, lsnBlocks: number): void {
    assert(generation >= this.#generationLast, 'generations do not decrease');
    this.#generationBase = generation;
    this.#lsnBase = lsnBlocks;
  }

  #reuse(chunk: Int32Array | undefined): void {
    if (chunk?.length === CHUNK_ROWS * ROW_WORDS) this.#spare = chunk;
  }

  /** An empty store goes on at the next chunk edge, so that it can start small again. */
  #releaseAll(): void {
    this.#chunks.length = 0;
    this.#spare = undefined;
    this.#front = (this.#front + CHUNK_MASK) & VERSION_MASK & ~CHUNK_MASK;
    this.#chunkFirst = this.#front >>> CHUNK_BITS;
  }

  #chunkToFill(version: number): Int32Array {
    const position = ((version >>> CHUNK_BITS) - this.#chunkFirst) & CHUNK_ID_MASK;
    const row = version & CHUNK_MASK;
    const rows = this.#chunks[position];
    if (rows !== undefined && row * ROW_WORDS < rows.length) return rows;
    return this.#grow(position, rows);
  }

  #grow(position: number, rows: Int32Array | undefined): Int32Array {
    let next: Int32Array;
    if (rows !== undefined) {
      next = new Int32Array(rows.length * 2);
      next.set(rows);
    } else if (position === 0) {
      next = new Int32Array(CHUNK_ROWS_MIN * ROW_WORDS);
    } else {
      next = this.#spare ?? new Int32Array(CHUNK_ROWS * ROW_WORDS);
      this.#spare = undefined;
    }
    this.#chunks[position] = next;
    return next;
  }
}
