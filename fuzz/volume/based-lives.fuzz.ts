/** Lives of a volume that is based on another disk. */
import { runBasedLives } from '../../test/crash/based-lives.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({ name: 'volume-based-lives', runs: 12, one: runBasedLives });
