/**
 * Programs, run to their end: their output, their exit code, and a limit of time.
 *
 * Invariants:
 *   - A program that takes too long is ended by its own process id, and that is an error.
 *   - `run` gives back only what ended with exit code 0; an error shows what the program said.
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { REPOSITORY } from '../../tools/repository.ts';

export interface RunOptions {
  readonly timeoutMs?: number;
  readonly input?: string;
  readonly cwd?: string;
}

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The launcher, as a user of the checkout starts it. */
export const VARVE = join(REPOSITORY, 'bin', 'varve');
const TIMEOUT_MS = 120_000;

/** @throws Error when the program can't be started, or takes longer than `timeoutMs` */
export function runToEnd(
  program: string,
  parameters: readonly string[],
  { timeoutMs = TIMEOUT_MS, input, cwd }: RunOptions = {},
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, parameters, { stdio: 'pipe', cwd });
    const output: Buffer[] = [];
    const complaints: Buffer[] = [];
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      child.kill('SIGKILL');
    }, timeoutMs);
    child.stdout.on('data', (chunk: Buffer) => output.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => complaints.push(chunk));
    child.on('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      const stdout = Buffer.concat(output).toString();
      const stderr = Buffer.concat(complaints).toString();
      if (!late) resolve({ code, signal, stdout, stderr });
      else reject(new Error(`${told(program, parameters)} took over ${timeoutMs} ms\n${stderr}`));
    });
    // A program may end without reading all of its input.
    child.stdin.on('error', () => undefined);
    child.stdin.end(input ?? '');
  });
}

/** @throws Error unless the program ends with exit code 0 */
export async function run(
  program: string,
  parameters: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const ended = await runToEnd(program, parameters, options);
  if (ended.code === 0) return ended.stdout;
  const how = ended.code === null ? `by ${ended.signal}` : `with exit code ${ended.code}`;
  throw new Error(
    `${told(program, parameters)} ended ${how}\n${ended.stdout.slice(-4000)}\n${ended.stderr.slice(-4000)}`,
  );
}

/** `varve COMMAND ... --dir DIRECTORY`, whatever it ends with. */
export function varveToEnd(
  directory: string,
  parameters: readonly string[],
  options: RunOptions = {},
): Promise<Ended> {
  return runToEnd(process.execPath, [VARVE, ...parameters, '--dir', directory], options);
}

/** @throws Error unless it ends with exit code 0 */
export function varve(
  directory: string,
  parameters: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  return run(process.execPath, [VARVE, ...parameters, '--dir', directory], options);
}

function told(program: string, parameters: readonly string[]): string {
  return [program, ...parameters].join(' ');
}
