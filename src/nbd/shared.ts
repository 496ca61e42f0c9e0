/** What the connections of one server share. */
import type { Budget } from './budget.ts';
import type { Spares } from './memory.ts';
import type { Turns } from './turns.ts';

/** Counts since the server began. */
export interface Counters {
  connections: number;
  /** Turned away at the limit, or while closing. */
  connectionsRefused: number;
  /** Ended for a stall or a handshake without end. */
  connectionsTimedOut: number;
  /** Ended since the client broke the protocol. */
  violations: number;
  requests: number;
  /** Requests that were answered with an error. */
  errors: number;
  bytesRead: number;
  bytesWritten: number;
}

export function noCounts(): Counters {
  return {
    connections: 0,
    connectionsRefused: 0,
    connectionsTimedOut: 0,
    violations: 0,
    requests: 0,
    errors: 0,
    bytesRead: 0,
    bytesWritten: 0,
  };
}

export interface Shared {
  readonly budget: Budget;
  readonly spares: Spares;
  /** For the answers to LIST. */
  readonly lists: Turns;
  /** For CACHE. */
  readonly caches: Turns;
  /** For BLOCK_STATUS. */
  readonly statuses: Turns;
  readonly counters: Counters;
}

/** A bug is not the client's affair: it stops the process, not the request. */
export function raise(error: unknown): void {
  queueMicrotask(() => {
    throw error;
  });
}
