/** The runner of planted bugs tells one that is found, with a few that are found at once. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { REPOSITORY } from '../../tools/repository.ts';

describe('the runner', () => {
  const SAMPLE = ['reads-give-zeros', 'fua-flag-dropped'];
  const folder = mkdtempSync(join(tmpdir(), 'varve-mutants-'));

  /** Apart from `dist/`, which other tests use meanwhile; packages are found from there all the same. */
  const built = join(REPOSITORY, 'dist', `mutants-${process.pid}`);

  beforeAll(() => {
    const compiler = join(REPOSITORY, 'node_modules/typescript/bin/tsc');
    const options = ['-p', 'tsconfig.tools.json', '--outDir', built, '--sourceMap', 'false'];
    execFileSync(process.execPath, [compiler, ...options], { cwd: REPOSITORY });
  }, 240_000);

  afterAll(() => {
    rmSync(folder, { recursive: true });
    rmSync(built, { recursive: true });
  });

  it('finds a few of them in no time', () => {
    const json = join(folder, 'found.json');
    const names = SAMPLE.map((name) => `--name=${name}`);
    const run = join(built, 'fuzz/mutants/run.js');
    const options = ['--jobs', '1', '--seconds', '10', '--control-seconds', '1', '--json', json];
    const text = execFileSync(process.execPath, [run, ...options, ...names], { encoding: 'utf8' });
    expect(text).toContain('mutants: 2 of 2 found');
    const results: unknown = JSON.parse(readFileSync(json, 'utf8'));
    expect(results).toMatchObject(
      SAMPLE.map((name) => ({ mutant: { name }, verdict: { kind: 'found' } })),
    );
  }, 240_000);
});
