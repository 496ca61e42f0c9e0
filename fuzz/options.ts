/** What a fuzzer is, and what it is given. */
export interface FuzzOptions {
  /** The same seed gives the same run, on every machine. */
  readonly seed: number;
  /** How many cases to try, from 1. */
  readonly runs: number;
}

/** What a turn did, by word: `steps`, `crashes`, `faults: bit rot`. The runner adds them up. */
export type Counts = Readonly<Record<string, number>>;

export interface Fuzzer {
  /** As in `npm run fuzz -- --name`; the area first: `log-record`. */
  readonly name: string;
  /** Returns when every case held; throws at the first that did not. */
  main(options: FuzzOptions): Counts | void | Promise<Counts | void>;
}
