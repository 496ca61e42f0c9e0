/**
 * One client: first the handshake, then the requests. It owns the socket and the open export, and
 * ends when both are done with.
 */
import { unreachable } from '../base/assert.ts';
import { isVarveError } from '../base/errors.ts';
import type { ExportDirectory } from '../device/block-device.ts';
import type { Timers } from '../base/world.ts';
import type { Account } from './budget.ts';
import { closeDevice, payloadBytesMax } from './exports.ts';
import { HandshakeBuffer } from './handshake-buffer.ts';
import { shakeHands, type Session } from './handshake.ts';
import { HANDSHAKE_STALL_MS_MAX, REVOKE_GRACE_MS } from './limits.ts';
import { raise, type Shared } from './shared.ts';
import type { Socket, SocketEvents } from './socket.ts';
import { Transmission } from './transmission.ts';
import { letOthersRun } from './turns.ts';

export interface ConnectionOptions {
  readonly socket: Socket;
  readonly exports: ExportDirectory;
  readonly timers: Timers;
  readonly shared: Shared;
  /** The largest payload that fits the budget. */
  readonly payloadBytesMax: number;
  readonly handshakeTimeoutMs: number;
  /** How long a client may hold memory without moving. */
  readonly stallTimeoutMs: number;
  readonly trace: (line: string) => void;
  /** Nothing of this connection is left. */
  readonly onGone: (connection: Connection) => void;
}

type Phase =
  | { readonly kind: 'handshake'; readonly buffer: HandshakeBuffer }
  | { readonly kind: 'transmission'; readonly transmission: Transmission }
  /** The stream is gone, and the device may have requests in hand. */
  | { readonly kind: 'leaving'; readonly transmission: Transmission }
  | { readonly kind: 'over' };

const OVER: Phase = { kind: 'over' };

export class Connection implements SocketEvents {
  readonly #options: ConnectionOptions;
  #phase: Phase;
  #isClosing = false;
  #isSocketGone = false;
  #isTimedOut = false;
  /** Handshake and device: what must be over, beside the socket, before this is gone. */
  #isWorkDone = false;
  #cancelTimeout: () => void = () => undefined;
  readonly #account: Account;
  #mark: number | undefined;
  #stalledMs = 0;

