/**
 * Turns of fuzzers until one fails or the time is over: what a child process does in a tree with a
 * bug in it. The fuzzers have equal shares of the time; each has its own row of seeds.
 */
import type { Fuzzer } from '../options.ts';

export interface Turn {
  readonly fuzzer: string;
  readonly seed: number;
  readonly runs: number;
}

/** How a hunt ends. */
export type Outcome =
  | { readonly kind: 'held'; readonly steps: number; readonly seconds: number }
  | {
      readonly kind: 'failed';
      readonly turn: Turn;
      readonly steps: number;
      readonly seconds: number;
      readonly message: string;
    };

/** What a hunt tells while it runs, one JSON text a line. */
export type Report =
  { readonly kind: 'turn'; readonly turn: Turn; readonly steps: number } | Outcome;

export interface HuntPlan {
  readonly fuzzers: readonly Fuzzer[];
  readonly seed: number;
  readonly seconds: number;
  readonly nowMs: () => number;
  readonly report: (report: Report) => void;
}

/** A turn of a volume's life is long; of the others it takes a few for small and large cases. */
export function runsOf(fuzzer: string): number {
  return fuzzer.startsWith('volume-') ? 1 : 20;
}

/** What failed, without the words that others put around it. */
function sentenceOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const isWrapped = error.constructor === Error && error.cause instanceof Error;
  return isWrapped ? sentenceOf(error.cause) : `${error.name}: ${error.message}`;
}

export class Hunt {
  readonly #plan: HuntPlan;
  readonly #startMs: number;
  #turn: Turn | undefined;
  #steps = 0;
  #isOver = false;

  constructor(plan: HuntPlan) {
    this.#plan = plan;
    this.#startMs = plan.nowMs();
  }

  async run(): Promise<void> {
    const { fuzzers, seed, seconds, nowMs } = this.#plan;
    const spentMs = fuzzers.map(() => 0);
    const rounds = fuzzers.map(() => 0);
    while (nowMs() - this.#startMs < seconds * 1000 && !this.#isOver) {
      const next = spentMs.indexOf(Math.min(...spentMs));
      const fuzzer = fuzzers[next];
      if (fuzzer === undefined) return;
      const began = nowMs();
      const round = rounds[next] ?? 0;
      await this.turn(fuzzer, (seed + round) | 0);
      rounds[next] = round + 1;
      spentMs[next] = (spentMs[next] ?? 0) + nowMs() - began;
    }
    this.end();
  }

  async turn(fuzzer: Fuzzer, seed: number, runs = runsOf(fuzzer.name)): Promise<void> {
    this.#turn = { fuzzer: fuzzer.name, seed, runs };
    this.#plan.report({ kind: 'turn', turn: this.#turn, steps: this.#steps });
    const before = this.#steps;
    try {
      const onStep = (): void => {
        this.#steps += 1;
      };
      const counts = await fuzzer.main({ seed, runs, onStep, brief: true });
      if (this.#steps === before) this.#steps += (counts ?? {})['steps'] ?? 0;
    } catch (error) {
      this.fail(error);
    }
  }

  /** A failure of the turn under way, wherever it came up. */
  fail(error: unknown): void {
    if (this.#isOver || this.#turn === undefined) return;
    this.#isOver = true;
    this.#plan.report({
      kind: 'failed',
      turn: this.#turn,
      steps: this.#steps,
      seconds: this.#seconds,
      message: sentenceOf(error).slice(0, 1000),
    });
  }

  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#plan.report({ kind: 'held', steps: this.#steps, seconds: this.#seconds });
  }

  get #seconds(): number {
    return (this.#plan.nowMs() - this.#startMs) / 1000;
  }
}
