/** Power cuts and kills over disks whose syncs and writes fail now and then: law 7. */
import { runPowerCuts } from '../../test/crash/power-cut.ts';
import type { Fuzzer, FuzzOptions } from '../options.ts';

const LIVES = 5;
const MOMENTS = 5;

async function main({ seed, runs, onStep }: FuzzOptions): Promise<void> {
  for (let i = 0; i < runs; i++) {
    const one = (seed + i) >>> 0;
    const options = { seed: one, lives: LIVES, moments: MOMENTS, trouble: true };
    try {
      await runPowerCuts({ ...options, ...(onStep && { onStep }) });
    } catch (error) {
      const what = error instanceof Error ? error.stack : String(error);
      throw new Error(`seed ${one}: ${what}`, { cause: error });
    }
  }
}

export const fuzzer: Fuzzer = { name: 'volume-trouble', main };