  private constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#account = options.shared.budget.account();
    this.#phase = { kind: 'handshake', buffer: new HandshakeBuffer(options.socket) };
  }

  static start(options: ConnectionOptions): Connection {
    const connection = new Connection(options);
    connection.#start();
    return connection;
  }

  get isShakingHands(): boolean {
    return this.#phase.kind === 'handshake';
  }

  #start(): void {
    const { socket, timers, handshakeTimeoutMs } = this.#options;
    this.#cancelTimeout = timers.after(handshakeTimeoutMs, () => {
      this.cutOff('the handshake takes too long');
    });
    socket.start(this);
    if (this.#phase.kind === 'handshake') {
      this.#shakeHands(this.#phase.buffer).catch(raise);
    }
  }

  async #shakeHands(buffer: HandshakeBuffer): Promise<void> {
    const { exports, socket } = this.#options;
    const context = {
      exports,
      payloadBytesMax: this.#options.payloadBytesMax,
      lists: this.#options.shared.lists,
      letOthersRun: () => letOthersRun(socket),
      closing: () => this.#isClosing,
      revoke: (why: string) => {
        this.#revoke(why);
      },
    };
    let session: Session | undefined;
    try {
      session = await shakeHands(buffer, context);
    } catch (error) {
      if (!isVarveError(error)) throw error;
      this.#violation(error.message);
      socket.destroy();
    }
    this.#cancelTimeout();
    if (session === undefined) {
      this.#phase = OVER;
      this.#workDone();
      if (!this.#isSocketGone) this.#endSoon();
      return;
    }
    if (this.#isSocketGone) {
      await closeDevice(session.opened.device);
      this.#workDone();
      return;
    }
    this.#transmit(session, buffer);
  }

  #transmit(session: Session, buffer: HandshakeBuffer): void {
    const { shared, socket } = this.#options;
    const { device } = session.opened;
    const transmission = new Transmission({
      socket,
      session,
      shared,
      account: this.#account,
      payloadBytesMax: payloadBytesMax(device, this.#options.payloadBytesMax),
      onViolation: (what) => {
        this.#violation(what);
      },
      onDone: () => {
        closeDevice(device).then(() => {
          this.#workDone();
        }, raise);
      },
    });
    this.#phase = { kind: 'transmission', transmission };
    session.opened.onRevoke?.((why) => {
      this.#revoke(why);
    });
    this.#trace(`serves ${session.opened.canonicalName}`);
    const { rest, isEnded } = buffer.release();
    if (rest.length > 0) transmission.data(rest);
    if (isEnded) transmission.end();
    if (this.#isClosing) transmission.shutdown();
  }

  data(bytes: Uint8Array): void {
    const phase = this.#phase;
    if (phase.kind === 'transmission') phase.transmission.data(bytes);
    else if (phase.kind === 'handshake') phase.buffer.data(bytes);
  }

  target(): Uint8Array | undefined {
    return this.#phase.kind === 'transmission' ? this.#phase.transmission.target() : undefined;
  }

  end(): void {
    const phase = this.#phase;
    if (phase.kind === 'transmission') phase.transmission.end();
    else if (phase.kind === 'handshake') phase.buffer.end();
    else this.#options.socket.destroy();
  }

  close(): void {
    this.#isSocketGone = true;
    const phase = this.#phase;
    if (phase.kind === 'transmission') {
      // An end that was set goes on to hold: for what is done after a farewell.
      this.#phase = { kind: 'leaving', transmission: phase.transmission };
      phase.transmission.close();
    } else {
      this.#cancelTimeout();
      this.#phase = OVER;
      if (phase.kind === 'handshake') phase.buffer.close();
    }
    this.#goneIfDone();
  }

  /** The server is closing: what is in hand is finished. */
  shutdown(): void {
    this.#isClosing = true;
    if (this.#phase.kind === 'transmission') this.#phase.transmission.shutdown();
  }

  /** Ends it now; what the device has not applied yet is refused. */
  destroy(): void {
    const phase = this.#phase;
    if (phase.kind === 'transmission' || phase.kind === 'leaving') phase.transmission.abandon();
    this.#options.socket.destroy();
  }

  /** The export is taken from the client: what is in hand is finished, and then it ends. */
  #revoke(why: string): void {
    if (this.#isSocketGone && this.#phase.kind !== 'leaving') return;
    this.#trace(`${why}: session ended`);
    this.shutdown();
    this.#cancelTimeout();
    this.#cancelTimeout = this.#options.timers.after(REVOKE_GRACE_MS, () => {
      this.destroy();
    });
  }

  /** What it holds of the budget. */
  get held(): number {
    return this.#account.held;
  }

  /** How long it has held something that waits for its client, without any progress. */
  get stalledMs(): number {
    return this.#stalledMs;
  }

  /** Called at regular times: cuts off a client that holds memory and does not move. */
  tick(passedMs: number): void {
    const progress = this.#stallProgress;
    if (progress === undefined || progress !== this.#mark) {
      this.#mark = progress;
      this.#stalledMs = 0;
      return;
    }
    this.#stalledMs += passedMs;
    const { stallTimeoutMs } = this.#options;
    const isShakingHands = this.#phase.kind === 'handshake';
    const most = isShakingHands ? Math.min(HANDSHAKE_STALL_MS_MAX, stallTimeoutMs) : stallTimeoutMs;
    if (this.#stalledMs >= most) this.cutOff('the client does not move');
  }

  get #stallProgress(): number | undefined {
    const phase = this.#phase;
    switch (phase.kind) {
      case 'handshake':
        return phase.buffer.stallProgress;
      case 'transmission':
        return phase.transmission.stallProgress;
      case 'leaving':
      case 'over':
        return undefined;
      default:
        return unreachable(phase);
    }
  }

  /** Ends a connection whose client takes too long. */
  cutOff(why: string): void {
    if (this.#isSocketGone || this.#isTimedOut) return;
    this.#isTimedOut = true;
    this.#options.shared.counters.connectionsTimedOut += 1;
    this.#trace(`${why}: connection ended`);
    this.#options.socket.destroy();
  }

  /** Our end was said; a client that does not end its side is not waited for. */
  #endSoon(): void {
    const { socket, timers, handshakeTimeoutMs } = this.#options;
    socket.end();
    this.#cancelTimeout = timers.after(handshakeTimeoutMs, () => {
      socket.destroy();
    });
  }

  #violation(what: string): void {
    if (this.#isSocketGone) return;
    this.#options.shared.counters.violations += 1;
    this.#trace(what);
  }

  #workDone(): void {
    this.#isWorkDone = true;
    this.#goneIfDone();
  }

  #goneIfDone(): void {
    if (!this.#isWorkDone || !this.#isSocketGone) return;
    this.#cancelTimeout();
    this.#phase = OVER;
    this.#options.onGone(this);
  }

  #trace(what: string): void {
    this.#options.trace(`nbd ${this.#options.socket.name}: ${what}`);
  }
}
