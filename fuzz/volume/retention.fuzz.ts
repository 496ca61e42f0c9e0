/** Automatic snapshots: the right ones, kept within their limits, through cuts and clocks that jump. */
import { runRetentionLives } from '../../test/crash/retention-lives.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({
  name: 'volume-retention',
  runs: 6,
  one: (options) => runRetentionLives({ ...options, lives: 6, steps: 200 }),
});
