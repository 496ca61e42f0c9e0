/** Parts of one continuation's log in the other: one of both histories, or a refusal. */
import { runForks } from '../../test/crash/forks.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({ name: 'volume-forks', perRun: 10, runs: 12, one: runForks });
