/** `npm run fuzz -- [--name X] [--seed N] [--runs N] [--seconds N]`; `--list` names the fuzzers. */
import { parseArgs } from 'node:util';
import { fuzzer as canary } from './canary.fuzz.ts';
import { FUZZERS } from './registry.ts';
import { countsText, runFuzzers, type RunPlan } from './runner.ts';
import { oldSeeds } from './seeds.ts';

const RUNS_DEFAULT = 100;

function whole(text: string | undefined, option: string): number | undefined {
  if (text === undefined) return undefined;
  if (!/^-?\d+$/.test(text)) throw new Error(`${option} takes a whole number, got ${text}`);
  return Number(text);
}

function plan(values: Readonly<Record<string, string | undefined>>): RunPlan {
  const name = values['name'];
  const all = name === canary.name ? [canary] : FUZZERS;
  const fuzzers = all.filter((fuzzer) => name === undefined || fuzzer.name === name);
  if (fuzzers.length === 0 && name !== undefined) {
    throw new Error(`no fuzzer is called ${name}; --list names them`);
  }
  const seed = whole(values['seed'], '--seed');
  return {
    fuzzers,
    // A given seed asks for that run and nothing else.
    oldSeeds: seed === undefined ? oldSeeds() : [],
    seed: seed ?? Math.floor(Math.random() * 2 ** 31),
    runs: whole(values['runs'], '--runs') ?? RUNS_DEFAULT,
    seconds: whole(values['seconds'], '--seconds'),
    nowMs: () => performance.now(),
    print: (line) => {
      console.log(line);
    },
  };
}

async function main(): Promise<boolean> {
  const text = { type: 'string' } as const;
  const { list, ...values } = parseArgs({
    options: { name: text, seed: text, runs: text, seconds: text, list: { type: 'boolean' } },
  }).values;
  if (list === true) {
    for (const { name } of FUZZERS) console.log(name);
    return true;
  }
  const { turns, failed, counts } = await runFuzzers(plan(values));
  for (const [name, done] of counts) {
    if (Object.keys(done).length > 0) console.log(`${name}: ${countsText(done)}`);
  }
  console.log(
    `fuzz: ${turns} turns, ${failed.length} fuzzers failed ${failed.join(' ')}`.trimEnd(),
  );
  return failed.length === 0;
}

try {
  process.exitCode = (await main()) ? 0 : 1;
} catch (error) {
  console.error(error instanceof Error ? error.message : String(error));
  process.exitCode = 2;
}
