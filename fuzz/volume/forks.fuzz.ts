/** Parts of one continuation's log in the other: one of both histories, or a refusal. */
import { runForks } from '../../test/crash/forks.ts';
import type { Fuzzer, FuzzOptions } from '../options.ts';

/** Forks of one case. */
const FORKS = 10;

async function main({ seed, runs, onStep }: FuzzOptions): Promise<void> {
  for (let i = 0; i < runs * FORKS; i++) {
    const one = (Math.imul(seed, FORKS) + i) >>> 0;
    try {
      await runForks({ seed: one, ...(onStep && { onStep }) });
    } catch (error) {
      const what = error instanceof Error ? error.stack : String(error);
      throw new Error(`seed ${one}: ${what}`, { cause: error });
    }
  }
}

export const fuzzer: Fuzzer = { name: 'volume-forks', main };
