/** Bugs of what is told about the past: what changed, the versions of a block, searches. */
import type { Mutant } from './mutant.ts';

const PAST = ['volume-past'];

export const PAST_MUTANTS: readonly Mutant[] = [
  {
    name: 'versions-skip-what-a-range-covered',
    law: 3,
    story: 'behind a trim of a block the listing goes on one generation too early',
    file: 'index/block-versions.ts',
    find: 'inRange = ranges.find(block, toGeneration(rangeGeneration - 1));',
    replace: 'inRange = ranges.find(block, toGeneration(rangeGeneration - 2));',
    fuzzers: ['volume-past', 'index-blocks'],
  },
  {
    name: 'versions-below-the-horizon',
    law: 3,
    story: 'while a round is under way, versions that no moment shows any more are listed',
    file: 'src/volume/block-past.ts',
    find: 'if (generation <= horizon) return { versions, next: undefined, isWhole: true };',
    replace: '',
    fuzzers: PAST,
  },
  {
    name: 'diff-of-two-moments-backwards',
    law: 3,
    story: 'asked backwards, what ranges became is told of the newer moment',
    file: 'src/volume/past.ts',
    find: 'const [to, max] = [query.to, query.rangesMax];',
    replace: 'const [to, max] = [at, query.rangesMax];',
    fuzzers: PAST,
  },
  {
    name: 'search-leaves-out-the-last-edge',
    law: 3,
    story: 'a pattern over the edge of the last block that is searched is not found',
    file: 'src/volume/search.ts',
    find: 'const last = Math.min(blocks, Math.ceil(end / BLOCK_BYTES) + 1);',
    replace: 'const last = Math.min(blocks, Math.ceil(end / BLOCK_BYTES));',
    fuzzers: PAST,
  },
  {
    name: 'search-tells-the-edge-twice',
    law: 3,
    story: 'the block before a page of a search is told again on that page',
    file: 'src/volume/search.ts',
    find: 'if (block >= Math.floor(this.#query.next / BLOCK_BYTES)) {',
    replace: 'if (block >= 0) {',
    fuzzers: PAST,
  },
];
