/** Readers of the newest state and of moments, beside rounds that never stop. */
import { runReaders } from '../../test/crash/readers.ts';
import type { Fuzzer, FuzzOptions } from '../options.ts';

async function main({ seed, runs, onStep }: FuzzOptions): Promise<void> {
  for (let i = 0; i < runs; i++) {
    const one = (seed + i) >>> 0;
    try {
      await runReaders({ seed: one, ...(onStep && { onStep }) });
    } catch (error) {
      const what = error instanceof Error ? error.stack : String(error);
      throw new Error(`seed ${one}: ${what}`, { cause: error });
    }
  }
}

export const fuzzer: Fuzzer = { name: 'volume-readers', main };
