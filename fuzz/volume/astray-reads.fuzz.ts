/** Single reads that are answered with what lies elsewhere, on sound disks: nothing is lost or refused. */
import { runAstrayReads } from '../../test/crash/astray-reads.ts';
import type { Fuzzer, FuzzOptions } from '../options.ts';

/** Volumes of one case. */
const VOLUMES = 10;

async function main({ seed, runs, onStep }: FuzzOptions): Promise<void> {
  for (let i = 0; i < runs * VOLUMES; i++) {
    const one = (Math.imul(seed, VOLUMES) + i) >>> 0;
    try {
      await runAstrayReads({ seed: one, ...(onStep && { onStep }) });
    } catch (error) {
      const what = error instanceof Error ? error.stack : String(error);
      throw new Error(`seed ${one}: ${what}`, { cause: error });
    }
  }
}

export const fuzzer: Fuzzer = { name: 'volume-astray-reads', main };
