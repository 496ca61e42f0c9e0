/**
 * `npm run fuzz:mutants -- [--name X]... [--seconds N] [--control-seconds N] [--seed N]
 * [--jobs N] [--json FILE] [--markdown FILE]`; `--list` names the bugs. A JSON file that
 * is there keeps the results of bugs that are not tried now, and the page shows them too. Seconds
 * are of CPU, so that a busy machine gives the same results. Ends with 1 when a bug was not found.
 */
import { writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { format } from 'prettier';
import { FUZZERS } from '../registry.ts';
import { TypeCheck } from './emit.ts';
import { hunt } from './hunter.ts';
import { MUTANTS } from './list.ts';
import type { Mutant } from './mutant.ts';
import { line, page } from './report.ts';
import { merged } from './results.ts';
import { Tree } from './tree.ts';
import { tried, type Terms, type Trial } from './trial.ts';

const SECONDS_DEFAULT = 60;
/** Of one fuzzer without any bug, before the trials. */
const CONTROL_SECONDS_DEFAULT = 5;

function whole(text: string | undefined, option: string): number | undefined {
  if (text === undefined) return undefined;
  if (!/^\d+$/.test(text)) throw new Error(`${option} takes a whole number, got ${text}`);
  return Number(text);
}

function chosen(names: readonly string[] | undefined): readonly Mutant[] {
  if (names === undefined) return MUTANTS;
  const unknown = names.filter((name) => !MUTANTS.some((mutant) => mutant.name === name));
  if (unknown.length > 0) throw new Error(`no mutant is called ${unknown[0]}; --list names them`);
  return MUTANTS.filter(({ name }) => names.includes(name));
}

/** Without a bug everything holds, else no result means anything. @returns what did not */
async function control(
  tree: Tree,
  mutants: readonly Mutant[],
  { seed, seconds }: { readonly seed: number; readonly seconds: number },
): Promise<string[]> {
  const used = FUZZERS.filter(({ name }) => mutants.some(({ fuzzers }) => fuzzers.includes(name)));
  const failed: string[] = [];
  for (const { name } of used) {
    const result = await hunt(tree, { fuzzers: [name], seed, seconds });
    if (result.kind === 'held') console.log(`control   ${name}: ${result.steps} operations hold`);
    else failed.push(`${name}: ${result.message}`);
  }
  return failed;
}

async function trials(mutants: readonly Mutant[], terms: Terms, jobs: number): Promise<Trial[]> {
  const types = new TypeCheck();
  const done: Trial[] = [];
  const queue = [...mutants];
  const work = async (job: number): Promise<void> => {
    const tree = Tree.create(`${process.pid}-${job}`);
    try {
      for (let mutant = queue.shift(); mutant !== undefined; mutant = queue.shift()) {
        const trial = { mutant, verdict: await judged(types, tree, mutant, terms) };
        console.log(line(trial));
        done.push(trial);
      }
    } finally {
      tree.remove();
    }
  };
  await Promise.all(Array.from({ length: Math.min(jobs, mutants.length) }, (_, job) => work(job)));
  return done.toSorted((a, b) => mutants.indexOf(a.mutant) - mutants.indexOf(b.mutant));
}

async function judged(
  types: TypeCheck,
  tree: Tree,
  mutant: Mutant,
  terms: Terms,
): Promise<Trial['verdict']> {
  try {
    const problem = types.problem(mutant);
    if (problem !== undefined) return { kind: 'void', message: `does not compile: ${problem}` };
  } catch (error) {
    return { kind: 'void', message: error instanceof Error ? error.message : String(error) };
  }
  return await tried(tree, mutant, terms);
}

async function main(): Promise<boolean> {
  const text = { type: 'string' } as const;
  const { values } = parseArgs({
    options: {
      name: { type: 'string', multiple: true },
      list: { type: 'boolean' },
      seconds: text,
      'control-seconds': text,
      seed: text,
      jobs: text,
      json: text,
      markdown: text,
    },
  });
  const mutants = chosen(values.name);
  if (values.list === true) {
    for (const { name, law, story } of mutants) console.log(`${name} (law ${law}): ${story}`);
    return true;
  }
  const terms: Terms = {
    seed: whole(values.seed, '--seed') ?? 1,
    seconds: whole(values.seconds, '--seconds') ?? SECONDS_DEFAULT,
    known: new Set(FUZZERS.map(({ name }) => name)),
  };
  const sound = Tree.create(`${process.pid}-control`);
  const failed = await control(sound, mutants, {
    seed: terms.seed,
    seconds: whole(values['control-seconds'], '--control-seconds') ?? CONTROL_SECONDS_DEFAULT,
  }).finally(() => {
    sound.remove();
  });
  for (const one of failed) console.log(`control   FAILED without any bug: ${one}`);
  if (failed.length > 0) return false;
  const jobs = whole(values.jobs, '--jobs') ?? availableParallelism();
  const all = await trials(mutants, terms, Math.max(1, jobs));
  const kept = values.json === undefined ? all : merged(values.json, all);
  if (values.json !== undefined) writeFileSync(values.json, JSON.stringify(kept, undefined, 2));
  if (values.markdown !== undefined) {
    writeFileSync(values.markdown, await format(page(kept), { parser: 'markdown' }));
  }
  const found = all.filter(({ verdict }) => verdict.kind === 'found').length;
  console.log(`mutants: ${found} of ${all.length} found`);
  return found === all.length;
}

try {
  process.exitCode = (await main()) ? 0 : 1;
} catch (error) {
  console.error(error instanceof Error ? error.message : String(error));
  process.exitCode = 2;
}
