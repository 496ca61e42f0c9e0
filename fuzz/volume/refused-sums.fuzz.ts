/** Pages of the checksum sidecar that can't be read: rounds give them up, and writing goes on. */
import { runRefusedSums } from '../../test/crash/refused-sums.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({ name: 'volume-refused-sums', runs: 20, one: runRefusedSums });
