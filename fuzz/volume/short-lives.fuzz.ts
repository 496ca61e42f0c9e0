/** Lives of a few operations, by the thousand: torn tails, recovery upon recovery, used slots. */
import { runShortLives } from '../../test/crash/short-lives.ts';
import { eachSeed } from './each-seed.ts';

const LIVES = 40;

export const fuzzer = eachSeed({
  name: 'volume-short-lives',
  runs: 20,
  one: (options) => runShortLives({ ...options, lives: LIVES }),
});
