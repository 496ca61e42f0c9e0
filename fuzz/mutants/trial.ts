/**
 * One bug on trial: planted, hunted, taken out again; and what found it must hold without it.
 *
 * Invariant: `found` means that one turn of one fuzzer fails with the bug and holds without it.
 */
import type { Turn } from './hunt.ts';
import { hunt } from './hunter.ts';
import type { Mutant } from './mutant.ts';
import type { Tree } from './tree.ts';

export type Verdict =
  | {
      readonly kind: 'found';
      readonly turn: Turn;
      readonly steps: number;
      readonly seconds: number;
      readonly message: string;
    }
  | { readonly kind: 'survived'; readonly steps: number; readonly seconds: number }
  /** Does not apply, does not compile, does not load, or fails without the bug too. */
  | { readonly kind: 'void'; readonly message: string };

export interface Trial {
  readonly mutant: Mutant;
  readonly verdict: Verdict;
}

export interface Terms {
  readonly seed: number;
  readonly seconds: number;
  /** Names of the registry; those of a mutant that are not there yet are left out. */
  readonly known: ReadonlySet<string>;
}

/** A turn that holds takes about as long as the one that failed; a hung one is not waited for. */
const CONFIRM_SECONDS = 60;

export async function tried(tree: Tree, mutant: Mutant, terms: Terms): Promise<Verdict> {
  const fuzzers = mutant.fuzzers.filter((name) => terms.known.has(name));
  if (fuzzers.length === 0) return { kind: 'void', message: 'no fuzzer of it is registered' };
  try {
    tree.plant(mutant);
  } catch (error) {
    return { kind: 'void', message: error instanceof Error ? error.message : String(error) };
  }
  const { seed, seconds } = terms;
  const result = await hunt(tree, { fuzzers, seed, seconds });
  tree.mend();
  if (result.kind === 'held') return { ...result, kind: 'survived' };
  if (result.kind === 'broken') return { kind: 'void', message: result.message };
  const { turn } = result;
  const again = await hunt(tree, {
    fuzzers: [turn.fuzzer],
    seed: turn.seed,
    runs: turn.runs,
    seconds: CONFIRM_SECONDS,
  });
  if (again.kind === 'held') return { ...result, kind: 'found' };
  return { kind: 'void', message: `fails without the bug too: ${again.message}` };
}
