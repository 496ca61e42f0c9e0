/**
 * The request loop of one connection: bytes in, requests admitted, payloads gathered.
 *
 * Invariants:
 *   - Nothing of a request with data is gathered or read before its bytes are reserved; until
 *     then the socket is paused, and what had come already waits in the backlog.
 *   - A request reaches the device whole or not at all.
 *   - A refused write is answered after its payload was consumed.
 *   - What a client asked for that ends without NBD_CMD_DISC is abandoned: a process that was killed
 *     ends so, and who takes its place may have written before a request that waits is applied.
 *   - What it asked for before an NBD_CMD_DISC that was read is done, though nobody may be left to be
 *     told; only who ends the session from this side cuts that short.
 *   - At most REQUESTS_IN_FLIGHT_MAX requests are unanswered or have their replies unsent.
 *
 * Source: doc/proto.md, section "Transmission".
 */
import { assert } from '../base/assert.ts';
import type { Account } from './budget.ts';
import { Executor } from './executor.ts';
import type { Session } from './handshake.ts';
import {
  DISCARD_BYTES_MAX,
  READ_BYTES_MAX,
  REQUESTS_IN_FLIGHT_MAX,
  STALL_BYTES_MIN,
} from './limits.ts';
import { Memory, type Store } from './memory.ts';
import * as nbd from './protocol.ts';
import { decodeRequest, refusalOf, type Request, type RequestBounds } from './request.ts';
import type { Shared } from './shared.ts';
import type { Socket } from './socket.ts';

export interface TransmissionOptions {
  readonly socket: Socket;
  readonly session: Session;
  readonly shared: Shared;
  readonly account: Account;
  readonly payloadBytesMax: number;
  /** The client broke the protocol: the session can't go on. */
  readonly onViolation: (what: string) => void;
  /** Closed, and the device has nothing of this connection in hand. */
  readonly onDone: () => void;
}

/** Open: requests are taken. Draining: none any more, those in hand are finished. Closed: gone. */
type State = 'open' | 'draining' | 'closed';

/** Why a request can't be admitted: no room in the budget, or too many replies on their way. */
interface Blocked {
  readonly request: Request;
  readonly by: 'budget' | 'replies';
}

export class Transmission {
  readonly #socket: Socket;
  readonly #account: Account;
  readonly #memory: Memory;
  readonly #executor: Executor;
  readonly #bounds: RequestBounds;
  readonly #onViolation: (what: string) => void;
  readonly #onDone: () => void;
  #state: State = 'open';
  #isClosing = false;
  #clientEnded = false;
  /** The client has said that it is done, and its last requests are served, heard of or not. */
  #hasParted = false;
  #socketEnded = false;
  /** Requests whose replies have not left yet. */
  #inFlight = 0;
  /** A header of which only a part has come. */
  #header: Uint8Array | undefined;
  #headerFilled = 0;
  /** The write whose payload is coming, and how much of it is there. */
  #filling: Request | undefined;
  #filled = 0;
  /** A store that the socket may still read into, though nobody wants the bytes any more. */
  #lent: Store | undefined;
  /** The refused write whose payload is thrown away, and how much is still to come. */
  #discarding: Request | undefined;
  #discardLeft = 0;
  #blocked: Blocked | undefined;
  /** What came after the blocked request. */
  #backlog: Uint8Array | undefined;
  #progress = 0;

