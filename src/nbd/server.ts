/**
 * The NBD server: accepts streams, and keeps what all connections share. It knows no real socket;
 * `node-socket.ts` listens for it.
 */
import { assert } from '../base/assert.ts';
import type { ByteCount } from '../base/units.ts';
import type { Timers } from '../base/world.ts';
import type { ExportDirectory } from '../device/block-device.ts';
import { Budget } from './budget.ts';
import { Connection } from './connection.ts';
import {
  CACHES_MAX,
  CONNECTIONS_MAX,
  HANDSHAKE_MS_MAX,
  LISTS_MAX,
  READ_BYTES_MAX,
  READ_BYTES_MIN,
  STALL_MS_MAX,
  STALL_SHORT_MS_MAX,
  STALL_TICK_MS,
  STATUSES_MAX,
  UNREAD_BYTES_MAX,
} from './limits.ts';
import { Memory, Spares } from './memory.ts';
import { noCounts, type Counters, type Shared } from './shared.ts';
import type { Socket } from './socket.ts';
import { Turns } from './turns.ts';

export interface NbdServerOptions {
  readonly exports: ExportDirectory;
  readonly timers: Timers;
  /**
   * For payloads and replies of all connections. One request may have at most half of it, so for
   * payloads of 32 MiB it takes 68 MiB.
   */
  readonly payloadBudget: ByteCount;
  readonly connectionsMax?: number;
  readonly stallTimeoutMs?: number;
  readonly handshakeTimeoutMs?: number;
  readonly trace?: (line: string) => void;
}

/** When memory is short, one of so many stalled connections is ended at each tick. */
const CUT_OFF_PART = 2;
/** On closing, what clients that still shake hands get of the grace. */
const HANDSHAKE_GRACE_MS = 250;
/** How long the device may still have requests in hand whose connections were cut off. */
const AFTER_GRACE_MS = 250;

export class NbdServer {
  readonly #options: NbdServerOptions;
  readonly #shared: Shared;
  readonly #payloadBytesMax: number;
  readonly #connectionsMax: number;
  readonly #stallTimeoutMs: number;
  readonly #tickMs: number;
  readonly #connections = new Set<Connection>();
  #cancelTick: (() => void) | undefined;
  #closed: Promise<void> | undefined;
  #onEmpty: () => void = () => undefined;

  private constructor(options: NbdServerOptions) {
    const budget = Budget.create(options.payloadBudget);
    this.#options = options;
    this.#shared = {
      budget,
      spares: new Spares(),
      lists: new Turns(LISTS_MAX),
      caches: new Turns(CACHES_MAX),
      statuses: new Turns(STATUSES_MAX),
      counters: noCounts(),
    };
    this.#payloadBytesMax = Memory.payloadMax(budget.reservationMax);
    this.#connectionsMax = options.connectionsMax ?? CONNECTIONS_MAX;
    this.#stallTimeoutMs = options.stallTimeoutMs ?? STALL_MS_MAX;
    this.#tickMs = Math.min(STALL_TICK_MS, this.#stallTimeoutMs / 2);
    assert(this.#connectionsMax > 0, 'a server may have connections');
    assert(this.#tickMs > 0, 'a stall takes time');
  }

  static create(options: NbdServerOptions): NbdServer {
    return new NbdServer(options);
  }

  /** Connections at this time, those that shake hands included. */
  get connections(): number {
    return this.#connections.size;
  }

  /** What one socket may bring at a time: less when there are many. */
  get pieceBytes(): number {
    const share = Math.floor(UNREAD_BYTES_MAX / Math.max(1, this.connections));
    return Math.max(READ_BYTES_MIN, Math.min(READ_BYTES_MAX, share));
  }

  get counters(): Readonly<Counters> {
    return this.#shared.counters;
  }

  /** Bytes of payloads and replies in use, and the most that were ever. */
  get budget(): { readonly used: number; readonly usedMax: number; readonly waiting: number } {
    const { used, usedMax, waiting } = this.#shared.budget;
    return { used, usedMax, waiting };
  }

  /** Serves one client, from its greeting on; turns it away when there are too many. */
  accept(socket: Socket): void {
    const { counters } = this.#shared;
    if (this.#closed !== undefined || this.#connections.size >= this.#connectionsMax) {
      counters.connectionsRefused += 1;
      this.#options.trace?.(`nbd ${socket.name}: turned away, ${this.connections} connections`);
      socket.destroy();
      return;
    }
    counters.connections += 1;
    const connection = Connection.start({
      socket,
      exports: this.#options.exports,
      timers: this.#options.timers,
      shared: this.#shared,
      payloadBytesMax: this.#payloadBytesMax,
      handshakeTimeoutMs: this.#options.handshakeTimeoutMs ?? HANDSHAKE_MS_MAX,
      stallTimeoutMs: this.#stallTimeoutMs,
      trace: this.#options.trace ?? (() => undefined),
      onGone: (gone) => {
        this.#gone(gone);
      },
    });
    this.#connections.add(connection);
    this.#cancelTick ??= this.#options.timers.after(this.#tickMs, this.#tick);
  }

  /**
   * Accepts no more, lets requests in flight finish, answers ESHUTDOWN to new ones, then closes.
   * What is not finished after `graceMs` is cut off, and then a device that still has requests in
   * hand is not waited for. Idempotent.
   */
  close(graceMs: number): Promise<void> {
    this.#closed ??= this.#close(graceMs);
    return this.#closed;
  }

  async #close(graceMs: number): Promise<void> {
    const { timers } = this.#options;
    const empty = new Promise<void>((resolve) => {
      this.#onEmpty = resolve;
    });
    let cancelTooLate = (): void => undefined;
    const tooLate = new Promise<void>((resolve) => {
      cancelTooLate = timers.after(graceMs + AFTER_GRACE_MS, resolve);
    });
    const late = (isDue: (connection: Connection) => boolean) => (): void => {
      for (const connection of this.#connections) if (isDue(connection)) connection.destroy();
    };
    for (const connection of this.#connections) connection.shutdown();
    const cancelHandshakes = timers.after(
      Math.min(graceMs, HANDSHAKE_GRACE_MS),
      late((connection) => connection.isShakingHands),
    );
    const cancelGrace = timers.after(
      graceMs,
      late(() => true),
    );
    if (this.#connections.size > 0) await Promise.race([empty, tooLate]);
    cancelHandshakes();
    cancelGrace();
    cancelTooLate();
    this.#cancelTick?.();
    this.#cancelTick = undefined;
  }

  #gone(connection: Connection): void {
    this.#connections.delete(connection);
    if (this.#connections.size === 0) this.#onEmpty();
  }

  /** Runs only while there are connections: an idle server needs no clock. */
  readonly #tick = (): void => {
    this.#cancelTick = undefined;
    if (this.#connections.size === 0) return;
    for (const connection of this.#connections) connection.tick(this.#tickMs);
    if (this.#shared.budget.isShort) this.#cutOffStalled();
    this.#cancelTick = this.#options.timers.after(this.#tickMs, this.#tick);
  };

  /** Others wait for what stalled clients hold: those that hold most have to go. */
  #cutOffStalled(): void {
    const patienceMs = Math.min(STALL_SHORT_MS_MAX, this.#stallTimeoutMs);
    const stalled = [...this.#connections].filter(
      ({ held, stalledMs }) => held > 0 && stalledMs >= patienceMs,
    );
    const count = Math.ceil(stalled.length / CUT_OFF_PART);
    for (const connection of stalled.toSorted((a, b) => b.held - a.held).slice(0, count)) {
      connection.cutOff('others wait for what the client holds and does not move');
    }
  }
}
