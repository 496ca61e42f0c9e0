/** Where the checkout is: the same answer from tools/ and from dist/tools/. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

function above(directory: string): string {
  if (existsSync(join(directory, 'package.json'))) return directory;
  const parent = dirname(directory);
  if (parent === directory) throw new Error('this file lies outside a checkout of Varve');
  return above(parent);
}

export const REPOSITORY = above(dirname(fileURLToPath(import.meta.url)));
