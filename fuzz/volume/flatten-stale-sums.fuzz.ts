/** Lost writes of the checksum sidecar over a base that is flattened: no error becomes older data. */
import { runStaleSums } from '../../test/crash/stale-sums.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({
  name: 'volume-flatten-stale-sums',
  runs: 20,
  one: (options) =>
    runStaleSums({ ...options, isFlattened: true, isBlank: options.seed % 2 === 0 }),
});
