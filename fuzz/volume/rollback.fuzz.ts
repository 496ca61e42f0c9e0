/** Rollbacks, and power cuts anywhere in them, beside the model. */
import { runRollbackLives } from '../../test/crash/rollback-lives.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({ name: 'volume-rollback', runs: 15, one: runRollbackLives });
