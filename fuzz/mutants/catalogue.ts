/** Bugs of snapshots, marks and lineages: of what the catalogue holds after a crash. */
import type { Mutant } from './mutant.ts';

const LIVES = ['volume-short-lives', 'volume-power-cuts', 'volume-lives'];

export const CATALOGUE_MUTANTS: readonly Mutant[] = [
  {
    name: 'snapshot-deletion-lost',
    law: 4,
    story: 'a deletion is a matter of RAM alone, and the snapshot is back after a crash',
    file: 'src/volume/moments.ts',
    find: 'await this.#recordAtOnce(entry);',
    replace: 'core.catalogue.apply(entry);\n    await core.yieldTurn();',
    fuzzers: LIVES,
  },
  {
    name: 'checkpoint-forgets-pending-records',
    law: 4,
    story: 'a checkpoint counts records as included that are put and not yet applied',
    file: 'src/volume/core.ts',
    find: 'streamLsn: this.recordedLsn };',
    replace: 'streamLsn: this.log.stream.nextLsn };',
    fuzzers: ['volume-pending-records', ...LIVES],
  },
  {
    name: 'record-before-the-checkpoint-applied-again',
    law: 4,
    story: 'replay applies records that the checkpoint includes, over what came after them',
    file: 'src/volume/recover.ts',
    find: 'else if (position >= this.#checkpoint.streamLsn) {',
    replace: 'else {',
    fuzzers: ['volume-hours-again', 'volume-retention'],
  },
  {
    name: 'snapshots-unpinned-by-a-restart',
    law: 4,
    story: 'snapshots of the catalogue are listed after a restart, and not pinned',
    file: 'src/volume/kept-pins.ts',
    find: '  for (const { label, generation } of snapshots.values()) {',
    replace: '  for (const { label, generation } of [...snapshots.values()].slice(1)) {',
    fuzzers: LIVES,
  },
  {
    name: 'last-generation-of-a-parent-given-to-its-child',
    law: 1,
    story: 'the generation that a lineage names as its parent\u2019s last counts as its own first',
    file: 'src/volume/catalogue.ts',
    find: 'if (parentGeneration < generation) found = uuid;',
    replace: 'if (parentGeneration <= generation) found = uuid;',
    fuzzers: LIVES,
  },
];
