/** What every text of the checkout keeps: it says what it is, and names no machine. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { REPOSITORY } from '../../tools/repository.ts';

/** Text files that git tracks, or would track; images and other bytes are left out. */
const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
  cwd: REPOSITORY,
  encoding: 'utf8',
})
  .split('\n')
  .filter((path) => /\.(ts|cjs|mjs|json|md)$|^bin\/|^\.ci\//.test(path))
  .filter((path) => existsSync(join(REPOSITORY, path)));

function filesWhere(holds: (text: string, path: string) => boolean): readonly string[] {
  return files.filter((path) => holds(readFileSync(join(REPOSITORY, path), 'utf8'), path));
}

describe('the text of the checkout', () => {
  it('is there', () => {
    expect(files).toContain('package.json');
    expect(files).toContain('src/base/units.ts');
  });

  it('opens each module with what it is', () => {
    const bare = filesWhere(
      (text, path) => path.endsWith('.ts') && !/^(#!.*\n)?\/\*\*[ \n]/.test(text),
    );
    expect(bare).toEqual([]);
  });

  it('names no home and no workplace', () => {
    const place = new RegExp(`${REPOSITORY.replace(/\/$/, '')}/|/(root|home/[a-z]+)/`);
    const named = filesWhere(
      (text, path) => place.test(text) && path !== 'test/house/text.test.ts',
    );
    expect(named).toEqual([]);
  });
});
