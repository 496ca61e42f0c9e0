/** All planted bugs, in the order of docs/MUTANTS.md; the first one is the canary. */
import { BASE_MUTANTS } from './bases.ts';
import { CATALOGUE_MUTANTS } from './catalogue.ts';
import { INDEX_MUTANTS } from './index.ts';
import type { Mutant } from './mutant.ts';
import { NBD_MUTANTS } from './nbd.ts';
import { PAST_MUTANTS } from './past.ts';
import { READ_MUTANTS } from './reads.ts';
import { RECEIVE_MUTANTS } from './receive.ts';
import { REPLAY_MUTANTS } from './replay.ts';
import { RETENTION_MUTANTS } from './retention.ts';
import { ROLLBACK_MUTANTS } from './rollback.ts';
import { ROUND_MUTANTS } from './rounds.ts';
import { SYNC_MUTANTS } from './syncs.ts';
import { WRITE_MUTANTS } from './writes.ts';

export const MUTANTS: readonly Mutant[] = [
  ...READ_MUTANTS,
  ...SYNC_MUTANTS,
  ...REPLAY_MUTANTS,
  ...WRITE_MUTANTS,
  ...ROUND_MUTANTS,
  ...CATALOGUE_MUTANTS,
  ...INDEX_MUTANTS,
  ...PAST_MUTANTS,
  ...ROLLBACK_MUTANTS,
  ...RETENTION_MUTANTS,
  ...RECEIVE_MUTANTS,
  ...BASE_MUTANTS,
  ...NBD_MUTANTS,
];
