/**
 * Runs fuzzers: the canary first, then the seeds that ever failed, then new seeds; as many turns
 * at a time as there are hands.
 *
 * Invariants:
 *   - Nothing is random here: new seeds come from the first one, so a whole run can be repeated,
 *     and no two turns have the same.
 *   - The first failure of a fuzzer ends that fuzzer, is printed with the command that repeats it,
 *     and does not keep the others from running.
 */
import { fuzzer as canary } from './canary.fuzz.ts';
import { OwnHand, type Hand } from './hands.ts';
import { countsText, sum, type Counts, type Fuzzer, type Turn } from './options.ts';
import type { OldSeed } from './seeds.ts';

export interface RunPlan {
  readonly fuzzers: readonly Fuzzer[];
  readonly oldSeeds: readonly OldSeed[];
  /** The first new seed. */
  readonly seed: number;
  /** Cases in one turn of a fuzzer; undefined: each fuzzer's own number. */
  readonly runs?: number | undefined;
  /** New turns go on until this time has passed; undefined: one turn each. */
  readonly seconds?: number | undefined;
  /** One that works in this process, if not given. */
  readonly hands?: readonly Hand[];
  /** When it is aborted, the run ends with what it has. */
  readonly signal?: AbortSignal;
  readonly nowMs: () => number;
  readonly print: (line: string) => void;
}

export interface FuzzerResult {
  readonly turns: number;
  readonly runs: number;
  readonly counts: Counts;
  /** The turn that failed. */
  readonly failed: Turn | undefined;
}

export interface RunResult {
  readonly turns: number;
  readonly failed: readonly string[];
  readonly seconds: number;
  /** What the turns did, by the name of the fuzzer. */
  readonly fuzzers: ReadonlyMap<string, FuzzerResult>;
}

interface Task {
  readonly turn: Turn;
  /** What to print with a turn that held; undefined: nothing. */
  readonly note: string | undefined;
  /** Of the first round, or an old seed: not given up when the time is over. */
  readonly isOwed: boolean;
}

const RUNS_DEFAULT = 100;
const NOTHING: FuzzerResult = { turns: 0, runs: 0, counts: {}, failed: undefined };
/** How long turns under way may go on when the time is over. */
const GRACE_MS = 15_000;
const PROGRESS_MS = 60_000;

/** Round 0 gives `seed` itself; later ones are far from each other, and all are 32-bit. */
function seedAt(seed: number, round: number): number {
  return (seed + Math.imul(round, 0x9e3779b1)) | 0;
}

function replayCommand({ name, seed, runs }: Turn): string {
  return `npm run fuzz -- --name ${name} --seed=${seed} --runs ${runs}`;
}

class Run {
  readonly #plan: RunPlan;
  readonly #beganMs: number;
  readonly #fuzzers = new Map<string, FuzzerResult>();
  readonly #failed = new Set<string>();
  readonly #tasks: Iterator<Task, void>;
  #owed = 0;
  #turns = 0;
  #toldMs = 0;
  #isOver = false;

  constructor(plan: RunPlan) {
    this.#plan = plan;
    this.#beganMs = plan.nowMs();
    this.#tasks = this.#all();
  }

