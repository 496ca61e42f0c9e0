/**
 * A world in one process: virtual clock, virtual timers, seeded random. Time stands still while
 * code runs; when nothing more can run, the earliest event (timer or device completion) is next.
 *
 * Invariants:
 *   - One seed is one run: `digest` covers every device operation in its order, and repeats.
 *   - No real timer and no real I/O: whoever awaits those inside `run` is reported as a deadlock.
 *   - Time never goes back, except the wall clock by `jumpWall`.
 */
import { AssertionError } from 'node:assert';
import { assert } from '../../src/base/assert.ts';
import { crc32c } from '../../src/base/crc32c.ts';
import { checksum, micros, type Checksum } from '../../src/base/units.ts';
import type { Clock, Timers, World } from '../../src/base/world.ts';
import { EventQueue, type SimEvent } from './event-queue.ts';
import { SeededRandom } from './random.ts';

/** 2026-01-01T00:00:00Z: where the wall clock of every simulated world begins. */
export const SIM_WALL_US = 1_767_225_600_000_000;

/** A timer fires up to this much late, as real ones do. */
const TIMER_LATE_US_MAX = 200;

/** Rounds of the real event loop without an event due, after which a wait can't end any more. */
const IDLE_ROUNDS_MAX = 16;

export interface SimWorldOptions {
  /** Events that one `run` may take before it counts as a livelock. */
  readonly stepsMax?: number;
}

/** A round trip through the event loop. */
function wholeTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

/** Turns that are asked for at once: a round trip through the event loop costs as much as an event. */
const TURNS_AT_ONCE = 32;

/** Turns of the machine: between any two of them all microtasks run. */
class Turns {
  #left = 0;
  #resume: (() => void) | undefined;

  /** Settles when all microtasks have run, and what setImmediate was asked before. */
  next(): Promise<void> {
    if (this.#left === 0) {
      this.#left = TURNS_AT_ONCE;
      for (let i = 0; i < TURNS_AT_ONCE; i++) setImmediate(this.#turn);
    }
    return new Promise((resolve) => {
      this.#resume = resolve;
    });
  }

  readonly #turn = (): void => {
    this.#left -= 1;
    const resume = this.#resume;
    this.#resume = undefined;
    resume?.();
  };
}

export class SimWorld implements World {
  readonly seed: number;
  readonly clock: Clock;
  readonly timers: Timers;
  readonly random: SeededRandom;
  readonly #schedule: SeededRandom;
  readonly #events = new EventQueue();
  readonly #turns = new Turns();
  readonly #stepsMax: number;
  readonly #scratch = new Float64Array(6);
  readonly #scratchBytes = new Uint8Array(this.#scratch.buffer);
  #nowUs = 0;
  #wallOffsetUs = SIM_WALL_US;
  #sequence = 0;
  #steps = 0;
  #digest: Checksum = checksum(0);
  #running = false;
  #failure: Error | undefined;

