/**
 * The outside world is an argument: clock, timers and random come in here, files and sockets
 * through the ports of `src/device` and `src/nbd`. One seed of a simulated world is one run.
 */
import type { Micros } from './units.ts';

export interface Clock {
  /** Wall clock, microseconds since 1970; may jump in either direction. */
  wallUs(): Micros;
  /** Monotonic, microseconds since any fixed start; never goes back. */
  monotonicUs(): Micros;
}

export interface Timers {
  /** Calls back once after about `delayMs`; the returned function cancels, idempotently. */
  after(delayMs: number, call: () => void): () => void;
}

export interface Random {
  /** Uniform bytes; identities need 16 of them. */
  bytes(count: number): Uint8Array;
}

export interface World {
  readonly clock: Clock;
  readonly timers: Timers;
  readonly random: Random;
}
