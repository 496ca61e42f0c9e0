/** Readers of the newest state and of moments, beside rounds that never stop. */
import { runReaders } from '../../test/crash/readers.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({ name: 'volume-readers', runs: 8, one: runReaders });