  constructor(options: TransmissionOptions) {
    const { session, shared, socket } = options;
    const { device } = session.opened;
    this.#socket = socket;
    this.#account = options.account;
    this.#memory = new Memory(options.account, shared.spares);
    this.#onViolation = options.onViolation;
    this.#onDone = options.onDone;
    this.#bounds = {
      size: device.size,
      readOnly: device.readOnly,
      payloadBytesMax: options.payloadBytesMax,
      structured: session.structured,
      contexts: session.contexts.length,
    };
    this.#executor = new Executor({
      socket,
      session,
      bounds: this.#bounds,
      shared,
      onSent: (replies) => {
        this.#onSent(replies);
      },
      onIdle: () => {
        this.#onIdle();
      },
    });
  }

  data(bytes: Uint8Array): void {
    if (this.#state !== 'open') return;
    if (this.#blocked !== undefined) {
      const backlog = this.#backlog ?? new Uint8Array(0);
      this.#backlog = Buffer.concat([backlog, bytes]);
      return;
    }
    this.#consume(bytes);
    this.#executor.outbox.flush();
  }

  /** A large payload may come straight into its place. */
  target(): Uint8Array | undefined {
    const request = this.#filling;
    if (request?.store === undefined || this.#state !== 'open') return undefined;
    if (request.length - this.#filled < READ_BYTES_MAX) return undefined;
    const end = request.start + request.length;
    return request.store.bytes.subarray(request.start + this.#filled, end);
  }

  /** The client sends no more. */
  end(): void {
    this.#clientEnded = true;
    // What was said before, and is not looked at yet, may end with a farewell.
    if (this.#blocked === undefined) this.#hungUp();
  }

  /** The server is closing: what is in hand is finished, what still comes is refused. */
  shutdown(): void {
    this.#isClosing = true;
    this.#onIdle();
  }

  /** What the device has not applied yet is not waited for any more, farewell or not. */
  abandon(): void {
    this.#executor.abandon();
  }

  /** The stream is gone. */
  close(): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#account.cancel();
    this.#dropUnfinished();
    this.#lent?.release();
    this.#lent = undefined;
    if (!this.#hasParted) this.#executor.abandon();
    this.#executor.drop();
    this.#memory.idle();
    if (this.#executor.running === 0) this.#onDone();
  }

  /**
   * Undefined: nothing is held that waits for the client. Else a number that changes with every
   * STALL_BYTES_MIN bytes, and with everything that was finished.
   */
  get stallProgress(): number | undefined {
    const holds =
      this.#filling !== undefined || !this.#executor.outbox.isEmpty || this.#socketEnded;
    return holds ? Math.floor(this.#progress / STALL_BYTES_MIN) : undefined;
  }

  #consume(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.length && this.#state === 'open') {
      if (this.#filling !== undefined) {
        at = this.#fill(this.#filling, bytes, at);
        continue;
      }
      if (this.#discarding !== undefined) {
        at = this.#discard(this.#discarding, bytes, at);
        continue;
      }
      const isWhole = this.#headerFilled === 0 && bytes.length - at >= nbd.NBD_REQUEST_BYTES;
      let from = bytes;
      let start = at;
      if (isWhole) at += nbd.NBD_REQUEST_BYTES;
      else {
        from = this.#header ??= new Uint8Array(nbd.NBD_REQUEST_BYTES);
        start = 0;
        at = this.#gatherHeader(from, bytes, at);
        if (this.#headerFilled < nbd.NBD_REQUEST_BYTES) return;
        this.#headerFilled = 0;
      }
      const request = decodeRequest(from, start);
      if (request === undefined) {
        this.#violation('a request does not begin with its magic');
      } else if (!this.#admit(request)) {
        if (at < bytes.length) this.#backlog = Buffer.from(bytes.subarray(at));
        return;
      }
    }
  }

  #gatherHeader(header: Uint8Array, bytes: Uint8Array, at: number): number {
    const count = Math.min(nbd.NBD_REQUEST_BYTES - this.#headerFilled, bytes.length - at);
    header.set(bytes.subarray(at, at + count), this.#headerFilled);
    this.#headerFilled += count;
    return at + count;
  }

  /** @returns false: it is blocked now, and nothing after it may be looked at */
  #admit(request: Request): boolean {
    if (request.type === nbd.NBD_CMD_DISC) {
      this.#hasParted = true;
      this.#drain();
      return true;
    }
    if (this.#inFlight >= REQUESTS_IN_FLIGHT_MAX) {
      this.#block({ request, by: 'replies' });
      // The replies may all be here, waiting for this loop to come to its end.
      this.#executor.outbox.flush();
      return false;
    }
    const refusal = this.#isClosing ? 'ESHUTDOWN' : refusalOf(request, this.#bounds);
    if (refusal !== undefined) {
      request.refusal = refusal;
      this.#refuse(request);
      return true;
    }
    const bytes = this.#executor.storeBytes(request);
    if (bytes > 0) {
      request.store = this.#memory.take(bytes);
      if (request.store === undefined) {
        this.#block({ request, by: 'budget' });
        this.#account.wait(Memory.reservation(bytes), () => {
          request.store = this.#memory.takeReserved(bytes);
          request.start = 0;
          this.#socket.defer(this.#unblock);
        });
        return false;
      }
      request.start = request.store.used - bytes;
    }
    this.#begin(request);
    return true;
  }

  #begin(request: Request): void {
    this.#inFlight += 1;
    if (request.type === nbd.NBD_CMD_WRITE && request.length > 0) {
      this.#filling = request;
      this.#filled = 0;
    } else this.#executor.run(request);
  }

  #refuse(request: Request): void {
    const { type, length, refusal } = request;
    assert(refusal !== undefined, 'a refused request says why');
    if (type === nbd.NBD_CMD_WRITE && length > DISCARD_BYTES_MAX) {
      this.#violation(`a write of ${length} bytes`);
      return;
    }
    this.#inFlight += 1;
    if (type === nbd.NBD_CMD_WRITE && length > 0) {
      this.#discarding = request;
      this.#discardLeft = length;
    } else this.#executor.refuse(request, refusal);
  }

  #fill(request: Request, bytes: Uint8Array, at: number): number {
    const { store, start, length } = request;
    assert(store !== undefined, 'a write is filled into its store');
    const count = Math.min(length - this.#filled, bytes.length - at);
    const target = start + this.#filled;
    const place = store.bytes.byteOffset + target;
    const isInPlace = bytes.buffer === store.bytes.buffer && bytes.byteOffset + at === place;
    if (!isInPlace) {
      const whole = at === 0 && count === bytes.length;
      store.bytes.set(whole ? bytes : bytes.subarray(at, at + count), target);
    }
    this.#filled += count;
    this.#progress += count;
    if (this.#filled === length) {
      this.#filling = undefined;
      this.#progress += STALL_BYTES_MIN;
      this.#executor.run(request);
    }
    return at + count;
  }

  #discard(request: Request, bytes: Uint8Array, at: number): number {
    const count = Math.min(this.#discardLeft, bytes.length - at);
    this.#discardLeft -= count;
    if (this.#discardLeft === 0) {
      this.#discarding = undefined;
      assert(request.refusal !== undefined, 'what is thrown away was refused');
      this.#executor.refuse(request, request.refusal);
    }
    return at + count;
  }

  #block(blocked: Blocked): void {
    this.#blocked = blocked;
    this.#socket.pause();
  }

  /** What was blocked can go on, and so can what came after it. */
  readonly #unblock = (): void => {
    const blocked = this.#blocked;
    if (blocked === undefined) return;
    const { request } = blocked;
    this.#blocked = undefined;
    if (this.#state !== 'open') {
      request.store?.release();
      return;
    }
    const backlog = this.#backlog;
    this.#backlog = undefined;
    if (blocked.by === 'budget') this.#begin(request);
    else if (!this.#admit(request)) {
      this.#backlog = backlog;
      return;
    }
    if (backlog !== undefined) this.#consume(backlog);
    this.#executor.outbox.flush();
    this.#goOn();
  };

  /** Reads again, unless something else is in the way. */
  #goOn(): void {
    if (this.#blocked !== undefined || this.#state !== 'open') return;
    if (this.#clientEnded) this.#hungUp();
    else this.#socket.resume();
  }

  #onSent(replies: number): void {
    this.#inFlight -= replies;
    this.#progress += STALL_BYTES_MIN;
    if (this.#blocked?.by === 'replies' && this.#inFlight <= REQUESTS_IN_FLIGHT_MAX / 2) {
      this.#unblock();
    }
    if (this.#inFlight === 0) this.#memory.idle();
    this.#endIfDone();
  }

  #onIdle(): void {
    if (this.#state === 'closed') this.#onDone();
    else if (this.#isClosing && this.#executor.running === 0) this.#drain();
    else this.#endIfDone();
  }

  #hungUp(): void {
    if (!this.#hasParted) this.#executor.abandon();
    this.#drain();
  }

  #violation(what: string): void {
    this.#onViolation(what);
    this.#drain();
  }

  /** Takes no more requests; what is in hand is finished and answered. */
  #drain(): void {
    if (this.#state !== 'open') return;
    this.#state = 'draining';
    this.#dropUnfinished();
    this.#executor.outbox.flush();
    this.#endIfDone();
  }

  #endIfDone(): void {
    if (this.#state !== 'draining' || this.#socketEnded) return;
    if (this.#executor.running > 0 || !this.#executor.outbox.isEmpty) return;
    this.#socketEnded = true;
    this.#socket.end();
    // Whatever still comes is read and ignored, so that the client's end is seen.
    this.#socket.resume();
  }

  /** A request that is not whole never happened. */
  #dropUnfinished(): void {
    // The socket may have its place as the target of its next bytes, until it is gone.
    this.#lent ??= this.#filling?.store;
    this.#filling = undefined;
    this.#discarding = undefined;
    const blocked = this.#blocked;
    this.#blocked = undefined;
    this.#backlog = undefined;
    if (blocked !== undefined) {
      this.#account.cancel();
      blocked.request.store?.release();
    }
  }
}
