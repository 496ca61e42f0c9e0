/** Marks of joined before-images that only the page cache has, until the power goes: laws 4 and 7. */
import { runPinnedLives } from '../../test/crash/pinned-lives.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({
  name: 'volume-forgotten-joins',
  runs: 40,
  one: (options) => runPinnedLives({ ...options, lives: 5, steps: 80, forgets: true }),
});
