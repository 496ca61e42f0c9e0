/**
 * `npm run nightly -- [--minutes N] [--only NAME]`: all that takes long, one step after the other,
 * with a summary at the end. A step that fails does not keep the others from running; the exit
 * status is 1 then. What each step said is in `varve-data/nightly/NAME.txt`.
 */
import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { REPOSITORY } from './repository.ts';

interface Step {
  readonly name: string;
  readonly command: readonly [string, ...string[]];
  /** Of the tests that go on for as long as they are told to. */
  readonly environment?: Readonly<Record<string, string>>;
}

const FUZZ_MINUTES = 240;

function endurance(name: string, environment: Step['environment'] = {}): Step {
  const file = `test/endurance/${name}.test.ts`;
  return { name, command: ['npx', 'vitest', 'run', file], environment };
}

/** Cheapest first: what is broken altogether shows at once. */
function steps(minutes: number): readonly Step[] {
  return [
    { name: 'check', command: ['npm', 'run', 'check'] },
    { name: 'test', command: ['npm', 'test'] },
    { name: 'endurance', command: ['npm', 'run', 'test:endurance'] },
    { name: 'mutants', command: ['npm', 'run', 'fuzz:mutants'] },
    endurance('kill', { VARVE_KILL_ROUNDS: '100' }),
    endurance('power-cut', { VARVE_CUT_ROUNDS: '50' }),
    endurance('wrap', { VARVE_WRAPS: '10' }),
    endurance('memory', { VARVE_SQUEEZE_ROUNDS: '20' }),
    endurance('hostile', { VARVE_HOSTILE_SECONDS: '600' }),
    endurance('still-clients', { VARVE_PATIENT: '1' }),
    endurance('send-receive', { VARVE_SEND_MOMENTS: '50' }),
    { name: 'fuzz', command: ['npm', 'run', 'fuzz', '--', '--minutes', String(minutes)] },
  ];
}

/** @returns whether it ended with 0 */
function run({ command, environment }: Step, log: string): Promise<boolean> {
  const out = openSync(log, 'w');
  const [program, ...options] = command;
  const child = spawn(program, options, {
    cwd: REPOSITORY,
    env: { ...process.env, ...environment },
    stdio: ['ignore', out, out],
  });
  return new Promise((resolve) => {
    child.on('error', () => {
      closeSync(out);
      resolve(false);
    });
    child.on('exit', (code) => {
      closeSync(out);
      resolve(code === 0);
    });
  });
}

async function main(): Promise<boolean> {
  const text = { type: 'string' } as const;
  const { minutes, only } = parseArgs({ options: { minutes: text, only: text } }).values;
  const fuzzMinutes = Number(minutes ?? FUZZ_MINUTES);
  if (!(fuzzMinutes > 0)) throw new Error(`--minutes takes a number above 0, got ${minutes}`);
  const all = steps(fuzzMinutes);
  const chosen = all.filter(({ name }) => only === undefined || name === only);
  if (chosen.length === 0) {
    throw new Error(`no step "${only}"; there are: ${all.map(({ name }) => name).join(', ')}`);
  }
  const folder = join(REPOSITORY, 'varve-data/nightly');
  mkdirSync(folder, { recursive: true });
  const lines: string[] = [];
  for (const step of chosen) {
    const log = join(folder, `${step.name}.txt`);
    console.log(`${step.name}: ${step.command.join(' ')}`);
    const began = performance.now();
    const isGood = await run(step, log);
    const seconds = Math.round((performance.now() - began) / 1000);
    lines.push(`${isGood ? 'passed' : 'FAILED'}  ${step.name} (${seconds} s)`);
    if (!isGood) console.log(`${step.name}: FAILED; see varve-data/nightly/${step.name}.txt`);
  }
  console.log(lines.join('\n'));
  return lines.every((line) => line.startsWith('passed'));
}

try {
  process.exitCode = (await main()) ? 0 : 1;
} catch (error) {
  console.error(error instanceof Error ? error.message : String(error));
  process.exitCode = 2;
}
