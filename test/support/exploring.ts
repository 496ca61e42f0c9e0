/** `varve explore` as its users run it, and what it leaves behind: nothing. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { ExploreReport } from '../../src/control/explore-report.ts';
import { VARVE } from './run.ts';

export interface Explored {
  readonly code: number | null;
  readonly report: ExploreReport;
  readonly stderr: string;
  /** What lies in the directory for temporary files afterwards. */
  readonly left: readonly string[];
}

export interface ExploreWords {
  readonly data: string;
  readonly from: string;
  readonly to: string;
  readonly check: string;
  readonly more?: readonly string[];
  /** Sends SIGINT once this file has lines: one for each check that began. */
  readonly interruptAt?: { readonly path: string; readonly lines: number };
}

export async function explored(folder: string, words: ExploreWords): Promise<Explored> {
  const { data, from, to, check, more = [], interruptAt } = words;
  const temporary = join(folder, 'tmp');
  mkdirSync(temporary, { recursive: true });
  const command = [VARVE, 'explore', 'disk', '--dir', data, '--from', from, '--to', to];
  const child = spawn(process.execPath, [...command, '--check', check, '--json', ...more], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, TMPDIR: temporary },
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const closed = once(child, 'close');
  if (interruptAt !== undefined) {
    while (linesOf(interruptAt.path) < interruptAt.lines && child.exitCode === null)
      await delay(10);
    child.kill('SIGINT');
  }
  await closed;
  const left = readdirSync(temporary);
  // Without a report, the error is the message.
  if (stdout === '') throw new Error(`exit code ${child.exitCode}: ${stderr}`);
  const report: ExploreReport = JSON.parse(stdout);
  return { code: child.exitCode, report, stderr, left };
}

function linesOf(path: string): number {
  try {
    return readFileSync(path, 'utf8').split('\n').length - 1;
  } catch {
    return 0;
  }
}
