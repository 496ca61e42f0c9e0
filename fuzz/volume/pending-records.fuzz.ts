/** Snapshots made and deleted while rounds take the tail past their records; then the power goes. */
import { runPendingRecords } from '../../test/crash/pending-records.ts';
import type { Fuzzer, FuzzOptions } from '../options.ts';

const LIVES = 10;

async function main({ seed, runs, onStep }: FuzzOptions): Promise<void> {
  for (let i = 0; i < runs; i++) {
    const one = (seed + i) >>> 0;
    try {
      await runPendingRecords({ seed: one, lives: LIVES, ...(onStep && { onStep }) });
    } catch (error) {
      const what = error instanceof Error ? error.stack : String(error);
      throw new Error(`seed ${one}: ${what}`, { cause: error });
    }
  }
}

export const fuzzer: Fuzzer = { name: 'volume-pending-records', main };
