/**
 * The hash table: block -> its newest version. A directory, indexed by the upper bits of the hash,
 * of shards with open addressing and linear probing; a slot is one 32-bit word, because the block
 * itself stands in the version's row.
 *
 * Growing splits one full shard in two, so that no put pays for the whole table: a table in one
 * piece stopped all requests for 400 ms when it doubled at 5 million blocks (docs/decisions/0001).
 *
 * Invariants:
 *   - A slot holds a tag of four hash bits, never 0, above a live version number; or 0 when empty.
 *     A foreign tag saves the look at the row, which is a cache miss.
 *   - Between a block's home slot and its own slot no slot is empty (deletion shifts back).
 *   - A shard of depth d holds all blocks whose hash begins with its d bits, and stands in the
 *     directory 2^(depth of the directory - d) times in a row. At most LOAD_MAX of it is used.
 *   - Whatever blocks a client chooses, there is room: a shard that can't be split any more grows.
 *   - Each block is in the table once.
 */
import { assert } from '../src/base/assert.ts';
import type { Block } from '../src/base/units.ts';
import { NO_VERSION, VERSION_BITS, VERSION_MASK, type VersionStore } from './version-store.ts';

const SLOTS_BITS_MAX = 14;
const SLOTS_MIN = 256;
const SLOTS_MAX = 1 << SLOTS_BITS_MAX;
const TAG_MASK = 15;
/** Directory, tag and slot share the 32 bits of the hash. */
const DEPTH_MAX = 32 - SLOTS_BITS_MAX - 4;
const LOAD_MAX = 0.6;
/** Shards that together would be filled less than this become one; far below LOAD_MAX / 2. */
const LOAD_MIN = 0.2;

interface Shard {
  slots: Int32Array;
  used: number;
  usedMax: number;
  depth: number;
}

export class BlockTable {
  readonly #store: VersionStore;
  readonly #seed: number;
  #directory: Shard[];
  #depth = 0;
  /** Where `shrink` goes on. */
  #shrinkAt = 0;

  /** @param seed - 32 bits that clients don't know: nobody chooses blocks that fall together */
  constructor(store: VersionStore, seed: number) {
    this.#store = store;
    this.#seed = seed | 0;
    this.#directory = [newShard(SLOTS_MIN, 0)];
  }

