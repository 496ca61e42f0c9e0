/** A tree of generated files, and what a tree holds: so that two can be compared whole. */
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { SeededRandom } from '../sim/random.ts';

const FOLDERS = 60;
const SMALL_BYTES_MAX = 16 * 1024;
const LARGE_BYTES_MAX = 4 * 1024 ** 2;
/** One file of so many is large. */
const LARGE_EVERY = 300;

export interface TreeOptions {
  readonly seed: number;
  readonly files: number;
}

/** Small files in folders of folders, with a large one now and then. */
export function generateTree(root: string, { seed, files }: TreeOptions): void {
  const random = new SeededRandom(seed);
  const pool = Buffer.from(random.bytes(LARGE_BYTES_MAX * 2));
  for (let file = 0; file < files; file++) {
    const folder = join(root, `folder-${file % 7}`, `part-${file % FOLDERS}`);
    mkdirSync(folder, { recursive: true });
    const isLarge = file % LARGE_EVERY === 0;
    const bytes = random.below(isLarge ? LARGE_BYTES_MAX : SMALL_BYTES_MAX);
    const at = random.below(LARGE_BYTES_MAX);
    writeFileSync(join(folder, `file-${file}`), pool.subarray(at, at + bytes));
  }
}

/** The digest of each file, by its path in the tree. */
export function manifestOf(root: string): ReadonlyMap<string, string> {
  const manifest = new Map<string, string>();
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    const digest = entry.isFile()
      ? createHash('sha1').update(readFileSync(path)).digest('hex')
      : '';
    manifest.set(relative(root, path), digest);
  }
  return manifest;
}
