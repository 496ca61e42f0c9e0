/**
 * Prints the pages of docs/ that are derived from tables in the code: `npm run docs`. With
 * `--check` it writes nothing, and fails when a page on disk is stale.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { printedPages } from './pages.ts';
import { REPOSITORY } from './repository.ts';

function onDisk(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

const check = process.argv.includes('--check');
for (const [name, text] of Object.entries(await printedPages())) {
  const path = join(REPOSITORY, name);
  if (onDisk(path) === text) continue;
  if (check) {
    console.error(`${name} is stale: run \`npm run docs\` and commit it`);
    process.exitCode = 1;
  } else {
    writeFileSync(path, text);
    console.log(`printed ${name}`);
  }
}
