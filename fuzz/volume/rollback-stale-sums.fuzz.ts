/** Lost writes of the checksum sidecar before a rollback: what they hide is not put back as zeros. */
import { runStaleSums } from '../../test/crash/stale-sums.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({
  name: 'volume-rollback-stale-sums',
  runs: 20,
  one: (options) =>
    runStaleSums({ ...options, isRolledBack: true, isBlank: options.seed % 2 === 0 }),
});
