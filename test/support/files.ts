/** Trees of small files in a temporary directory, gone when the test is over. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

/** An empty directory under the system's temporary one, and how to remove it. */
export function temporaryDirectory(): { readonly path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), 'varve-test-'));
  return {
    path,
    [Symbol.dispose](): void {
      rmSync(path, { recursive: true, force: true });
    },
  };
}

/** @param files - content by path relative to `root`; folders are made as needed */
export function writeTree(root: string, files: Readonly<Record<string, string>>): void {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
}

/** What is below `from`, to below `to`; holes stay holes, as a gigabyte of them is in each volume. */
export function copyTree(from: string, to: string): void {
  execFileSync('cp', ['--archive', '--sparse=always', `${from}/.`, to]);
}