  constructor(seed: number, options: SimWorldOptions = {}) {
    this.seed = seed;
    this.#stepsMax = options.stepsMax ?? 5_000_000;
    const root = new SeededRandom(seed);
    this.random = root.fork('world');
    this.#schedule = root.fork('schedule');
    this.clock = {
      wallUs: () => micros(this.#wallOffsetUs + this.#nowUs),
      monotonicUs: () => micros(this.#nowUs),
    };
    this.timers = { after: (delayMs, call) => this.timer(delayMs, call) };
  }

  /** Virtual microseconds since the world began. */
  get nowUs(): number {
    return this.#nowUs;
  }

  /** Events that ran so far. */
  get steps(): number {
    return this.#steps;
  }

  /** A running CRC of everything noted so far: equal for equal seeds. */
  get digest(): Checksum {
    return this.#digest;
  }

  /** An own random stream: the same for the same seed and label. */
  fork(label: string): SeededRandom {
    return new SeededRandom(this.seed).fork(label);
  }

  /** Adds up to five numbers, and the time, to the digest. */
  note(first: number, second = 0, third = 0, fourth = 0, fifth = 0): void {
    this.#scratch[0] = this.#nowUs;
    this.#scratch[1] = first;
    this.#scratch[2] = second;
    this.#scratch[3] = third;
    this.#scratch[4] = fourth;
    this.#scratch[5] = fifth;
    this.#digest = crc32c(this.#scratchBytes, this.#digest);
  }

  /** Sets the wall clock forward, or back for a negative `jumpUs`. */
  jumpWall(jumpUs: number): void {
    this.#wallOffsetUs += jumpUs;
  }

  /** Calls back once at `delayUs` from now; the returned function cancels, idempotently. */
  schedule(delayUs: number, call: () => void): () => void {
    assert(delayUs >= 0, 'an event lies in the future');
    this.#sequence += 1;
    // The draw decides between events of one instant, the sequence between equal draws.
    const tie = this.#schedule.next32() + this.#sequence / 2 ** 21;
    const event: SimEvent = { atUs: this.#nowUs + Math.ceil(delayUs), tie, call };
    this.#events.push(event);
    return () => {
      event.call = undefined;
    };
  }

  /** `Timers.after`, for whoever scopes timers to one life of a machine. */
  timer(delayMs: number, call: () => void): () => void {
    return this.schedule(
      Math.max(0, delayMs) * 1000 + this.#schedule.below(TIMER_LATE_US_MAX),
      call,
    );
  }

  sleep(delayUs: number): Promise<void> {
    return new Promise((resolve) => {
      this.schedule(delayUs, resolve);
    });
  }

  /** A broken invariant that no caller would see: the current `run` rejects with it. */
  fail(error: Error): void {
    this.#failure ??= error;
  }

  /** Runs the world until `work` has ended; gives its result. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    const ended: { outcome?: { value: T } | { error: unknown } } = {};
    const start = (): void => {
      work().then(
        (value) => {
          ended.outcome = { value };
        },
        (error: unknown) => {
          ended.outcome = { error };
        },
      );
    };
    await this.#loop(start, () => ended.outcome !== undefined, 'the work ends');
    const { outcome } = ended;
    assert(outcome !== undefined, 'the loop ends when the work has ended');
    if ('error' in outcome) throw outcome.error;
    return outcome.value;
  }

  /** Lets `delayUs` of virtual time pass, with all that happens in it. */
  async runFor(delayUs: number): Promise<void> {
    await this.run(() => this.sleep(delayUs));
  }

  /** Runs until nothing is due any more; never ends while timers arm themselves again. */
  async settle(): Promise<void> {
    await this.#loop(
      () => undefined,
      () => this.#events.peek() === undefined,
      'the world settles',
    );
  }

  async #loop(start: () => void, isDone: () => boolean, goal: string): Promise<void> {
    assert(!this.#running, 'one loop drives the world; inside `run`, use `sleep`');
    this.#running = true;
    const stepsEnd = this.#steps + this.#stepsMax;
    let idle = 0;
    try {
      start();
      for (;;) {
        // With nothing due it may be something real that is waited for.
        await (idle > 0 ? wholeTurn() : this.#turns.next());
        this.#throwFailure();
        if (isDone()) return;
        idle = this.#step() ? 0 : idle + 1;
        this.#throwFailure();
        if (idle > IDLE_ROUNDS_MAX) throw this.#stuck(goal, 'nothing is due any more');
        if (this.#steps > stepsEnd) throw this.#stuck(goal, `${this.#stepsMax} events ran`);
      }
    } finally {
      this.#running = false;
    }
  }

  #step(): boolean {
    const event = this.#events.pop();
    if (event === undefined) return false;
    const { call } = event;
    event.call = undefined;
    assert(event.atUs >= this.#nowUs, 'time never goes back');
    this.#nowUs = event.atUs;
    this.#steps += 1;
    call?.();
    return true;
  }

  #throwFailure(): void {
    const failure = this.#failure;
    if (failure === undefined) return;
    this.#failure = undefined;
    throw failure;
  }

  #stuck(goal: string, why: string): Error {
    const message = `broken invariant: ${goal} (seed ${this.seed}, ${this.#nowUs} us: ${why})`;
    return new AssertionError({ message });
  }
}
