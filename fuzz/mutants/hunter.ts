/** Runs a hunt in a child process, and ends the child when it neither finds anything nor stops. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Outcome, Report } from './hunt.ts';
import type { Tree } from './tree.ts';

/** Seconds are of the child's CPU; on a busy machine they take so much longer, and some more. */
const WALL_TIMES = 5;
const GRACE_SECONDS = 60;

export type Result =
  | Outcome
  /** It could not even be loaded, or fell without a word. */
  | { readonly kind: 'broken'; readonly message: string };

export interface Asked {
  readonly fuzzers: readonly string[];
  readonly seed: number;
  readonly seconds: number;
  /** One turn of each, of so many runs. */
  readonly runs?: number;
}

function isReport(value: unknown): value is Report {
  return typeof value === 'object' && value !== null && 'kind' in value && 'steps' in value;
}

export async function hunt(tree: Tree, asked: Asked): Promise<Result> {
  const { fuzzers, seed, seconds, runs } = asked;
  const options = ['--fuzzers', fuzzers.join(','), `--seed=${seed}`, '--seconds', `${seconds}`];
  if (runs !== undefined) options.push('--runs', `${runs}`);
  const child = spawn(process.execPath, [join(tree.root, 'fuzz/mutants/child.js'), ...options], {
    cwd: tree.root,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const beganMs = performance.now();
  let last: Report | undefined;
  let complaint = '';
  let isHung = false;
  const timer = setTimeout(
    () => {
      isHung = true;
      child.kill('SIGKILL');
    },
    (seconds * WALL_TIMES + GRACE_SECONDS) * 1000,
  );
  child.stderr.on('data', (bytes: Buffer) => {
    complaint = (complaint + bytes.toString()).slice(-4000);
  });
  const lines = createInterface({ input: child.stdout });
  lines.on('line', (line) => {
    const value: unknown = JSON.parse(line);
    if (isReport(value)) last = value;
  });
  await new Promise<void>((resolve) => {
    child.on('close', () => {
      resolve();
    });
  });
  clearTimeout(timer);
  const tookSeconds = (performance.now() - beganMs) / 1000;
  const otherwise = isHung ? 'a turn never ends' : `what is waited for never comes ${complaint}`;
  return resultOf(last, otherwise, tookSeconds);
}

function resultOf(last: Report | undefined, otherwise: string, seconds: number): Result {
  if (last === undefined) return { kind: 'broken', message: otherwise };
  if (last.kind !== 'turn') return last;
  return { kind: 'failed', turn: last.turn, steps: last.steps, seconds, message: otherwise };
}
