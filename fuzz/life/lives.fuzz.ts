/**
 * Lives of a volume in the simulated world with every fault there is: at least 1,000 steps and ten
 * crashes a run, the seven laws checked by name; and hard ones, short and full of crashes. A script
 * that fails is made short and printed.
 */
import type { Counts, Fuzzer, FuzzOptions } from '../options.ts';
import { sum } from '../options.ts';
import { failure, shrink } from './shrink.ts';
import { runLife } from './life.ts';
import { hardScriptOf, scriptOf, type Script } from './steps.ts';

/** Real time that a failing script may take to be made shorter. */
const SHRINK_MS = 30_000;

type ScriptOf = (seed: number) => Script;

async function live(of: ScriptOf, { seed, runs, onStep, brief }: FuzzOptions): Promise<Counts> {
  let counts: Counts = {};
  for (let i = 0; i < runs; i++) {
    const one = (seed + i) >>> 0;
    const script = of(one);
    try {
      const { digest: _, ...rest } = await runLife(script, onStep && { trace: onStep });
      counts = sum(counts, rest);
    } catch (error) {
      if (brief === true) throw error;
      const what = error instanceof Error ? error.stack : String(error);
      throw new Error(`seed ${one}: ${what}\n${await shortened(script)}`, { cause: error });
    }
  }
  return counts;
}

async function shortened(script: Script): Promise<string> {
  const failed = await failure(script);
  if (failed === undefined) return 'the same script held when it ran again: it is not replayable';
  const options = { limitMs: SHRINK_MS, nowMs: () => performance.now() };
  const short = await shrink(script, failed, options);
  const lines = short.steps.map((step) => `  ${JSON.stringify(step)}`);
  return [
    `${lines.length} steps are enough:`,
    ...lines,
    `to trace them: npm run fuzz:replay -- --trace --json '${JSON.stringify(short)}'`,
  ].join('\n');
}

export const fuzzer: Fuzzer = {
  name: 'volume-lives',
  runs: 10,
  main: (options) => live(scriptOf, options),
};

export const hardFuzzer: Fuzzer = {
  name: 'volume-hard-lives',
  runs: 20,
  main: (options) => live(hardScriptOf, options),
};
