/** Bugs of reading: of what is served, and what it was checked against. */
import type { Mutant } from './mutant.ts';

const LIVES = ['volume-short-lives', 'volume-power-cuts', 'volume-lives'];
const DAMAGE = ['volume-damage', 'volume-lives'];

export const READ_MUTANTS: readonly Mutant[] = [
  {
    name: 'reads-give-zeros',
    law: 5,
    story: 'the canary of this list: what RAM holds reads as zeros',
    file: 'src/volume/reader.ts',
    find: 'if (start === from && end === from + BLOCK_BYTES) target.set(source, start);',
    replace: 'if (start === from && end === from + BLOCK_BYTES) target.fill(0, start, end);',
    fuzzers: LIVES,
  },
  {
    name: 'moment-reads-newest',
    law: 3,
    story: 'what is in RAM is read as it is now, whatever moment was asked for',
    file: 'src/volume/reader.ts',
    find: 'const found = index.find(block, at);',
    replace: 'const found = index.find(block, LATEST);',
    fuzzers: LIVES,
  },
  {
    name: 'final-read-not-resolved-again',
    law: 3,
    story: 'a read of final storage that a round overtook fails, though the index has the block',
    file: 'src/volume/reader.ts',
    find: 'const moved = epoch !== core.roundEpoch || this.#anyInIndex(first, count, at);',
    replace: 'const moved = false;',
    fuzzers: ['volume-readers', 'volume-lives'],
  },
  {
    name: 'corrupt-log-block-reads-as-zeros',
    law: 5,
    story: 'a block that fails its checksum is answered with zeros instead of EIO',
    file: 'src/volume/reader.ts',
    find: '      (bad ??= []).push({ block, why, code, version: { block, generation, checksum } });\n',
    replace: '',
    fuzzers: DAMAGE,
  },
  {
    name: 'log-reads-not-verified',
    law: 5,
    story: 'what comes from the log device is served without its checksum',
    file: 'src/volume/reader.ts',
    find: 'if (failure === undefined && this.#fits(content, block, generation, checksum)) {',
    replace: 'if (failure === undefined) {',
    fuzzers: DAMAGE,
  },
  {
    name: 'zeros-believed',
    law: 5,
    story: 'a block whose checksum says "zeros" is served without a look at it',
    file: 'src/volume/final-storage.ts',
    find: 'if (Buffer.compare(content, ZEROS) === 0) return undefined;',
    replace: 'if (content.length === ZEROS.length) return undefined;',
    fuzzers: DAMAGE,
  },
  {
    name: 'lost-block-reads-as-zeros',
    law: 5,
    story: 'a block that was lost on its way home is served as it lies there',
    file: 'src/volume/final-storage.ts',
    find: 'if (sum.kind === SUM_LOST) return `${where}: lost when it was moved there from the log`;',
    replace: 'if (sum.kind === SUM_LOST) return undefined;',
    fuzzers: DAMAGE,
  },
  {
    name: 'checksum-not-bound-to-its-block',
    law: 5,
    story: 'the checksum covers data, volume and generation: a block of another place passes',
    file: 'src/format/block-checksum.ts',
    find: 'let mixed = scramble(seed ^ (place | 0));',
    replace: 'let mixed = scramble(seed);',
    fuzzers: ['format-checksums', 'volume-lives'],
  },
  {
    name: 'checksum-not-bound-to-its-generation',
    law: 5,
    story: 'the checksum covers data, volume and place: an older version passes',
    file: 'src/format/block-checksum.ts',
    find: 'mixed = scramble(mixed ^ (generation | 0));',
    replace: 'mixed = scramble(mixed);',
    fuzzers: ['format-checksums', 'volume-lives'],
  },
];
