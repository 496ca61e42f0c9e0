/** Pages of checksums of which every write was lost: they say "never written" of what was trimmed. */
import { runStaleSums } from '../../test/crash/stale-sums.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({
  name: 'volume-blank-sums',
  runs: 20,
  one: (options) => runStaleSums({ ...options, isBlank: true }),
});
