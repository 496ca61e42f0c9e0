/**
 * Trims and zeroes: records over ranges of blocks, readable as of any generation of the window.
 *
 * The head is a B+tree of fragments that do not overlap; a record replaces what it covers. Before
 * every CLONE_EVERY-th record a clone of the head is kept, which costs O(1) and shares nodes; the
 * state at a generation is the newest clone at or before it and the few records after that.
 *
 * Invariants:
 *   - Fragments do not overlap, and none is empty. A fragment lies inside the record it came from.
 *   - Records stand in the FIFO in generation order; generations do not decrease.
 *   - A fragment at or before `settled` does not count, wherever it still stands: so forgetting is
 *     O(1) a record, and the head is swept only after as many records as it has fragments.
 */
import { assert } from '../src/base/assert.ts';
import {
  generation as toGeneration,
  type Block,
  type BlockCount,
  type Generation,
} from '../src/base/units.ts';
import { RANGE_TRIM, type RangeKind, type RangeRecord } from './found.ts';
import { sortedMap, type SortedMap } from './sorted-map.ts';

interface Fragment {
  /** The block after the last. */
  readonly end: number;
  readonly generation: Generation;
  readonly kind: RangeKind;
}

const CLONE_EVERY = 64;
const NODE_KEYS = 16;
/** States of past generations that are kept built, for runs and changed. */
const BUILT_MAX = 4;
/** Estimates, measured by bench/index: a record with its share of copied tree nodes, a fragment. */
const RECORD_BYTES = 1300;
const FRAGMENT_BYTES = 120;

/** The fragments as of one generation. */
export type RangeState = SortedMap<Fragment>;

