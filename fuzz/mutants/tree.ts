/**
 * A private copy of the built tree, with at most one bug planted in it. It lies inside that tree, so
 * that its imports of packages lead to the checkout's.
 */
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { emitted } from './emit.ts';
import type { Mutant } from './mutant.ts';

/** What this file was built with. */
const BUILT = join(dirname(fileURLToPath(import.meta.url)), '../..');
const PARTS = ['src', 'log', 'index', 'test', 'fuzz', 'tools'];

export class Tree {
  readonly root: string;
  #planted: { readonly path: string; readonly sound: Buffer } | undefined;

  private constructor(root: string) {
    this.root = root;
  }

  /** @param name - of a folder that nobody else uses */
  static create(name: string): Tree {
    const root = join(BUILT, 'mutants', name);
    rmSync(root, { recursive: true, force: true });
    for (const part of PARTS) {
      cpSync(join(BUILT, part), join(root, part), {
        recursive: true,
        filter: (path) => !path.endsWith('.map'),
      });
    }
    return new Tree(root);
  }

  /** @throws Error when the patch does not apply or does not parse */
  plant(mutant: Mutant): void {
    this.mend();
    const text = emitted(mutant);
    const path = join(this.root, mutant.file.replace(/\.ts$/, '.js'));
    this.#planted = { path, sound: readFileSync(path) };
    writeFileSync(path, text);
  }

  /** Takes the bug out again. */
  mend(): void {
    if (this.#planted === undefined) return;
    writeFileSync(this.#planted.path, this.#planted.sound);
    this.#planted = undefined;
  }

  remove(): void {
    rmSync(this.root, { recursive: true, force: true });
  }
}
