/** Snapshots that outlive the window, through rounds, cuts and openings. */
import { runPinnedLives } from '../../test/crash/pinned-lives.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({
  name: 'volume-pinned-lives',
  runs: 40,
  one: (options) => runPinnedLives({ ...options, lives: 6, steps: 100 }),
});
