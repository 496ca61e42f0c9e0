/** Bugs of the index: versions, ranges, pins, counts, times. */
import type { Mutant } from './mutant.ts';

const BLOCKS = ['index-blocks', 'volume-power-cuts'];

export const INDEX_MUTANTS: readonly Mutant[] = [
  {
    name: 'moment-off-by-one',
    law: 3,
    story: 'the version of generation g itself is not seen at g',
    file: 'index/version-store.ts',
    find: 'if ((rows[row + GENERATION]! - base) >>> 0 <= span) return here;',
    replace: 'if ((rows[row + GENERATION]! - base) >>> 0 < span) return here;',
    fuzzers: BLOCKS,
  },
  {
    name: 'range-moment-off-by-one',
    law: 3,
    story: 'a trim of generation g is not seen at g',
    file: 'index/range-history.ts',
    find: 'if (this.#records[middle]!.generation <= target) low = middle + 1;',
    replace: 'if (this.#records[middle]!.generation < target) low = middle + 1;',
    fuzzers: BLOCKS,
  },
  {
    name: 'older-range-wins',
    law: 2,
    story: 'a trim hides what was written to its blocks afterwards',
    file: 'index/block-index.ts',
    find: 'if (version === NO_VERSION || generation > this.#store.generationOf(version)) {',
    replace: 'if (version === NO_VERSION || generation > this.#settled) {',
    fuzzers: BLOCKS,
  },
  {
    name: 'range-forgets-what-it-cut',
    law: 2,
    story: 'a trim inside a longer one forgets the part behind it',
    file: 'index/range-history.ts',
    find: 'if (fragment.end > end) tree.set(end, fragment);',
    replace: '',
    fuzzers: BLOCKS,
  },
  {
    name: 'round-writes-trimmed-blocks',
    law: 2,
    story: 'a round writes versions that a newer trim covers',
    file: 'index/newest-versions.ts',
    find: 'if (rangeGeneration > generation) continue;',
    replace: '',
    fuzzers: BLOCKS,
  },
  {
    name: 'skip-link-to-the-wrong-tree',
    law: 3,
    story: 'the chain of a block\u2019s versions skips some when ranks are equal',
    file: 'index/version-store.ts',
    find: 'rows[row + SKIP] = skipRows[skipRow + SKIP]!;',
    replace: 'rows[row + SKIP] = skipRows[skipRow + REPLACED]!;',
    fuzzers: BLOCKS,
  },
  {
    name: 'version-let-go-twice',
    law: 4,
    story: 'a segment\u2019s count goes down twice for a version that was replaced',
    file: 'index/block-index.ts',
    find: 'this.#segments?.versionDropped(store.lsnOf(version));',
    replace: `const position = store.lsnOf(version);
    this.#segments?.versionDropped(position);
    if (this.#table.get(block) !== NO_VERSION) this.#segments?.versionDropped(position);`,
    fuzzers: BLOCKS,
  },
  {
    name: 'version-never-let-go',
    law: 6,
    story: 'a version that leaves the index while a newer one stands is not counted out',
    file: 'index/block-index.ts',
    find: 'this.#segments?.versionDropped(store.lsnOf(version));',
    replace:
      'if (this.#table.get(block) === NO_VERSION) this.#segments?.versionDropped(store.lsnOf(version));',
    fuzzers: BLOCKS,
  },
  {
    name: 'table-leaves-a-hole',
    law: 5,
    story: 'a removed slot is emptied without shifting back, and blocks behind it are not found',
    file: 'index/block-table.ts',
    find: 'this.#shiftBack(slots, slot);',
    replace: 'slots[slot] = 0;',
    fuzzers: BLOCKS,
  },
  {
    name: 'last-reason-takes-all',
    law: 4,
    story: 'when one reason for a moment goes, the others go with it',
    file: 'index/pins.ts',
    find: 'if (handles.size === 0) this.#byGeneration.delete(handle.generation);',
    replace: 'this.#byGeneration.delete(handle.generation);',
    fuzzers: ['index-pins', 'volume-power-cuts'],
  },
  {
    name: 'timeline-off-by-one',
    law: 3,
    story: 'a time of the past names the point after it',
    file: 'index/timeline.ts',
    find: 'const row = this.#points.firstAbove(ELAPSED, elapsedUs) - 1;',
    replace:
      'const row = Math.min(this.#points.firstAbove(ELAPSED, elapsedUs), this.#points.end - 1);',
    fuzzers: ['index-timeline'],
  },
  {
    name: 'clock-set-back-not-noticed',
    law: 3,
    story:
      'a wall clock that was set back begins no new stretch, so a time that fits twice is not refused',
    file: 'index/timeline.ts',
    find: 'const isSetBack = point.wallUs < wallLast - POINT_US;',
    replace: 'const isSetBack = point.wallUs < wallLast - 1000 * POINT_US;',
    fuzzers: ['index-timeline'],
  },
];
