/** Damage of every kind behind a volume's back: found, never served, never cut off in silence. */
import { runDamage } from '../../test/crash/damage-run.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({ name: 'volume-damage', runs: 30, one: runDamage });
