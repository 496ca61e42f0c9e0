/** Volumes for tests of the command line: small, quickly made, and what their directory holds. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { vi } from 'vitest';
import { loadTools } from '../../src/app/load-tools.ts';
import { main } from '../../src/cli/main.ts';
import { varve, varveToEnd, type Ended } from '../support/run.ts';

/** The smallest log that holds two of the largest requests, or nearly so. */
export const SMALL_SIZES: readonly string[] = ['--size', '16M', '--log-size', '80M'];

export async function makeVolume(directory: string, name = 'disk'): Promise<void> {
  await varve(directory, ['create', name, ...SMALL_SIZES]);
}

export interface ToldError {
  readonly code: string;
  readonly message: string;
  readonly next: string;
}

export interface Refusal extends Ended {
  readonly error: ToldError;
}

/** Runs a command that has to fail, and reads its error from the JSON on standard error. */
export async function refused(directory: string, words: readonly string[]): Promise<Refusal> {
  const ended = await varveToEnd(directory, [...words, '--json']);
  const { error }: { error: ToldError } = JSON.parse(ended.stderr || 'null');
  return { ...ended, error };
}

/** What `refused` gives, without a process of its own: for the many ways to ask wrongly. */
export async function refusedHere(directory: string, words: readonly string[]): Promise<Refusal> {
  const [stdout, stderr] = [catchOutput(process.stdout), catchOutput(process.stderr)];
  try {
    const argv = [...words, '--json', '--dir', directory];
    const code = await main(argv, { load: loadTools, version: 'tested' });
    const { error }: { error: ToldError } = JSON.parse(stderr.text() || 'null');
    return { code, signal: null, stdout: stdout.text(), stderr: stderr.text(), error };
  } finally {
    stdout.end();
    stderr.end();
  }
}

function catchOutput(stream: NodeJS.WriteStream): { text(): string; end(): void } {
  const caught: string[] = [];
  const spy = vi.spyOn(stream, 'write').mockImplementation((chunk) => {
    caught.push(String(chunk));
    return true;
  });
  return {
    text: () => caught.join(''),
    end: () => {
      spy.mockRestore();
    },
  };
}

/**
 * Every file with its size, the time of its last change, and the content of small ones. Lock files
 * say who holds them, and are left out.
 */
export function stateOf(path: string): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  for (const entry of readdirSync(path, { recursive: true, withFileTypes: true })) {
    const at = join(entry.parentPath, entry.name);
    if (entry.name === 'lock') continue;
    const { size, mtimeMs } = statSync(at);
    const small = entry.isFile() && size < 64 * 1024 ? readFileSync(at, 'base64') : '';
    found.set(at, entry.isFile() ? `${size} ${mtimeMs} ${small}` : 'directory');
  }
  return found;
}
