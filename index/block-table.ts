/**
 * The hash table: block -> its newest version. Open addressing with linear probing; a slot is one
 * 32-bit word, because the block itself stands in the version's row.
 *
 * Invariants:
 *   - A slot holds the complement of a live version number, which is negative, or 0 when empty.
 *   - Between a block's home slot and its own slot no slot is empty (deletion shifts back).
 *   - At most LOAD_MAX of the slots are used; the slots are a power of two.
 *   - Each block is in the table once.
 */
import { assert } from '../src/base/assert.ts';
import type { Block } from '../src/base/units.ts';
import { NO_VERSION, type VersionStore } from './version-store.ts';

const SLOTS_BITS_MIN = 8;
const SLOTS_BITS_MAX = 31;
const LOAD_MAX = 0.6;
/** Below this load the table halves; far enough from LOAD_MAX / 2 that it does not swing. */
const LOAD_MIN = 0.15;

export class BlockTable {
  readonly #store: VersionStore;
  #slots = new Int32Array(1 << SLOTS_BITS_MIN);
  #bits = SLOTS_BITS_MIN;
  #used = 0;
  #usedMax = Math.floor((1 << SLOTS_BITS_MIN) * LOAD_MAX);

  constructor(store: VersionStore) {
    this.#store = store;
  }

  /** How many blocks have a version. */
  get used(): number {
    return this.#used;
  }

  get bytes(): number {
    return this.#slots.byteLength;
  }

  /** @returns the newest version of the block, or NO_VERSION */
  get(block: Block): number {
    const low = block | 0;
    const high = Math.trunc(block / 2 ** 32);
    const slots = this.#slots;
    const mask = slots.length - 1;
    let slot = hash(low, high) >>> (32 - this.#bits);
    for (;;) {
      const word = slots[slot]!;
      if (word === 0) return NO_VERSION;
      const version = ~word;
      if (this.#store.holdsBlock(version, low, high)) return version;
      slot = (slot + 1) & mask;
    }
  }

  /** @returns the version that was the newest until now, or NO_VERSION */
  put(block: Block, version: number): number {
    const low = block | 0;
    const high = Math.trunc(block / 2 ** 32);
    const slots = this.#slots;
    const mask = slots.length - 1;
    let slot = hash(low, high) >>> (32 - this.#bits);
    for (;;) {
      const word = slots[slot]!;
      if (word === 0) break;
      if (this.#store.holdsBlock(~word, low, high)) {
        slots[slot] = ~version;
        return ~word;
      }
      slot = (slot + 1) & mask;
    }
    slots[slot] = ~version;
    this.#used++;
    if (this.#used > this.#usedMax) this.#resize(this.#bits + 1);
    return NO_VERSION;
  }

  /** Removes the entry of the block if `version` is still its newest; the row must still stand. */
  remove(block: Block, version: number): void {
    const slots = this.#slots;
    const mask = slots.length - 1;
    let slot = hash(block | 0, Math.trunc(block / 2 ** 32)) >>> (32 - this.#bits);
    // Version numbers are unique, so they are compared without a look at the rows.
    while (slots[slot] !== ~version) {
      if (slots[slot] === 0) return;
      slot = (slot + 1) & mask;
    }
    this.#used--;
    this.#shiftBack(slot);
  }

  /** Gives memory back after many removals; cheap when there is nothing to do. */
  shrink(): void {
    let bits = this.#bits;
    while (bits > SLOTS_BITS_MIN && this.#used < 2 ** bits * LOAD_MIN) bits--;
    if (bits !== this.#bits) this.#resize(bits);
  }

  /** Recomputes: every slot is reachable from its home, every count is right. */
  check(newest: ReadonlyMap<number, number>): void {
    assert(newest.size === this.#used, 'the table counts every block that has a version');
    assert(this.#used <= this.#usedMax, 'the table is not overfull');
    let used = 0;
    for (const word of this.#slots) if (word !== 0) used++;
    assert(used === this.#used, 'each block is in the table once');
    for (const version of newest.values()) {
      assert(
        this.get(this.#store.blockOf(version)) === version,
        'the table leads from each block to its newest version',
      );
    }
  }

  #homeOf(version: number): number {
    const block = this.#store.blockOf(version);
    return hash(block | 0, Math.trunc(block / 2 ** 32)) >>> (32 - this.#bits);
  }

  #shiftBack(emptied: number): void {
    const slots = this.#slots;
    const mask = slots.length - 1;
    let hole = emptied;
    let slot = emptied;
    for (;;) {
      slot = (slot + 1) & mask;
      const word = slots[slot]!;
      if (word === 0) break;
      // What is at home between the hole and its slot stays; anything else moves into the hole.
      const distance = (slot - this.#homeOf(~word)) & mask;
      if (distance >= ((slot - hole) & mask)) {
        slots[hole] = word;
        hole = slot;
      }
    }
    slots[hole] = 0;
  }

  #resize(bits: number): void {
    assert(bits <= SLOTS_BITS_MAX, 'the table has at most 2^31 slots');
    const before = this.#slots;
    this.#slots = new Int32Array(2 ** bits);
    this.#bits = bits;
    this.#usedMax = Math.floor(2 ** bits * LOAD_MAX);
    const slots = this.#slots;
    const mask = slots.length - 1;
    for (const word of before) {
      if (word === 0) continue;
      let slot = this.#homeOf(~word);
      while (slots[slot] !== 0) slot = (slot + 1) & mask;
      slots[slot] = word;
    }
  }
}

/** The upper bits select the slot. Multipliers of Murmur3's finalizer. */
function hash(low: number, high: number): number {
  let mixed = low ^ Math.imul(high, 0x9e37_79b1);
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85eb_ca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2_ae35);
  return mixed ^ (mixed >>> 16);
}
