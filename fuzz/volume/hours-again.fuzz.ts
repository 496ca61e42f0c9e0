/** Automatic snapshots of hours that come twice, and the power goes while they are made. */
import { runHoursAgain } from '../../test/crash/hours-again.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({
  name: 'volume-hours-again',
  runs: 10,
  one: (options) => runHoursAgain({ ...options, lives: 8 }),
});
