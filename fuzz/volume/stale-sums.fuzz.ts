/** Lost writes of the checksum sidecar: what they hide is an error, also below the horizon. */
import { runStaleSums } from '../../test/crash/stale-sums.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({ name: 'volume-stale-sums', runs: 20, one: runStaleSums });
