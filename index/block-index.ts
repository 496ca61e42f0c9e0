/**
 * Where every version of every block in the window is: a hash table to the newest version of a
 * block, links to the older ones, and a B+tree of ranges for trims and zeroes. No I/O, no clock.
 *
 * Invariants:
 *   - Generations never decrease, over points and ranges together; they are equal only within one
 *     request, whose points and ranges are disjoint. LSNs strictly increase.
 *   - state(g) of a block is its newest version in (settled, g], where the newer of point and range
 *     wins; when there is none, it is what final storage holds.
 *   - What is at or before `settled` is never found.
 *   - Every live version is counted once in its region, and once in the segment of its LSN.
 */
import { assert } from '../src/base/assert.ts';
import {
  byteCount,
  checksum as toChecksum,
  generation as toGeneration,
  lsn as toLsn,
  type Block,
  type BlockCount,
  type ByteCount,
  type Checksum,
  type Generation,
  type Lsn,
  type SegmentSequence,
} from '../src/base/units.ts';
import { BlockTable } from './block-table.ts';
import { blockVersions, type BlockVersions } from './block-versions.ts';
import { checkVersions } from './check-versions.ts';
import {
  FOUND_DATA,
  FOUND_NONE,
  FOUND_ZERO,
  RANGE_TRIM,
  type Found,
  type RangeKind,
  type RangeRecord,
} from './found.ts';
import { newestVersions, type NewestVersions } from './newest-versions.ts';
import { RangeHistory } from './range-history.ts';
import { RegionCounts } from './region-counts.ts';
import {
  walkChanged,
  walkRuns,
  type Changed,
  type Runs,
  type Walked,
  type WalkLimits,
} from './run-walk.ts';
import type { SegmentReferences } from './segment-references.ts';
import { NO_VERSION, VersionStore } from './version-store.ts';

export {
  FOUND_DATA,
  FOUND_NONE,
  FOUND_ZERO,
  RANGE_ALLOCATE,
  RANGE_TRIM,
  RANGE_ZERO,
  type Found,
  type RangeKind,
  type RangeRecord,
} from './found.ts';

/** A look at one shard of the table for so many versions dropped. */
const DROPS_PER_SHARD = 1024;

export interface BlockIndexOptions {
  readonly blocks: BlockCount;
  /** Told about every version that comes and goes. */
  readonly segments?: SegmentReferences;
  /** The first version number; tests begin just below its wrap. */
  readonly versionFirst?: number;
  /** @see BlockTable */
  readonly seed?: number;
}

export class BlockIndex {
  readonly #blocks: BlockCount;
  readonly #segments: SegmentReferences | undefined;
  readonly #store: VersionStore;
  readonly #table: BlockTable;
  readonly #regions: RegionCounts;
  readonly #ranges = new RangeHistory();
  #generationLast = toGeneration(0);
  #settled = toGeneration(0);

  /** What the last `find` found; valid until the next call. */
  foundLsn: Lsn = toLsn(0);
  foundChecksum: Checksum = toChecksum(0);
  foundGeneration: Generation = toGeneration(0);
  foundRangeKind: RangeKind = RANGE_TRIM;

  constructor({ blocks, segments, versionFirst = 0, seed = 0 }: BlockIndexOptions) {
    assert(blocks > 0 && blocks <= 2 ** 41, 'a volume has 1 to 2^41 blocks');
    this.#blocks = blocks;
    this.#segments = segments;
    this.#store = new VersionStore(versionFirst);
    this.#table = new BlockTable(this.#store, seed);
    this.#regions = new RegionCounts(blocks);
  }

  /** Live versions of blocks. */
  get versions(): number {
    return this.#store.live;
  }

  /** Live records over ranges. */
  get rangeRecords(): number {
    return this.#ranges.records;
  }

