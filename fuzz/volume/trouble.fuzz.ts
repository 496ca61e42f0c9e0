/** Power cuts and kills over disks whose syncs and writes fail now and then: law 7. */
import { runPowerCuts } from '../../test/crash/power-cut.ts';
import { eachSeed } from './each-seed.ts';

const LIVES = 5;
const MOMENTS = 5;

export const fuzzer = eachSeed({
  name: 'volume-trouble',
  runs: 20,
  one: (options) => runPowerCuts({ ...options, lives: LIVES, moments: MOMENTS, trouble: true }),
});
