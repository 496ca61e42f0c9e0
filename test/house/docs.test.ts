/** Pages that are printed from tables in the code are never edited, and never stale. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { row } from '../../tools/markdown.ts';
import { printedPages } from '../../tools/pages.ts';
import { REPOSITORY } from '../../tools/repository.ts';

const pages = await printedPages();

describe('printed pages', () => {
  it.each(Object.entries(pages))('%s is what `npm run docs` prints', (name, text) => {
    expect(readFileSync(join(REPOSITORY, name), 'utf8')).toBe(text);
  });

  it('keep a bar inside its cell', () => {
    expect(row(['a|b', 'c\n  d'])).toBe('| a\\|b | c d |');
  });
});
