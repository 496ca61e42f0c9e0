/**
 * An exploration: the states of a part of the history, each given to a check as a disposable disk,
 * several at a time; what fails is reduced to what explains it.
 *
 * Invariants:
 *   - One history, options and seed give one report, whatever the number of jobs, if the check is
 *     steady; a state that is not is told as such.
 *   - No state is judged by a disk that could not be read, or was full: that ends it, with what was
 *     found so far.
 */
import { assert } from '../base/assert.ts';
import { VarveError } from '../base/errors.ts';
import type { ByteCount, Generation } from '../base/units.ts';
import type { Clock } from '../base/world.ts';
import type { BlockDevice } from '../device/block-device.ts';
import type { RequestRecord } from '../device/request-record.ts';
import { ScratchDevice } from '../device/scratch-device.ts';
import {
  makeStretch,
  prefixState,
  StateKeys,
  type CrashState,
  type Stretch,
} from '../explore/crash-state.ts';
import { covers, explain, isSame, type Explanation, type Tester } from '../explore/explain.ts';
import { planStates, type Plan } from '../explore/plan.ts';
import { StateDevice } from '../explore/state-device.ts';
import type { Progress } from '../volume/report.ts';
import {
  toldFinding,
  toldState,
  type ExploreReport,
  type Finding,
  type Verdict,
} from './explore-report.ts';
import { MomentReader } from './moment-reader.ts';
import type { PinnedHistory } from './operations.ts';

export interface ExploreOptions {
  readonly statesMax: number;
  readonly seed: number;
  readonly torn: boolean;
  readonly jobs: number;
  /** Explanations after which no further one is looked for. */
  readonly findingsMax: number;
  /** What a check may write to a state. */
  readonly scratchBytes: ByteCount;
}

/** Judges a disk; what it did to it is thrown away. */
export interface Judge {
  /**
   * @param signal - ends the check early; what it answers then does not count
   * @throws VarveError CHECK_BAD when the command can not run at all
   */
  check(device: BlockDevice, signal: AbortSignal): Promise<Verdict>;
}

export interface ExploreAround {
  readonly judge: Judge;
  readonly clock: Clock;
  readonly progress: Progress;
  /** A person wants it to end. */
  readonly signal: AbortSignal;
}

export interface Explored {
  readonly report: ExploreReport;
  /** Why it ended early, beside an interruption. */
  readonly error: VarveError | undefined;
}

/** More would not fit the memory of a command. */
const REQUESTS_MAX = 200_000;
const BLOCKS_MAX = 4 * 1024 * 1024;
/** States list their requests: so many numbers in all. */
const LISTED_MAX = 32 * 1024 * 1024;
/** States that are looked at before those among them that failed are looked into. */
const BATCH_STATES = 64;

/**
 * @throws VarveError CHECK_BAD, HISTORY_TOO_LONG, and what reading the history throws, before any
 *   state was judged; later such errors are given back with the report
 */
export async function explore(
  history: PinnedHistory,
  options: ExploreOptions,
  around: ExploreAround,
): Promise<Explored> {
  const stretch = await readStretch(history, around.progress);
  const longest = stretch.epochs.reduce((most, { first, end }) => Math.max(most, end - first), 0);
  if (longest * options.statesMax > LISTED_MAX) {
    const most = `fewer than ${Math.floor(LISTED_MAX / longest)} states can be asked for`;
    throw new VarveError('HISTORY_TOO_LONG', `${longest} requests between two flushes: ${most}`);
  }
  const plan = planStates(stretch, options);
  const reader = new MomentReader(history);
  try {
    return await new Exploration({ history, options, around, stretch, plan, reader }).run();
  } finally {
    await reader.close();
  }
}

async function readStretch(history: PinnedHistory, progress: Progress): Promise<Stretch> {
  const { from, to } = history;
  const requests: RequestRecord[] = [];
  const flushes: Generation[] = [];
  let blocks = 0;
  for (let isEnd = false; !isEnd;) {
    const page = await history.requests(requests.at(-1)?.generation ?? from);
    isEnd = page.isEnd;
    flushes.push(...page.flushes);
    for (const request of page.requests) {
      requests.push(request);
      for (const { crcs } of request.parts) blocks += crcs?.length ?? 0;
    }
    if (requests.length > REQUESTS_MAX || blocks > BLOCKS_MAX) {
      const most = `at most ${REQUESTS_MAX} requests and ${BLOCKS_MAX} blocks`;
      throw new VarveError('HISTORY_TOO_LONG', `${to - from} requests; ${most}`);
    }
    // Throws when a person has had enough.
    progress(0, 0);
  }
  return makeStretch(from, requests, flushes);
}

