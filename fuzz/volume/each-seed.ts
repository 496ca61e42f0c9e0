/** A fuzzer that runs one seed after the other, and names the one that failed. */
import type { OneSeed } from '../../test/crash/one-seed.ts';
import type { Fuzzer, FuzzOptions } from '../options.ts';

export interface EachSeed {
  readonly name: string;
  /** Seeds of one case. */
  readonly perRun?: number;
  /** Cases of one turn; as `Fuzzer` has it. */
  readonly runs?: number;
  readonly one: (options: OneSeed) => Promise<unknown>;
}

export function eachSeed({ name, perRun = 1, runs, one }: EachSeed): Fuzzer {
  const main = async ({ seed, runs: wanted, onStep }: FuzzOptions): Promise<void> => {
    for (let i = 0; i < wanted * perRun; i++) {
      const current = (Math.imul(seed, perRun) + i) >>> 0;
      try {
        await one({ seed: current, ...(onStep && { onStep }) });
      } catch (error) {
        const what = error instanceof Error ? error.stack : String(error);
        throw new Error(`seed ${current}: ${what}`, { cause: error });
      }
    }
  };
  return { name, ...(runs !== undefined && { runs }), main };
}
