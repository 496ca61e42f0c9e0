/** A missing client is said aloud, and in CI it fails: run on a machine that has none. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { REPOSITORY } from '../../tools/repository.ts';
import { temporaryDirectory, writeTree } from '../support/files.ts';

const PROBE = `
import { expect, it } from 'vitest';
import { describeWith, needs } from './clients.ts';
describeWith(['nbdinfo', 'qemu-img'], 'with clients', () => { it('runs', () => {}); });
it('knows', () => { expect(needs('nbdinfo')).toBe(false); });
`;

/** Runs the probe where every program is missing. */
function probe(ci: string): { readonly said: string; readonly counts: string } {
  using tree = temporaryDirectory();
  // The folders of the system are looked at beside PATH, so the copy looks at none of them.
  const source = readFileSync(join(REPOSITORY, 'test/support/clients.ts'), 'utf8');
  const blind = source.replaceAll(/'\/(usr\/)?s?bin'/g, "''");
  expect(blind).not.toBe(source);
  writeTree(tree.path, { 'clients.ts': blind, 'probe.test.ts': PROBE, 'package.json': '{}' });
  symlinkSync(join(REPOSITORY, 'node_modules'), join(tree.path, 'node_modules'));
  mkdirSync(join(tree.path, 'empty'));
  copyFileSync(join(REPOSITORY, 'tsconfig.json'), join(tree.path, 'tsconfig.json'));
  const run = spawnSync(
    process.execPath,
    [
      'node_modules/vitest/vitest.mjs',
      'run',
      '--reporter=json',
      '--reporter=default',
      '--outputFile=report.json',
    ],
    { cwd: tree.path, encoding: 'utf8', env: { PATH: join(tree.path, 'empty'), CI: ci } },
  );
  const report: Record<string, number> = JSON.parse(
    readFileSync(join(tree.path, 'report.json'), 'utf8'),
  );
  const counts = [report['numPassedTests'], report['numFailedTests'], report['numPendingTests']];
  return { said: run.stdout + run.stderr, counts: counts.join(' ') };
}

describe('a missing client', () => {
  it('is skipped aloud, with the package to install', () => {
    const { said, counts } = probe('');
    expect(counts).toBe('1 0 1');
    expect(said).toContain('nbdinfo (apt-get install libnbd-bin)');
    expect(said).toContain('qemu-img (apt-get install qemu-utils)');
  });

  it('is a failing test in CI', () => {
    const { said, counts } = probe('true');
    expect(counts).toBe('1 1 0');
    expect(said).toContain('CI has every client, but not nbdinfo');
  });
});
