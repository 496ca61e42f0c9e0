/** Damage of every kind behind a volume's back: found, never served, never cut off in silence. */
import { runDamage } from '../../test/crash/damage-run.ts';
import type { Fuzzer, FuzzOptions } from '../options.ts';

async function main({ seed, runs, onStep }: FuzzOptions): Promise<void> {
  for (let i = 0; i < runs; i++) {
    const one = (seed + i) >>> 0;
    try {
      await runDamage({ seed: one, ...(onStep && { onStep }) });
    } catch (error) {
      const what = error instanceof Error ? error.stack : String(error);
      throw new Error(`seed ${one}: ${what}`, { cause: error });
    }
  }
}

export const fuzzer: Fuzzer = { name: 'volume-damage', main };
