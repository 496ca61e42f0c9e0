/**
 * `npm run fuzz -- [--name X] [--seed N] [--runs N] [--seconds N | --minutes N] [--jobs N]
 * [--json]`; `--list` names the fuzzers. A time is worked through on all cores, beginning at the
 * seed if one is given, after the old seeds; a seed without a time is run alone, in this process. Ends with 1 when a fuzzer failed; with `--json` the result is one line of JSON.
 */
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { fuzzer as canary } from './canary.fuzz.ts';
import { OwnHand, ProcessHand, type Hand } from './hands.ts';
import type { Fuzzer } from './options.ts';
import { FUZZERS } from './registry.ts';
import { runFuzzers, summary, type RunResult } from './runner.ts';
import { oldSeeds } from './seeds.ts';

/** Longer than any turn of any fuzzer on any machine. */
const TURN_MS_MAX = 20 * 60_000;

function number(text: string | undefined, option: string, isWhole: boolean): number | undefined {
  if (text === undefined) return undefined;
  const pattern = isWhole ? /^-?\d+$/ : /^\d+(\.\d+)?$/;
  if (!pattern.test(text)) throw new Error(`${option} takes a number, got ${text}`);
  return Number(text);
}

type Values = Readonly<Record<string, string | undefined>>;

function chosen(name: string | undefined): readonly Fuzzer[] {
  const all = name === canary.name ? [canary] : FUZZERS;
  const fuzzers = all.filter((fuzzer) => name === undefined || fuzzer.name === name);
  if (fuzzers.length === 0) throw new Error(`no fuzzer is called ${name}; --list names them`);
  return fuzzers;
}

function handsFor(fuzzers: readonly Fuzzer[], jobs: number): readonly Hand[] {
  if (!(jobs >= 1)) throw new Error(`--jobs takes a number from 1, got ${jobs}`);
  if (jobs === 1) return [new OwnHand(fuzzers)];
  const script = fileURLToPath(new URL('worker.js', import.meta.url));
  return Array.from({ length: jobs }, () => new ProcessHand({ script, turnMsMax: TURN_MS_MAX }));
}

async function run(values: Values, print: (line: string) => void): Promise<RunResult> {
  const fuzzers = chosen(values['name']);
  const seed = number(values['seed'], '--seed', true);
  const minutes = number(values['minutes'], '--minutes', false);
  const seconds = number(values['seconds'], '--seconds', false);
  const time = minutes === undefined ? seconds : minutes * 60;
  const cores = time === undefined && seed !== undefined ? 1 : availableParallelism();
  const hands = handsFor(fuzzers, number(values['jobs'], '--jobs', true) ?? cores);
  const interrupt = new AbortController();
  const onInterrupt = (): void => {
    interrupt.abort();
  };
  process.once('SIGINT', onInterrupt);
  process.once('SIGTERM', onInterrupt);
  try {
    return await runFuzzers({
      fuzzers,
      // A seed without a time asks for that run and nothing else.
      oldSeeds: seed === undefined || time !== undefined ? oldSeeds() : [],
      seed: seed ?? Math.floor(Math.random() * 2 ** 31),
      runs: number(values['runs'], '--runs', true),
      seconds: time,
      hands,
      signal: interrupt.signal,
      nowMs: () => performance.now(),
      print,
    });
  } finally {
    for (const hand of hands) hand.stop();
  }
}

async function main(): Promise<boolean> {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean' } as const;
  const { list, json, ...values } = parseArgs({
    options: {
      name: text,
      seed: text,
      runs: text,
      seconds: text,
      minutes: text,
      jobs: text,
      json: flag,
      list: flag,
    },
  }).values;
  if (list === true) {
    for (const { name } of FUZZERS) console.log(name);
    return true;
  }
  // With --json the result has standard output to itself.
  const print = (line: string): void => {
    if (json === true) console.error(line);
    else console.log(line);
  };
  const result = await run(values, print);
  for (const line of summary(result)) print(line);
  if (json === true) {
    console.log(JSON.stringify({ ...result, fuzzers: Object.fromEntries(result.fuzzers) }));
  }
  return result.failed.length === 0;
}

try {
  // A turn that was stopped in this process would go on until its end.
  process.exit((await main()) ? 0 : 1);
} catch (error) {
  console.error(error instanceof Error ? error.message : String(error));
  process.exit(2);
}