interface Parts {
  readonly history: PinnedHistory;
  readonly options: ExploreOptions;
  readonly around: ExploreAround;
  readonly stretch: Stretch;
  readonly plan: Plan;
  readonly reader: MomentReader;
}

interface Failure {
  readonly state: CrashState;
  readonly verdict: Verdict;
}

interface Known {
  readonly explanation: Explanation;
  readonly verdict: Verdict;
  states: number;
}

/** What was asked for was ended; never leaves this module. */
class Ended extends Error {}

class Exploration {
  readonly #parts: Parts;
  readonly #keys: StateKeys;
  /** By key of the state; failing ones with what the check said. */
  readonly #verdicts = new Map<string, Verdict>();
  /** Positions of requests after which, with nothing missing, the check passed. */
  readonly #goodPrefixes = new Set<number>();
  readonly #known: Known[] = [];
  readonly #unstable: Finding[] = [];
  /** Failed, and not looked into yet. */
  readonly #waiting: Failure[] = [];
  #checked = 0;
  #failed = 0;
  #unexplained = 0;
  #checks = 0;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#keys = new StateKeys(parts.stretch);
  }

  async run(): Promise<Explored> {
    const { plan, around } = this.#parts;
    const startUs = around.clock.monotonicUs();
    let error: VarveError | undefined;
    try {
      await this.#needGoodStart();
      for (let at = 0; at < plan.states.length; at += BATCH_STATES) {
        await this.#batch(plan.states.slice(at, at + BATCH_STATES));
        for (let left = this.#waiting[0]; left !== undefined; left = this.#waiting[0]) {
          await this.#lookInto(left);
          this.#waiting.shift();
        }
      }
    } catch (thrown) {
      if (thrown instanceof VarveError && this.#checked > 0) error = thrown;
      else if (!(thrown instanceof Ended)) throw thrown;
    }
    return { report: this.#report((around.clock.monotonicUs() - startUs) / 1000), error };
  }

  /** Where the check fails from the beginning, nothing that is found would mean anything. */
  async #needGoodStart(): Promise<void> {
    const [start] = this.#parts.plan.states;
    assert(start?.present.length === 0, 'a plan begins with the start');
    const verdict = await this.#judge(start);
    if (verdict.isGood) return;
    const how = verdict.isLate
      ? 'does not end in time'
      : `ends with ${verdict.exitCode ?? 'a signal'}`;
    throw new VarveError(
      'CHECK_BAD',
      `it ${how} on the moment to begin from, generation ${this.#parts.history.from}: ` +
        verdict.output.trim().slice(-400),
    );
  }

  /** What fails waits to be looked into, in the order of the plan; also when this ends early. */
  async #batch(states: readonly CrashState[]): Promise<void> {
    const verdicts: (Verdict | undefined)[] = [];
    try {
      await this.#all(states, () => false, verdicts);
    } finally {
      for (const [at, state] of states.entries()) {
        const verdict = verdicts[at];
        if (verdict === undefined) continue;
        this.#checked += 1;
        if (verdict.isGood) continue;
        this.#failed += 1;
        this.#waiting.push({ state, verdict });
      }
    }
  }

  async #lookInto({ state, verdict }: Failure): Promise<void> {
    const { stretch, options } = this.#parts;
    const earlier = await this.#knownFor(state);
    if (earlier !== undefined) {
      earlier.states += 1;
      return;
    }
    if (this.#known.length + this.#unstable.length >= options.findingsMax) {
      this.#unexplained += 1;
      return;
    }
    const again = await this.#checkOnce(state);
    if (again.isGood) {
      this.#unstable.push(toldState(stretch, 'unstable', { state, verdict }));
      return;
    }
    const explanation = await explain(stretch, state, this.#tester);
    const same = this.#known.find((known) => isSame(known.explanation, explanation));
    if (same !== undefined) {
      same.states += 1;
      return;
    }
    const seen = this.#verdicts.get(this.#keys.of(explanation.witness)) ?? verdict;
    this.#known.push({ explanation, verdict: seen, states: 1 });
  }

  async #knownFor(state: CrashState): Promise<Known | undefined> {
    for (const known of this.#known) {
      const { explanation } = known;
      if (!covers(explanation, state)) continue;
      if (explanation.kind !== 'prefix' || (await this.#isBadSince(explanation, state)))
        return known;
    }
    return undefined;
  }

  /** Whether no prefix since the one that failed first is known to pass, up to the state's newest. */
  async #isBadSince({ present }: Explanation, state: CrashState): Promise<boolean> {
    const { epochs } = this.#parts.stretch;
    const newest = state.present.at(-1) ?? state.epoch.first - 1;
    const first = present.at(-1) ?? newest;
    for (const at of this.#goodPrefixes) if (at >= first && at < newest) return false;
    const whole = epochs.find(({ end }) => newest < end) ?? state.epoch;
    return !(await this.#judge(prefixState(whole, newest + 1))).isGood;
  }

  readonly #tester: Tester = {
    firstFailing: async (states) => {
      const verdicts = await this.#all(states, ({ isGood }) => !isGood);
      return states.find((_, at) => verdicts[at]?.isGood === false);
    },
  };

  /**
   * Judges them, several at a time.
   * @param verdicts - takes them as they come
   * @param isEnough - after such a one, those behind it are not begun
   */
  async #all(
    states: readonly CrashState[],
    isEnough: (verdict: Verdict) => boolean,
    verdicts: (Verdict | undefined)[] = [],
  ): Promise<readonly (Verdict | undefined)[]> {
    let next = 0;
    let end = states.length;
    const work = async (): Promise<void> => {
      try {
        while (next < end) {
          const at = next++;
          const state = states[at];
          assert(state !== undefined, 'a state is there');
          const verdict = await this.#judge(state);
          verdicts[at] = verdict;
          if (isEnough(verdict)) end = Math.min(end, at);
        }
      } catch (error) {
        end = 0;
        throw error;
      }
    };
    const jobs = Math.min(this.#parts.options.jobs, states.length);
    const ends = await Promise.allSettled(Array.from({ length: jobs }, work));
    for (const one of ends) if (one.status === 'rejected') throw one.reason;
    return verdicts;
  }

  async #judge(state: CrashState): Promise<Verdict> {
    const key = this.#keys.of(state);
    const known = this.#verdicts.get(key);
    if (known !== undefined) return known;
    const verdict = await this.#checkOnce(state);
    const isPrefix = state.kind === 'prefix' || state.kind === 'flush';
    const newest = state.present.at(-1);
    if (verdict.isGood && isPrefix && newest !== undefined) this.#goodPrefixes.add(newest);
    this.#verdicts.set(key, verdict.isGood ? { ...verdict, output: '' } : verdict);
    return verdict;
  }

  async #checkOnce(state: CrashState): Promise<Verdict> {
    const { history, reader, stretch, options, around } = this.#parts;
    const { signal } = around;
    if (signal.aborted) throw new Ended();
    const { size } = history;
    const below = new StateDevice(stretch, state, { size, read: reader.read });
    const device = new ScratchDevice(below, { bytesMax: options.scratchBytes });
    this.#checks += 1;
    const verdict = await around.judge.check(device, signal);
    if (signal.aborted) throw new Ended();
    if (reader.failure !== undefined) throw reader.failure;
    if (device.wasFull && !verdict.isGood) {
      throw new VarveError('CHECK_BAD', `it wrote more than ${options.scratchBytes} bytes`);
    }
    around.progress(this.#checks, Math.max(this.#parts.plan.states.length, this.#checks + 1));
    return verdict;
  }

  #report(tookMs: number): ExploreReport {
    const { history, stretch, plan, options, around } = this.#parts;
    const known = this.#known.map(({ explanation, ...rest }) =>
      toldFinding(stretch, explanation, rest),
    );
    const room = Math.max(0, options.findingsMax - known.length - this.#unstable.length);
    const raw = this.#waiting
      .slice(0, room)
      .map((failure) => toldState(stretch, 'unminimised', failure));
    return {
      from: history.from,
      to: history.to,
      requests: stretch.requests.length,
      flushes: stretch.flushes,
      allowed: Number.isSafeInteger(plan.allowed) ? plan.allowed : undefined,
      planned: plan.states.length,
      checked: this.#checked,
      failed: this.#failed,
      checksMore: this.#checks - this.#checked,
      isComplete: plan.isComplete && this.#checked === plan.states.length,
      isInterrupted: around.signal.aborted,
      unexplained: this.#unexplained + this.#waiting.length - raw.length,
      seed: options.seed,
      torn: options.torn,
      tookMs,
      statesPerSecond: tookMs > 0 ? (this.#checks * 1000) / tookMs : 0,
      findings: [...known, ...this.#unstable, ...raw],
    };
  }
}
