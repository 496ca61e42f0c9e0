/**
 * Runs fuzzers: the canary first, then the seeds that ever failed, then new seeds.
 *
 * Invariants:
 *   - Nothing is random here: new seeds come from the first one, so a whole run can be repeated.
 *   - The first failure of a fuzzer ends that fuzzer, is printed with the command that repeats it,
 *     and does not keep the others from running.
 */
import { fuzzer as canary } from './canary.fuzz.ts';
import type { Counts, Fuzzer, FuzzOptions } from './options.ts';
import type { OldSeed } from './seeds.ts';

export interface RunPlan {
  readonly fuzzers: readonly Fuzzer[];
  readonly oldSeeds: readonly OldSeed[];
  /** The first new seed. */
  readonly seed: number;
  /** Cases in one turn of a fuzzer. */
  readonly runs: number;
  /** New turns go on until this time has passed; undefined: one turn each. */
  readonly seconds: number | undefined;
  readonly nowMs: () => number;
  readonly print: (line: string) => void;
}

export interface RunResult {
  readonly turns: number;
  readonly failed: readonly string[];
  /** What the turns did, by the name of the fuzzer. */
  readonly counts: ReadonlyMap<string, Counts>;
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

/** Round 0 gives `seed` itself; later ones are far from each other, and all are 32-bit. */
function seedAt(seed: number, round: number): number {
  return (seed + Math.imul(round, 0x9e3779b1)) | 0;
}

type Outcome = { readonly counts: Counts } | { readonly error: unknown };

async function outcomeOf(fuzzer: Fuzzer, options: FuzzOptions): Promise<Outcome> {
  try {
    return { counts: (await fuzzer.main(options)) ?? {} };
  } catch (error) {
    return { error };
  }
}

function replayCommand(name: string, { seed, runs }: FuzzOptions): string {
  return `npm run fuzz -- --name ${name} --seed ${seed} --runs ${runs}`;
}

class Run {
  readonly #plan: RunPlan;
  readonly #failed = new Set<string>();
  readonly counts = new Map<string, Counts>();
  turns = 0;

  constructor(plan: RunPlan) {
    this.#plan = plan;
  }

  get failed(): readonly string[] {
    return [...this.#failed];
  }

  async checkCanary(): Promise<void> {
    const options = { seed: this.#plan.seed, runs: 1000 };
    if ('error' in (await outcomeOf(canary, options))) return;
    this.#failed.add(canary.name);
    this.#plan.print('canary: it must fail and did not, so no result here means anything');
  }

  /** @param note - what to print with a turn that held; undefined: nothing */
  async turn(fuzzer: Fuzzer, options: FuzzOptions, note: string | undefined): Promise<void> {
    if (this.#failed.has(fuzzer.name)) return;
    const { print, nowMs } = this.#plan;
    const began = nowMs();
    const outcome = await outcomeOf(fuzzer, options);
    this.turns += 1;
    const took = `${Math.round(nowMs() - began)} ms`;
    if ('counts' in outcome) {
      this.counts.set(fuzzer.name, sum(this.counts.get(fuzzer.name) ?? {}, outcome.counts));
      if (note === undefined) return;
      print(`${fuzzer.name}: seed ${options.seed}, ${options.runs} runs, held (${took})${note}`);
      return;
    }
    this.#failed.add(fuzzer.name);
    const { error } = outcome;
    print(`${fuzzer.name}: seed ${options.seed}, FAILED (${took})${note ?? ''}`);
    print(error instanceof Error ? (error.stack ?? error.message) : String(error));
    print(`to repeat: ${replayCommand(fuzzer.name, options)}`);
    print('with the mend, add the seed to fuzz/seeds.json');
  }
}

/** Round after round of new seeds until the time is over; the first round is always whole. */
async function newTurns(run: Run, plan: RunPlan): Promise<void> {
  const began = plan.nowMs();
  const more = (): boolean => plan.nowMs() - began < (plan.seconds ?? 0) * 1000;
  for (let round = 0; ; round += 1) {
    const sound = plan.fuzzers.filter(({ name }) => !run.failed.includes(name));
    if (sound.length === 0) return;
    for (const fuzzer of sound) {
      if (round > 0 && !more()) return;
      const options = { seed: seedAt(plan.seed, round), runs: plan.runs };
      // A long run says what it began with, and then only what fails.
      await run.turn(fuzzer, options, round === 0 ? '' : undefined);
    }
  }
}

export async function runFuzzers(plan: RunPlan): Promise<RunResult> {
  const run = new Run(plan);
  await run.checkCanary();
  for (const old of plan.oldSeeds) {
    const fuzzer = plan.fuzzers.find(({ name }) => name === old.name);
    if (fuzzer !== undefined) await run.turn(fuzzer, old, `: ${old.note}`);
  }
  await newTurns(run, plan);
  return { turns: run.turns, failed: run.failed, counts: run.counts };
}
