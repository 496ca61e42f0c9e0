/** What every text of the checkout keeps: it says what it is, and names no machine. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { describe, expect, it } from 'vitest';
import { REPOSITORY } from '../../tools/repository.ts';

const FOLDERS = ['src', 'log', 'index', 'test', 'fuzz', 'bench', 'tools', 'docs', 'bin', '.ci'];

/** Text files of the checkout, by their path in it. */
const files = [...FOLDERS.flatMap(filesOf), ...readdirSync(REPOSITORY)].filter((path) =>
  /\.(ts|cjs|mjs|json|md)$|^bin\/|^\.ci\//.test(path),
);

function filesOf(folder: string): readonly string[] {
  const path = join(REPOSITORY, folder);
  if (!existsSync(path)) return [];
  return readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(REPOSITORY, join(entry.parentPath, entry.name)));
}

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
