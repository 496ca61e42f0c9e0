/** Automatic snapshots whose rounds get no further: cuts, open moments, full undo devices. */
import { runRetentionLives } from '../../test/crash/retention-lives.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({
  name: 'volume-retention-cuts',
  runs: 6,
  one: (options) => runRetentionLives({ ...options, lives: 10, steps: 200, isAimed: true }),
});
