/**
 * Who works through turns: this process, or processes of its own, one for each core, so that a
 * fuzzer that brings its process down, or never ends, is a failed turn and not the run's end.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { fuzzer as canary } from './canary.fuzz.ts';
import { outcomeOf, type Fuzzer, type Outcome, type Turn } from './options.ts';

export interface Hand {
  /** One turn at a time. */
  run(turn: Turn): Promise<Outcome>;
  /** Ends the turn under way, which is then `stopped`. */
  stop(): void;
}

/** Turns in this process: for one seed that is looked at, and for tests. */
export class OwnHand implements Hand {
  readonly #fuzzers: readonly Fuzzer[];
  #stop: () => void = () => undefined;
  readonly #stopped = new Promise<Outcome>((resolve) => {
    this.#stop = () => {
      resolve({ kind: 'stopped' });
    };
  });

  constructor(fuzzers: readonly Fuzzer[]) {
    this.#fuzzers = [...fuzzers, canary];
  }

  run(turn: Turn): Promise<Outcome> {
    const fuzzer = this.#fuzzers.find(({ name }) => name === turn.name);
    if (fuzzer === undefined) throw new Error(`no fuzzer is called ${turn.name}`);
    const { seed, runs } = turn;
    return Promise.race([outcomeOf(fuzzer, { seed, runs }), this.#stopped]);
  }

  stop(): void {
    this.#stop();
  }
}

function isOutcome(message: unknown): message is Outcome {
  if (typeof message !== 'object' || message === null || !('kind' in message)) return false;
  return message.kind === 'held' ? 'counts' in message : message.kind === 'failed';
}

export interface ProcessHandOptions {
  /** The program: it takes turns as messages, and answers each; see worker.ts. */
  readonly script: string;
  /** A turn that takes longer hangs. */
  readonly turnMsMax: number;
}

/** Turns in a process that is started when it is needed, and anew after it fell. */
export class ProcessHand implements Hand {
  readonly #options: ProcessHandOptions;
  #child: ChildProcess | undefined;
  #isStopped = false;

  constructor(options: ProcessHandOptions) {
    this.#options = options;
  }

  async run(turn: Turn): Promise<Outcome> {
    if (this.#isStopped) return { kind: 'stopped' };
    const { script, turnMsMax } = this.#options;
    const child = (this.#child ??= fork(script, {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    }));
    const outcome = await new Promise<Outcome>((resolve) => {
      const fail = (what: string): void => {
        this.#child = undefined;
        resolve(this.#isStopped ? { kind: 'stopped' } : { kind: 'failed', what });
      };
      const timer = setTimeout(() => {
        fail(`the turn takes longer than ${turnMsMax / 60_000} minutes`);
        child.kill('SIGKILL');
      }, turnMsMax);
      child.once('message', (message) => {
        clearTimeout(timer);
        resolve(isOutcome(message) ? message : { kind: 'failed', what: 'no answer of a worker' });
      });
      child.once('error', (error) => {
        clearTimeout(timer);
        fail(error.message);
      });
      child.once('exit', (code, signal) => {
        clearTimeout(timer);
        fail(`its process ended: ${signal ?? `exit code ${code}`}; what it said stands above`);
      });
      child.send(turn);
    });
    child.removeAllListeners();
    return outcome;
  }

  stop(): void {
    this.#isStopped = true;
    this.#child?.kill('SIGKILL');
  }
}
