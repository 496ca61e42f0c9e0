/** Cuts that leave next to nothing of what was not synced. */
import { runSparseRemains } from '../../test/crash/sparse-remains.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({ name: 'volume-sparse-remains', runs: 40, one: runSparseRemains });
