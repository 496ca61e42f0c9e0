/** What a fuzzer is, and what it is given. */
import { inspect } from 'node:util';

export interface FuzzOptions {
  /** The same seed gives the same run, on every machine. */
  readonly seed: number;
  /** How many cases to try, from 1. */
  readonly runs: number;
  /** Told of each operation, so that a turn that fails says how far it came. */
  readonly onStep?: () => void;
  /** That it fails is enough: no time is spent on a shorter case. */
  readonly brief?: boolean;
}

/** What a turn did, by word: `steps`, `crashes`, `faults: bit rot`. The runner adds them up. */
export type Counts = Readonly<Record<string, number>>;

export interface Fuzzer {
  /** As in `npm run fuzz -- --name`; the area first: `log-record`. */
  readonly name: string;
  /** Cases of one turn when nobody asks for another number, a few seconds of work; else 100. */
  readonly runs?: number;
  /** Returns when every case held; throws at the first that did not. */
  main(options: FuzzOptions): Counts | void | Promise<Counts | void>;
}

/** One call of a fuzzer's `main`: what is run, and what is repeated after a failure. */
export interface Turn extends FuzzOptions {
  readonly name: string;
}

export type Outcome =
  | { readonly kind: 'held'; readonly counts: Counts }
  | { readonly kind: 'failed'; readonly what: string }
  /** Ended from outside before it was done: it says nothing. */
  | { readonly kind: 'stopped' };

export async function outcomeOf(fuzzer: Fuzzer, options: FuzzOptions): Promise<Outcome> {
  try {
    return { kind: 'held', counts: (await fuzzer.main(options)) ?? {} };
  } catch (error) {
    // With its causes: what a property says of itself is often only that it failed.
    return { kind: 'failed', what: inspect(error) };
  }
}

/** Both together; a word that only one has is kept. */
export function sum(left: Counts, right: Counts): Counts {
  const all: Record<string, number> = { ...left };
  for (const [word, count] of Object.entries(right)) all[word] = (all[word] ?? 0) + count;
  return all;
}

/** `12 crashes, 3400 steps` */
export function countsText(counts: Counts): string {
  return Object.entries(counts)
    .toSorted(([left], [right]) => (left < right ? -1 : 1))
    .map(([word, count]) => `${count} ${word}`)
    .join(', ');
}
