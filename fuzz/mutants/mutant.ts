/**
 * What a planted bug is: a patch of one source file, as text. None of it is part of the product;
 * patches are applied to a private copy of the built tree, one at a time.
 *
 * Invariant: each text that is looked for stands in its file exactly once, so that a patch lands
 * where it was meant or not at all.
 */

/** The law of the design that a bug breaks; `protocol`: what NBD promises. */
export type Law = 1 | 2 | 3 | 4 | 5 | 6 | 7 | 'protocol';

export interface Edit {
  /** Exact text of the source, with its line breaks. */
  readonly find: string;
  readonly replace: string;
}

export interface Mutant extends Edit {
  /** Words with hyphens, as in `--name`. */
  readonly name: string;
  readonly law: Law;
  /** What the programmer forgot, in a line. */
  readonly story: string;
  /** Path in the checkout. */
  readonly file: string;
  /** Names in fuzz/registry.ts: who may find it; the likeliest first. */
  readonly fuzzers: readonly string[];
  /** Further edits of the same file, for a bug that needs them. */
  readonly more?: readonly Edit[];
}

/** @throws Error when a text does not stand in the source exactly once */
export function patched(source: string, mutant: Mutant): string {
  let text = source;
  for (const { find, replace } of [mutant, ...(mutant.more ?? [])]) {
    const count = text.split(find).length - 1;
    if (count !== 1) {
      const line = find.split('\n')[0] ?? '';
      throw new Error(`${mutant.name}: ${mutant.file} holds "${line}" ${count} times, expected 1`);
    }
    text = text.replace(find, () => replace);
  }
  return text;
}
