/** Snapshots made and deleted while rounds take the tail past their records; then the power goes. */
import { runPendingRecords } from '../../test/crash/pending-records.ts';
import { eachSeed } from './each-seed.ts';

const LIVES = 10;

export const fuzzer = eachSeed({
  name: 'volume-pending-records',
  runs: 25,
  one: (options) => runPendingRecords({ ...options, lives: LIVES }),
});