export class RangeHistory {
  /** Live records, after `#gone` dropped ones that wait for a compaction. */
  #records: RangeRecord[] = [];
  #gone = 0;
  /** Number of the record at `#records[0]`, counted from the first ever. */
  #recordFirst = 0;
  #head: RangeState = sortedMap<Fragment>(NODE_KEYS);
  /** `#clones[0]` was taken before record `#cloneFirst * CLONE_EVERY`. */
  #clones: RangeState[] = [];
  #cloneFirst = 0;
  #stale = 0;
  #settled = toGeneration(-1);
  #generationLast = toGeneration(-1);
  #built: { readonly records: number; readonly state: RangeState }[] = [];
  readonly #pair: [number, Fragment] = [
    0,
    { end: 0, generation: toGeneration(0), kind: RANGE_TRIM },
  ];
  foundGeneration: Generation = toGeneration(0);
  foundKind: RangeKind = RANGE_TRIM;
  /** Where the fragment, or the gap, that was found ends. */
  foundEnd = 0;

  get records(): number {
    return this.#records.length - this.#gone;
  }

  get isEmpty(): boolean {
    return this.#records.length === this.#gone;
  }

  get bytes(): number {
    return this.#records.length * RECORD_BYTES + this.#head.size * FRAGMENT_BYTES;
  }

  put(start: Block, count: BlockCount, generation: Generation, kind: RangeKind): void {
    assert(count > 0, 'a range has at least one block');
    assert(generation >= this.#generationLast, 'generations do not decrease');
    this.#generationLast = generation;
    const number = this.#recordFirst + this.#records.length;
    if (number % CLONE_EVERY === 0) {
      this.#clones.push(this.#head.clone());
    }
    const record: RangeRecord = { start, count, generation, kind };
    this.#records.push(record);
    overlay(this.#head, record);
  }

  /** @returns whether a live range covers the block at `at`; details in the `found` fields */
  find(block: Block, at: Generation): boolean {
    if (this.isEmpty) return false;
    if (at >= this.#generationLast) return this.#findIn(this.#head, block);
    const end = this.#recordsUpTo(at);
    if (end === this.#recordFirst + this.#gone) return false;
    // The newest record that covers the block wins; then the clone before them.
    const clone = Math.floor(end / CLONE_EVERY);
    const begin = Math.max(clone * CLONE_EVERY, this.#recordFirst + this.#gone);
    for (let number = end - 1; number >= begin; number--) {
      const record = this.#records[number - this.#recordFirst]!;
      if (block >= record.start && block - record.start < record.count) {
        this.foundGeneration = record.generation;
        this.foundKind = record.kind;
        return true;
      }
    }
    return this.#findIn(this.#cloneOf(clone), block);
  }

  /** The fragments as of `at`, to be read by `spanAt` before the next change. */
  stateAt(at: Generation): RangeState {
    if (this.isEmpty || at >= this.#generationLast) return this.#head;
    const end = this.#recordsUpTo(at);
    const clone = Math.floor(end / CLONE_EVERY);
    if (end === clone * CLONE_EVERY) return this.#cloneOf(clone);
    const built = this.#built.find(({ records }) => records === end);
    if (built !== undefined) return built.state;
    const state = this.#cloneOf(clone).clone();
    const begin = Math.max(clone * CLONE_EVERY, this.#recordFirst + this.#gone);
    for (let number = begin; number < end; number++) {
      overlay(state, this.#records[number - this.#recordFirst]!);
    }
    this.#built.unshift({ records: end, state });
    if (this.#built.length > BUILT_MAX) this.#built.pop();
    return state;
  }

  /**
   * The fragment of `state` that holds the block, or the gap around it.
   * @returns whether it is a fragment; where it ends is in `foundEnd`, which may be Infinity
   */
  spanAt(state: RangeState, block: Block): boolean {
    if (this.isEmpty) {
      this.foundEnd = Infinity;
      return false;
    }
    if (this.#findIn(state, block)) return true;
    const pair = state.getPairOrNextLower(block, this.#pair);
    // A forgotten fragment is a gap up to its end; else the gap ends where the next one starts.
    if (pair !== undefined && pair[1].end > block) this.foundEnd = pair[1].end;
    else this.foundEnd = state.nextHigherKey(block) ?? Infinity;
    return false;
  }

  /** How many blocks the records of one generation cover. */
  blocksOf(generation: Generation): number {
    let blocks = 0;
    for (let at = this.#recordsUpTo(generation) - this.#recordFirst - 1; at >= this.#gone; at--) {
      const record = this.#records[at]!;
      if (record.generation !== generation) break;
      blocks += record.count;
    }
    return blocks;
  }

  recordsUpTo(target: Generation): readonly RangeRecord[] {
    return this.#records.slice(this.#gone, this.#recordsUpTo(target) - this.#recordFirst);
  }

  drop(settled: Generation): void {
    if (settled <= this.#settled) return;
    this.#settled = settled;
    const end = this.#recordsUpTo(settled) - this.#recordFirst;
    if (end === this.#gone) return;
    this.#stale += end - this.#gone;
    this.#gone = end;
    if (this.isEmpty) {
      this.#restart();
      return;
    }
    if (this.#stale * 2 >= this.#head.size) this.#sweep();
    if (this.#gone * 2 >= this.#records.length) this.#compact();
    this.#dropClones();
  }

  /** Recomputes head, clones and built states from the records. */
  check(): void {
    let last = toGeneration(-1);
    for (const { generation, count } of this.#records.slice(this.#gone)) {
      assert(generation > this.#settled, 'a settled record is forgotten');
      assert(generation >= last, 'records stand in generation order');
      assert(count > 0, 'a range has at least one block');
      last = generation;
    }
    const total = this.#recordFirst + this.#records.length;
    this.#checkState(this.#head, total);
    for (const { records, state } of this.#built) this.#checkState(state, records);
    this.#clones.forEach((state, position) => {
      this.#checkState(state, (this.#cloneFirst + position) * CLONE_EVERY);
    });
    assert(
      this.#cloneFirst === Math.floor((this.#recordFirst + this.#gone) / CLONE_EVERY),
      'clones begin with that of the oldest live record',
    );
    assert(
      this.#cloneFirst + this.#clones.length === Math.ceil(total / CLONE_EVERY),
      'a clone is kept before every 64th record',
    );
  }

  #checkState(state: RangeState, records: number): void {
    state.checkValid(true);
    const expected = sortedMap<Fragment>(NODE_KEYS);
    for (const [position, record] of this.#records.entries()) {
      if (position < this.#gone || this.#recordFirst + position >= records) continue;
      overlay(expected, record);
    }
    const live = state.toArray().filter(([, { generation }]) => generation > this.#settled);
    let end = 0;
    for (const [start, fragment] of live) {
      assert(start >= end && fragment.end > start, 'fragments do not overlap, and none is empty');
      end = fragment.end;
    }
    assert(
      JSON.stringify(live) === JSON.stringify(expected.toArray()),
      'a state is what its records make of it',
    );
  }

  #findIn(state: RangeState, block: Block): boolean {
    const pair = state.getPairOrNextLower(block, this.#pair);
    if (pair === undefined) return false;
    const fragment = pair[1];
    if (fragment.end <= block || fragment.generation <= this.#settled) return false;
    this.foundGeneration = fragment.generation;
    this.foundKind = fragment.kind;
    this.foundEnd = fragment.end;
    return true;
  }

  /** @returns the number of the first live record after `target` */
  #recordsUpTo(target: Generation): number {
    let low = this.#gone;
    let high = this.#records.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#records[middle]!.generation <= target) low = middle + 1;
      else high = middle;
    }
    return this.#recordFirst + low;
  }

  #cloneOf(clone: number): RangeState {
    const state = this.#clones[clone - this.#cloneFirst];
    assert(state !== undefined, 'the clone of each live record is kept');
    return state;
  }

  /** Removes what is forgotten from the head; older clones leave with their records. */
  #sweep(): void {
    const settled = this.#settled;
    this.#head.editAll((_start, { generation }) => {
      return generation <= settled ? { delete: true } : undefined;
    });
    this.#stale = 0;
  }

  #compact(): void {
    this.#records = this.#records.slice(this.#gone);
    this.#recordFirst += this.#gone;
    this.#gone = 0;
  }

  #dropClones(): void {
    const first = this.#recordFirst + this.#gone;
    const keep = Math.floor(first / CLONE_EVERY);
    this.#clones.splice(0, keep - this.#cloneFirst);
    this.#cloneFirst = keep;
    this.#built = this.#built.filter(({ records }) => records > first);
  }

  /** Nothing is left. The next record is one that a clone is kept before. */
  #restart(): void {
    const clone = Math.ceil((this.#recordFirst + this.#records.length) / CLONE_EVERY);
    this.#recordFirst = clone * CLONE_EVERY;
    this.#cloneFirst = clone;
    this.#records = [];
    this.#gone = 0;
    this.#head = sortedMap<Fragment>(NODE_KEYS);
    this.#clones = [];
    this.#built = [];
    this.#stale = 0;
  }
}

/** Puts a record over what stands there: what it covers goes, what it cuts is shortened. */
function overlay(tree: RangeState, { start, count, generation, kind }: RangeRecord): void {
  const end = start + count;
  const before = tree.nextLowerPair(start);
  if (before !== undefined && before[1].end > start) {
    const [key, fragment] = before;
    tree.set(key, { end: start, generation: fragment.generation, kind: fragment.kind });
    if (fragment.end > end) tree.set(end, fragment);
  }
  const last = tree.nextLowerPair(end);
  if (last !== undefined && last[0] >= start) {
    if (last[1].end > end) tree.set(end, last[1]);
    tree.deleteRange(start, end, false);
  }
  tree.set(start, { end, generation, kind });
}
