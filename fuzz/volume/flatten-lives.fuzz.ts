/** Flattens that fail, are ended and are begun again. */
import { runFlattenLives } from '../../test/crash/flatten-lives.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({ name: 'volume-flatten-lives', runs: 60, one: runFlattenLives });
