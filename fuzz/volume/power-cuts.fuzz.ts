/**
 * Power cuts and kills at seeded moments of a volume's life, laws 1 to 5 checked after each. One
 * case is five lives, with 50 moments looked at after every loss.
 */
import { runPowerCuts } from '../../test/crash/power-cut.ts';
import type { Fuzzer, FuzzOptions } from '../options.ts';

const LIVES = 5;
const MOMENTS = 50;

async function main({ seed, runs, onStep }: FuzzOptions): Promise<void> {
  for (let i = 0; i < runs; i++) {
    const one = (seed + i) >>> 0;
    try {
      await runPowerCuts({ seed: one, lives: LIVES, moments: MOMENTS, ...(onStep && { onStep }) });
    } catch (error) {
      const what = error instanceof Error ? error.stack : String(error);
      throw new Error(`seed ${one}: ${what}`, { cause: error });
    }
  }
}

export const fuzzer: Fuzzer = { name: 'volume-power-cuts', runs: 10, main };