  /** How many blocks have a version. */
  get used(): number {
    let used = 0;
    for (const shard of new Set(this.#directory)) used += shard.used;
    return used;
  }

  get bytes(): number {
    let bytes = this.#directory.length * 8;
    for (const shard of new Set(this.#directory)) bytes += shard.slots.byteLength + 200;
    return bytes;
  }

  /** @returns the newest version of the block, or NO_VERSION */
  get(block: Block): number {
    const low = block | 0;
    const high = Math.trunc(block / 2 ** 32);
    const hashed = hash(low, high, this.#seed);
    const slots = this.#shardOf(hashed).slots;
    const mask = slots.length - 1;
    const tag = tagOf(hashed);
    let slot = hashed & mask;
    for (;;) {
      const word = slots[slot]!;
      if (word === 0) return NO_VERSION;
      if (word >>> VERSION_BITS === tag) {
        const version = word & VERSION_MASK;
        if (this.#store.holdsBlock(version, low, high)) return version;
      }
      slot = (slot + 1) & mask;
    }
  }

  /** @returns the version that was the newest until now, or NO_VERSION */
  put(block: Block, version: number): number {
    const low = block | 0;
    const high = Math.trunc(block / 2 ** 32);
    const hashed = hash(low, high, this.#seed);
    const shard = this.#shardOf(hashed);
    const slots = shard.slots;
    const mask = slots.length - 1;
    const tag = tagOf(hashed);
    let slot = hashed & mask;
    for (;;) {
      const word = slots[slot]!;
      if (word === 0) break;
      if (word >>> VERSION_BITS === tag) {
        const previous = word & VERSION_MASK;
        if (this.#store.holdsBlock(previous, low, high)) {
          slots[slot] = (tag << VERSION_BITS) | version;
          return previous;
        }
      }
      slot = (slot + 1) & mask;
    }
    slots[slot] = (tag << VERSION_BITS) | version;
    shard.used++;
    if (shard.used > shard.usedMax) this.#grow(shard, hashed);
    return NO_VERSION;
  }

  /** Removes the entry of the block if `version` is still its newest; the row must still stand. */
  remove(block: Block, version: number): void {
    const hashed = hash(block | 0, Math.trunc(block / 2 ** 32), this.#seed);
    const shard = this.#shardOf(hashed);
    const slots = shard.slots;
    const mask = slots.length - 1;
    // Version numbers are unique, so they are compared without a look at the rows.
    const word = (tagOf(hashed) << VERSION_BITS) | version;
    let slot = hashed & mask;
    while (slots[slot] !== word) {
      if (slots[slot] === 0) return;
      slot = (slot + 1) & mask;
    }
    shard.used--;
    this.#shiftBack(slots, slot);
  }

  /**
   * Gives memory back after many removals: looks at some shards, going round. A whole round frees
   * all that can be freed at one depth.
   */
  shrink(shardsMax: number): void {
    const looks = Math.min(shardsMax, this.#directory.length);
    for (let look = 0; look < looks; look++) {
      if (this.#shrinkAt >= this.#directory.length) {
        this.#shrinkAt = 0;
        this.#shrinkDirectory();
      }
      this.#shrinkShard(this.#shrinkAt++);
    }
  }

  /** Recomputes: every slot is reachable from its home, every count is right. */
  check(newest: ReadonlyMap<number, number>): void {
    assert(this.#directory.length === 2 ** this.#depth, 'the directory has 2^depth entries');
    assert(newest.size === this.used, 'the table counts every block that has a version');
    for (const shard of new Set(this.#directory)) {
      const words = shard.slots.filter((word) => word !== 0);
      assert(words.length === shard.used, 'a shard counts its blocks');
      assert(shard.used <= shard.usedMax, 'a shard is not overfull');
      const entries = this.#directory.filter((other) => other === shard).length;
      assert(entries === 2 ** (this.#depth - shard.depth), 'a shard stands where its depth says');
    }
    for (const version of newest.values()) {
      assert(
        this.get(this.#store.blockOf(version)) === version,
        'the table leads from each block to its newest version',
      );
    }
  }

  #shardOf(hashed: number): Shard {
    // A shift by 32 is one by 0, so the upper bits are taken in two steps.
    return this.#directory[(hashed >>> 1) >>> (31 - this.#depth)]!;
  }

  #hashOf(version: number): number {
    const block = this.#store.blockOf(version);
    return hash(block | 0, Math.trunc(block / 2 ** 32), this.#seed);
  }

  #shiftBack(slots: Int32Array, emptied: number): void {
    const mask = slots.length - 1;
    let hole = emptied;
    let slot = emptied;
    for (;;) {
      slot = (slot + 1) & mask;
      const word = slots[slot]!;
      if (word === 0) break;
      // What is at home between the hole and its slot stays; anything else moves into the hole.
      const distance = (slot - this.#hashOf(word & VERSION_MASK)) & mask;
      if (distance >= ((slot - hole) & mask)) {
        slots[hole] = word;
        hole = slot;
      }
    }
    slots[hole] = 0;
  }

  /** Puts what stands in `slots` into the shards that the directory names now. */
  #spread(slots: Int32Array): void {
    for (const word of slots) {
      if (word === 0) continue;
      const hashed = this.#hashOf(word & VERSION_MASK);
      const shard = this.#shardOf(hashed);
      const mask = shard.slots.length - 1;
      let slot = hashed & mask;
      while (shard.slots[slot] !== 0) slot = (slot + 1) & mask;
      shard.slots[slot] = word;
      shard.used++;
    }
  }

  #resize(shard: Shard, slots: number): void {
    const before = shard.slots;
    shard.slots = new Int32Array(slots);
    shard.used = 0;
    shard.usedMax = Math.floor(slots * LOAD_MAX);
    this.#spread(before);
  }

  #grow(shard: Shard, hashed: number): void {
    if (shard.slots.length < SLOTS_MAX || shard.depth === DEPTH_MAX) {
      this.#resize(shard, shard.slots.length * 2);
      return;
    }
    if (shard.depth === this.#depth) {
      this.#directory = this.#directory.flatMap((entry) => [entry, entry]);
      this.#depth++;
    }
    const depth = shard.depth + 1;
    const span = 2 ** (this.#depth - depth);
    // The first entry of the shard: its bits of the hash, followed by zeros.
    const entry = (hashed >>> 1) >>> (31 - this.#depth);
    const first = entry - (entry % (span * 2));
    this.#directory.fill(newShard(SLOTS_MAX, depth), first, first + span);
    this.#directory.fill(newShard(SLOTS_MAX, depth), first + span, first + span * 2);
    this.#spread(shard.slots);
  }

  #shrinkShard(entry: number): void {
    const shard = this.#directory[entry]!;
    if (shard.depth === 0) {
      let slots = shard.slots.length;
      while (slots > SLOTS_MIN && shard.used < slots * LOAD_MIN) slots /= 2;
      if (slots < shard.slots.length) this.#resize(shard, slots);
      return;
    }
    const span = 2 ** (this.#depth - shard.depth);
    const first = entry - (entry % (span * 2));
    const buddies = [this.#directory[first]!, this.#directory[first + span]!] as const;
    const [lower, upper] = buddies;
    if (lower.depth !== upper.depth || lower.used + upper.used >= SLOTS_MAX * LOAD_MIN) return;
    this.#directory.fill(newShard(SLOTS_MAX, shard.depth - 1), first, first + span * 2);
    this.#spread(lower.slots);
    this.#spread(upper.slots);
  }

  /** Halves the directory while no shard needs all of its bits. */
  #shrinkDirectory(): void {
    while (this.#depth > 0 && this.#directory.every(({ depth }) => depth < this.#depth)) {
      this.#directory = this.#directory.filter((_shard, entry) => entry % 2 === 0);
      this.#depth--;
    }
  }
}

function newShard(slots: number, depth: number): Shard {
  const usedMax = Math.floor(slots * LOAD_MAX);
  return { slots: new Int32Array(slots), used: 0, usedMax, depth };
}

/** The upper bits select the shard, the lower ones the slot. Constants: Murmur3's finalizer. */
function hash(low: number, high: number, seed: number): number {
  let mixed = low ^ seed;
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85eb_ca6b);
  // Behind the seed: which blocks beyond 16 TiB fall on others depends on it, too.
  mixed ^= Math.imul(high, 0x9e37_79b1);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2_ae35);
  return mixed ^ (mixed >>> 16);
}

function tagOf(hashed: number): number {
  return (hashed >>> SLOTS_BITS_MAX) & TAG_MASK || TAG_MASK;
}
