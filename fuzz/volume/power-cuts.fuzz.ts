/**
 * Power cuts and kills at seeded moments of a volume's life, laws 1 to 5 checked after each. One
 * case is five lives, with 50 moments looked at after every loss.
 */
import { runPowerCuts } from '../../test/crash/power-cut.ts';
import { eachSeed } from './each-seed.ts';

const LIVES = 5;
const MOMENTS = 50;

export const fuzzer = eachSeed({
  name: 'volume-power-cuts',
  runs: 10,
  one: (options) => runPowerCuts({ ...options, lives: LIVES, moments: MOMENTS }),
});