  /** RAM: exact for what scales with versions, estimated for what scales with ranges. */
  get bytes(): ByteCount {
    const arrays = this.#store.bytes + this.#table.bytes + this.#regions.bytes;
    return byteCount(arrays + this.#ranges.bytes);
  }

  /** Everything at or before this was forgotten. */
  get settled(): Generation {
    return this.#settled;
  }

  /** @param generation - never decreasing; equal within one request */
  putBlock(block: Block, generation: Generation, lsn: Lsn, checksum: Checksum): void {
    assert(block >= 0 && block < this.#blocks, 'a block lies on the volume');
    this.#advance(generation);
    const version = this.#store.append(block, generation, lsn, checksum);
    const replaced = this.#table.put(block, version);
    if (replaced !== NO_VERSION) this.#store.link(version, replaced);
    this.#regions.added(block);
    this.#segments?.versionAdded(lsn);
  }

  /** @param generation - never decreasing; equal within one request */
  putRange(start: Block, count: BlockCount, generation: Generation, kind: RangeKind): void {
    assert(start >= 0 && count > 0 && start + count <= this.#blocks, 'a range lies on the volume');
    this.#advance(generation);
    this.#ranges.put(start, count, generation, kind);
  }

  /**
   * The newest version of the block at or before `at`.
   * @returns what was found; details in the `found` fields, valid until the next call
   */
  find(block: Block, at: Generation): Found {
    let version = this.#table.get(block);
    if (version !== NO_VERSION) version = this.#store.newestAt(version, at);
    if (!this.#ranges.isEmpty && this.#ranges.find(block, at)) {
      const generation = this.#ranges.foundGeneration;
      if (version === NO_VERSION || generation > this.#store.generationOf(version)) {
        this.foundGeneration = generation;
        this.foundRangeKind = this.#ranges.foundKind;
        return FOUND_ZERO;
      }
    }
    if (version === NO_VERSION) return FOUND_NONE;
    this.foundLsn = this.#store.lsnOf(version);
    this.foundChecksum = this.#store.checksumOf(version);
    this.foundGeneration = this.#store.generationOf(version);
    return FOUND_DATA;
  }

  /** Blocks from `start` up to this one, at most `end`, have no version but of ranges. */
  bareUntil(start: Block, end: Block): Block {
    let at = start;
    while (at < end && this.#regions.isEmptyAt(at)) at = this.#regions.endOf(at);
    return at < end ? at : end;
  }

  /** Runs of blocks that are found in the same way at `at`, from `start`; see `Runs`. */
  runs(start: Block, count: BlockCount, at: Generation, limits: WalkLimits): Runs {
    return walkRuns(this.#walked(start, count, at), limits);
  }

  /** Runs of blocks with, and without, a version in (since, at]; see `Changed`. */
  changed(
    start: Block,
    count: BlockCount,
    since: Generation,
    at: Generation,
    limits: WalkLimits,
  ): Changed {
    assert(since >= this.#settled, 'changes are known since settled');
    return walkChanged(this.#walked(start, count, at), since, limits);
  }

  /**
   * The versions of one block in (settled, at], newest first; a page names at most `versionsMax`,
   * and its `next` is where the next one begins.
   */
  versionsOf(block: Block, at: Generation, versionsMax: number): BlockVersions {
    assert(block >= 0 && block < this.#blocks, 'a block lies on the volume');
    return blockVersions({
      block,
      at,
      versionsMax,
      store: this.#store,
      table: this.#table,
      ranges: this.#ranges,
    });
  }

  /**
   * What a round writes: the versions that are the newest of their block at or before `target` and
   * that no newer range at or before `target` covers, in block order.
   */
  newestUpTo(target: Generation): NewestVersions {
    const steps = this.newestUpToSteps(target);
    for (;;) {
      const step = steps.next();
      if (step.done === true) return step.value;
    }
  }

  /**
   * The same, yielding every few milliseconds of work so that requests go on between; they may put,
   * and nothing may be dropped meanwhile. `target` is settled by no later put: it is at or before
   * the newest generation whose request was put as a whole.
   */
  newestUpToSteps(target: Generation): Generator<undefined, NewestVersions> {
    return newestVersions(this.#store, this.#ranges, target);
  }

  /** The range records at or before `target`, in generation order. */
  rangesUpTo(target: Generation): readonly RangeRecord[] {
    return this.#ranges.recordsUpTo(target);
  }

  /** Forgets everything at or before `settled`. */
  drop(settled: Generation): void {
    this.dropSome(settled, Infinity);
  }

  /**
   * Forgets the oldest `versionsMax` versions (and those of the same generation) at or before
   * `settled`. Between two steps every state at or after `settled` reads as before the first and
   * after the last: a version that is gone is in final storage by then.
   * @returns whether all of it is forgotten
   */
  dropSome(settled: Generation, versionsMax: number): boolean {
    if (settled <= this.#settled) return true;
    const store = this.#store;
    let until = settled;
    if (versionsMax < store.live) {
      const last = store.generationOf(store.at(Math.max(versionsMax, 1) - 1));
      if (last < until) until = last;
    }
    while (store.live > 0 && store.generationOf(store.front) <= until) this.#dropFront();
    this.#shrink(versionsMax);
    this.#ranges.drop(until);
    if (until > this.#settled) this.#settled = until;
    if (until > this.#generationLast) this.#generationLast = until;
    return until === settled;
  }

  /** Recomputes everything from scratch, and asserts that it is what stands here. */
  check(): void {
    const { newest, blocks, lsns } = checkVersions(this.#store, this.#settled);
    this.#table.check(newest);
    this.#regions.check(blocks);
    this.#ranges.check();
    if (this.#segments === undefined) return;
    const recount = new Map<SegmentSequence, number>();
    for (const lsn of lsns) {
      const sequence = this.#segments.segmentOf(lsn);
      recount.set(sequence, (recount.get(sequence) ?? 0) + 1);
    }
    this.#segments.check(recount);
  }

  #advance(generation: Generation): void {
    assert(generation >= this.#generationLast, 'generations never decrease');
    assert(generation > this.#settled, 'what is put is newer than what is settled');
    this.#generationLast = generation;
  }

  /** In step with what was dropped; whoever drops all at once gets all of the memory back. */
  #shrink(versionsMax: number): void {
    if (versionsMax !== Infinity) {
      this.#table.shrink(Math.ceil(versionsMax / DROPS_PER_SHARD));
      return;
    }
    for (let before = Infinity; this.#table.bytes < before;) {
      before = this.#table.bytes;
      this.#table.shrink(Infinity);
    }
  }

  #dropFront(): void {
    const store = this.#store;
    const version = store.front;
    const block = store.blockOf(version);
    this.#table.remove(block, version);
    this.#regions.dropped(block);
    this.#segments?.versionDropped(store.lsnOf(version));
    store.dropFront();
  }

  #walked(start: Block, count: BlockCount, at: Generation): Walked {
    assert(start >= 0 && start + count <= this.#blocks, 'a range lies on the volume');
    return {
      start,
      count,
      at,
      store: this.#store,
      table: this.#table,
      ranges: this.#ranges,
      regions: this.#regions,
    };
  }
}
