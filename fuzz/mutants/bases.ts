/** Bugs of volumes that are based on another disk. */
import type { Mutant } from './mutant.ts';

const BASED = ['volume-based-lives'];
const FLATTEN = ['volume-flatten-lives'];

export const BASE_MUTANTS: readonly Mutant[] = [
  {
    name: 'trim-over-a-base-leaves-no-stamp',
    law: 5,
    story: 'a trim of whole pages of sums leaves them blank, and the base shows through again',
    file: 'src/volume/settle.ts',
    find: 'const isAsked = pin < target || core.final.hasBase;',
    replace: 'const isAsked = pin < target;',
    fuzzers: BASED,
  },
  {
    name: 'before-image-of-the-base-as-zeros',
    law: 4,
    story:
      'what a block was before its first write is kept as zeros, though the base has data there',
    file: 'src/volume/keep-images.ts',
    find: 'if (isZero(bytes)) return',
    replace: 'if (isZero(bytes) || image.from === 0) return',
    fuzzers: BASED,
  },
  {
    name: 'allocation-forgets-the-base',
    law: 3,
    story: 'blocks of the base are told to be holes, so that exports and sends leave them out',
    file: 'src/volume/home-kinds.ts',
    find: 'below.forEach((kind, i) => (kinds[run.at + i] = kind));',
    replace: "below.forEach((kind, i) => kind === 'data' || (kinds[run.at + i] = kind));",
    fuzzers: BASED,
  },
  {
    name: 'flatten-writes-over-what-was-written',
    law: 1,
    story: 'flattening copies the base over blocks that were written and settled since',
    file: 'src/volume/flatten.ts',
    find: '(i) => isNever[i] === true && mayBeData(i)',
    replace: '(i) => isNever.length > 0 && mayBeData(i)',
    fuzzers: BASED,
  },
  {
    name: 'flatten-believes-never-written',
    law: 5,
    story: 'a page of sums that lost its write says "never written", and the base is put over data',
    file: 'src/volume/flatten.ts',
    find: '    await final.read(first, content);\n',
    replace: '    await final.withBase(async (base) => await base?.read(first, content));\n',
    fuzzers: ['volume-flatten-stale-sums'],
  },
  {
    name: 'flatten-states-sums-before-content-is-synced',
    law: 1,
    story: 'a cut leaves sums for copies that never reached final storage',
    file: 'src/volume/flatten.ts',
    find: "if (changes.length > 0) await final.syncFinal('final');\n",
    replace: '',
    fuzzers: BASED,
  },
  {
    name: 'flatten-ends-without-a-sync-of-sums',
    law: 7,
    story: 'a chunk with nothing left to copy is not synced, though its sums may be in RAM alone',
    file: 'src/volume/flatten.ts',
    find: 'if (changes.length > 0 || doubtful.length > 0) await',
    replace: 'if (changes.length > 0) await',
    fuzzers: FLATTEN,
  },
  {
    name: 'flatten-believes-sums-of-an-earlier-copy',
    law: 7,
    story: 'what an earlier copy left of sums is synced, and not written: a failed sync forgot it',
    file: 'src/volume/flatten.ts',
    find: 'for (const number of doubtful) await final.sidecar.mendPage(number, new Map());\n',
    replace: '',
    fuzzers: FLATTEN,
  },
];