  get #passedMs(): number {
    return this.#plan.nowMs() - this.#beganMs;
  }

  get result(): RunResult {
    return {
      turns: this.#turns,
      failed: [...this.#failed],
      seconds: Math.round(this.#passedMs / 1000),
      fuzzers: this.#fuzzers,
    };
  }

  async checkCanary(hand: Hand): Promise<void> {
    const turn = { name: canary.name, seed: this.#plan.seed, runs: 1000 };
    if ((await hand.run(turn)).kind !== 'held') return;
    this.#failed.add(canary.name);
    this.#plan.print('canary: it must fail and did not, so no result here means anything');
  }

  /** Old seeds, then round after round of new ones until the time is over; the first is whole. */
  *#all(): Generator<Task, void> {
    const { fuzzers, oldSeeds, seed, runs, seconds = 0 } = this.#plan;
    for (const old of oldSeeds) {
      if (!fuzzers.some(({ name }) => name === old.name)) continue;
      yield { turn: old, note: `: ${old.note}`, isOwed: true };
    }
    for (let round = 0; ; round += 1) {
      const sound = fuzzers.filter(({ name }) => !this.#failed.has(name));
      if (sound.length === 0) return;
      for (const fuzzer of sound) {
        if (round > 0 && this.#passedMs >= seconds * 1000) return;
        const turn = {
          name: fuzzer.name,
          seed: seedAt(seed, round),
          runs: runs ?? fuzzer.runs ?? RUNS_DEFAULT,
        };
        // A long run says what it began with, and then only what fails.
        yield { turn, note: round === 0 ? '' : undefined, isOwed: round === 0 };
      }
    }
  }

  /** Takes turns until there are none. */
  async work(hand: Hand): Promise<void> {
    for (;;) {
      const next = this.#isOver ? undefined : this.#tasks.next();
      if (next === undefined || next.done === true) return;
      const task = next.value;
      if (this.#failed.has(task.turn.name)) continue;
      if (task.isOwed) this.#owed += 1;
      await this.#turn(hand, task);
      if (task.isOwed) this.#owed -= 1;
      this.#tellProgress();
    }
  }

  async #turn(hand: Hand, { turn, note }: Task): Promise<void> {
    const { print, nowMs } = this.#plan;
    const { name, seed, runs } = turn;
    const began = nowMs();
    const outcome = await hand.run(turn);
    if (outcome.kind === 'stopped') return;
    const took = `${Math.round(nowMs() - began)} ms`;
    this.#turns += 1;
    const before = this.#fuzzers.get(name) ?? NOTHING;
    const one = { ...before, turns: before.turns + 1, runs: before.runs + runs };
    if (outcome.kind === 'held') {
      this.#fuzzers.set(name, { ...one, counts: sum(before.counts, outcome.counts) });
      if (note !== undefined) print(`${name}: seed ${seed}, ${runs} runs, held (${took})${note}`);
      return;
    }
    // Another hand may have had a turn of this fuzzer too: one failure is told.
    if (this.#failed.has(name)) return;
    this.#failed.add(name);
    this.#fuzzers.set(name, { ...one, failed: turn });
    print(`${name}: seed ${seed}, FAILED (${took})${note ?? ''}`);
    print(outcome.what);
    print(`to repeat: ${replayCommand(turn)}`);
    print('with the mend, add the seed to fuzz/seeds.json');
  }

  #tellProgress(): void {
    const minutes = Math.floor(this.#passedMs / PROGRESS_MS);
    if (minutes * PROGRESS_MS <= this.#toldMs) return;
    this.#toldMs = minutes * PROGRESS_MS;
    const failed = this.#failed.size === 0 ? 'all hold' : `failed: ${[...this.#failed].join(' ')}`;
    this.#plan.print(`fuzz: ${minutes} min, ${this.#turns} turns, ${failed}`);
  }

  /** Whether turns under way have had their time: those that are owed may go on. */
  get isOverdue(): boolean {
    const { seconds } = this.#plan;
    if (seconds === undefined || this.#owed > 0) return false;
    return this.#passedMs > seconds * 1000 + GRACE_MS;
  }

  end(): void {
    this.#isOver = true;
  }
}

export async function runFuzzers(plan: RunPlan): Promise<RunResult> {
  const { hands = [new OwnHand(plan.fuzzers)], signal } = plan;
  const run = new Run(plan);
  const stop = (): void => {
    run.end();
    for (const hand of hands) hand.stop();
  };
  signal?.addEventListener('abort', stop);
  const watch = setInterval(() => {
    if (run.isOverdue) stop();
  }, 500);
  try {
    const [first] = hands;
    if (first === undefined) throw new Error('a run needs a hand');
    await run.checkCanary(first);
    await Promise.all(hands.map((hand) => run.work(hand)));
  } finally {
    clearInterval(watch);
    signal?.removeEventListener('abort', stop);
  }
  return run.result;
}

/** A line for each fuzzer that counts something, then what became of all. */
export function summary({ turns, failed, seconds, fuzzers }: RunResult): readonly string[] {
  const lines: string[] = [];
  for (const [name, { counts, runs }] of fuzzers) {
    const told = countsText(counts);
    lines.push(`${name}: ${runs} runs${told === '' ? '' : `: ${told}`}`);
  }
  const end = failed.length === 0 ? '' : ` ${failed.join(' ')}`;
  lines.push(`fuzz: ${turns} turns in ${seconds} s, ${failed.length} fuzzers failed${end}`);
  return lines;
}
