/** The counts that CI ends with are true, and CI installs every client. */
import { spawnSync } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { REPOSITORY } from '../../tools/repository.ts';
import { temporaryDirectory, writeTree } from '../support/files.ts';
import { PACKAGES } from '../support/clients.ts';

const script = join(REPOSITORY, '.ci/run');

interface File {
  readonly status: string;
  readonly results: readonly string[];
}

function counted(files: readonly File[], status: number): string {
  using tree = temporaryDirectory();
  const testResults = files.map((file) => ({
    status: file.status,
    assertionResults: file.results.map((result) => ({ status: result })),
  }));
  writeTree(tree.path, { 'report.json': JSON.stringify({ testResults }) });
  return count(join(tree.path, 'report.json'), status);
}

function count(report: string, status: number): string {
  const tool = join(REPOSITORY, 'tools/count-tests.mjs');
  return spawnSync('node', [tool, report, String(status)], { encoding: 'utf8' }).stdout.trim();
}

describe('the counts of .ci/run', () => {
  it('are those of the report', () => {
    const files = [
      { status: 'passed', results: ['passed', 'passed'] },
      { status: 'failed', results: ['passed', 'failed'] },
    ];
    expect(counted(files, 1)).toBe('3 1');
  });

  it('take what was skipped for failed', () => {
    expect(counted([{ status: 'passed', results: ['passed', 'skipped', 'todo'] }], 0)).toBe('1 2');
  });

  it('see a file that could not be loaded', () => {
    expect(counted([{ status: 'failed', results: [] }], 1)).toBe('0 1');
  });

  it('see a failure outside of any test', () => {
    expect(counted([{ status: 'passed', results: ['passed'] }], 1)).toBe('1 1');
  });

  it('take nothing for a failure', () => {
    expect(counted([], 0)).toBe('0 1');
    expect(count('/nonexistent/report.json', 0)).toBe('0 1');
  });
});

describe('.ci/run', () => {
  const text = readFileSync(script, 'utf8');

  it('is an executable script without errors of syntax', () => {
    expect(statSync(script).mode & 0o111).toBe(0o111);
    expect(spawnSync('bash', ['-n', script]).status).toBe(0);
  });

  it('installs the package of every client', () => {
    const [, list = ''] = /^packages=\((.*)\)$/m.exec(text) ?? [];
    expect(new Set(list.split(' '))).toEqual(new Set(Object.values(PACKAGES)));
  });
});
