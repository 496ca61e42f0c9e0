/** Bugs of rolling back in place. */
import type { Mutant } from './mutant.ts';

const ROLLBACK = ['volume-rollback'];

export const ROLLBACK_MUTANTS: readonly Mutant[] = [
  {
    name: 'rollback-left-unfinished-by-an-opening',
    law: 1,
    story: 'an opening does not go on with a rollback that a crash interrupted',
    file: 'src/volume/volume.ts',
    find: 'if (!options.readOnly) await volume.#rollbacks.complete(options.onRollback ?? noProgress);',
    replace: '',
    fuzzers: ROLLBACK,
  },
  {
    name: 'rollback-begins-before-its-record-is-durable',
    law: 1,
    story: 'the first requests of a rollback may be durable though nothing says that it began',
    file: 'src/volume/moments.ts',
    find: 'await Promise.all(put.map(({ entry, position }) => this.#applied(entry, position)));',
    replace: 'for (const { entry } of put) this.#core.catalogue.apply(entry);',
    fuzzers: ROLLBACK,
  },
  {
    name: 'rollback-forgotten-by-a-checkpoint',
    law: 1,
    story: 'a checkpoint leaves out the rollback that has not ended',
    file: 'src/volume/catalogue.ts',
    find: 'if (this.#unfinished !== undefined) {\n      entries.push(',
    replace: 'if (this.#unfinished !== undefined && this.entriesMax < 0) {\n      entries.push(',
    fuzzers: ROLLBACK,
  },
  {
    name: 'rollback-of-allocated-zeros-as-a-trim',
    law: 3,
    story: 'zeros that stay allocated come back as a hole',
    file: 'src/volume/rollback.ts',
    find: '[RANGE_ALLOCATE]: KIND_ALLOCATE,',
    replace: '[RANGE_ALLOCATE]: KIND_TRIM,',
    fuzzers: ROLLBACK,
  },
  {
    name: 'rollback-skips-zeros-that-are-zeros-now',
    law: 3,
    story: 'zeros of one kind are left as zeros of another',
    file: 'src/volume/differing.ts',
    find: 'const isSame = run.found === FOUND_ZERO && run.rangeKind === kind;',
    replace: 'const isSame = run.found === FOUND_ZERO;',
    fuzzers: ROLLBACK,
  },
  {
    name: 'rollback-reads-the-newest-state',
    law: 3,
    story: 'what is put back is read as it is now',
    file: 'src/volume/rollback.ts',
    find: 'await reader.read(byteOffset(first * BLOCK_BYTES), body, target);\n      await appender',
    replace:
      'await reader.read(byteOffset(first * BLOCK_BYTES), body, bound);\n      await appender',
    fuzzers: ROLLBACK,
  },
  {
    name: 'moments-inside-a-rollback-open',
    law: 3,
    story: 'the mixtures between the ends of a rollback are offered as moments',
    file: 'src/volume/catalogue.ts',
    find: 'generation > before && generation < bound',
    replace: 'generation > before && generation < before',
    fuzzers: ROLLBACK,
  },
  {
    name: 'rollback-does-not-wait-for-sessions',
    law: 1,
    story: 'the disk is rolled back while a client still has it open',
    file: 'src/volume/live-sessions.ts',
    find: 'await empty;',
    replace: '',
    fuzzers: ROLLBACK,
  },
  {
    name: 'rollback-is-seen-while-it-runs',
    law: 1,
    story: 'who opens the live disk meanwhile finds a mixture',
    file: 'src/volume/volume.ts',
    find: 'if (refusal !== undefined) throw refusal();',
    replace: '',
    fuzzers: ROLLBACK,
  },
];
