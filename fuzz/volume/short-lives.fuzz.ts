/** Lives of a few operations, by the thousand: torn tails, recovery upon recovery, used slots. */
import { runShortLives } from '../../test/crash/short-lives.ts';
import type { Fuzzer, FuzzOptions } from '../options.ts';

const LIVES = 40;

async function main({ seed, runs, onStep }: FuzzOptions): Promise<void> {
  for (let i = 0; i < runs; i++) {
    const one = (seed + i) >>> 0;
    try {
      await runShortLives({ seed: one, lives: LIVES, ...(onStep && { onStep }) });
    } catch (error) {
      const what = error instanceof Error ? error.stack : String(error);
      throw new Error(`seed ${one}: ${what}`, { cause: error });
    }
  }
}

export const fuzzer: Fuzzer = { name: 'volume-short-lives', main };
