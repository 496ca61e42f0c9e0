/**
 * Two ends of a byte stream in memory, as strict as the port of the sockets allows: bytes come in
 * pieces of any size, a lent buffer is spoilt as soon as its loan ends, little fits in between.
 */
import { assert } from '../../src/base/assert.ts';
import type { Socket, SocketEvents } from '../../src/nbd/socket.ts';

export interface PairOptions {
  /** Bytes that fit between the two ends, as a system's socket buffers do. */
  readonly capacity?: number;
  /** The size of the next piece; may be random. */
  readonly piece?: () => number;
}

const SPOILT = 0xdd;

export class FakeSocket implements Socket {
  readonly name: string;
  readonly #capacity: number;
  readonly #piece: () => number;
  #peer: FakeSocket | undefined;
  #events: SocketEvents | undefined;
  /** What is on its way to this end. */
  #incoming: Buffer[] = [];
  #incomingBytes = 0;
  #target: Uint8Array | undefined;
  #isPaused = false;
  #isScheduled = false;
  #outgoing: { pieces: Uint8Array[]; sent: () => void } | undefined;
  #ending: 'no' | 'asked' | 'sent' = 'no';
  #endSeen: 'no' | 'coming' | 'told' = 'no';
  #isGone = false;
  writes = 0;

  constructor(name: string, { capacity = 65536, piece }: PairOptions) {
    this.name = name;
    this.#capacity = capacity;
    this.#piece = piece ?? (() => 65536);
  }

  static pair(options: PairOptions = {}): { server: FakeSocket; client: FakeSocket } {
    const server = new FakeSocket('server end', options);
    const client = new FakeSocket('client end', options);
    server.#peer = client;
    client.#peer = server;
    return { server, client };
  }

  get isGone(): boolean {
    return this.#isGone;
  }

  /** Bytes that the other end has not taken yet. */
  get unheardBytes(): number {
    const peer = this.#peer;
    return peer === undefined ? 0 : peer.#incomingBytes;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  start(events: SocketEvents): void {
    this.#events = events;
    this.#schedule();
  }

  write(pieces: readonly Uint8Array[], sent: () => void): void {
    assert(this.#outgoing === undefined, 'one write at a time');
    assert(pieces.every(({ length }) => length > 0) && pieces.length > 0, 'a write has bytes');
    if (this.#isGone) return;
    if (this.#peer?.isGone === true) {
      // Nobody is there to take it: EPIPE.
      this.destroy();
      return;
    }
    this.writes += 1;
    this.#outgoing = { pieces: [...pieces], sent };
    this.#pump();
  }

  /** Moves what fits to the other end. */
  #pump(): void {
    const peer = this.#peer;
    const out = this.#outgoing;
    if (peer === undefined || out === undefined) return;
    while (out.pieces.length > 0 && peer.#incomingBytes < this.#capacity) {
      const first = out.pieces[0] ?? new Uint8Array(0);
      const count = Math.min(first.length, this.#capacity - peer.#incomingBytes);
      peer.#incoming.push(Buffer.from(first.subarray(0, count)));
      peer.#incomingBytes += count;
      if (count === first.length) out.pieces.shift();
      else out.pieces[0] = first.subarray(count);
    }
    peer.#schedule();
    if (out.pieces.length > 0) return;
    queueMicrotask(() => {
      if (this.#isGone || this.#outgoing !== out) return;
      this.#outgoing = undefined;
      out.sent();
      this.#sendEnd();
    });
  }

  #schedule(): void {
    if (this.#isScheduled || this.#events === undefined) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.#deliver();
    });
  }

  #deliver(): void {
    const events = this.#events;
    if (this.#isGone || this.#isPaused || events === undefined) return;
    const first = this.#incoming.shift();
    if (first !== undefined) {
      this.#deliverPiece(events, first);
      const peer = this.#peer;
      if (peer !== undefined) peer.#pump();
      this.#schedule();
    } else if (this.#endSeen === 'coming') {
      this.#endSeen = 'told';
      events.end();
      this.#closeIfBothEnded();
    }
  }

  #deliverPiece(events: SocketEvents, first: Buffer): void {
    const target = this.#target;
    const most = target?.length ?? Math.max(1, this.#piece());
    const count = Math.min(first.length, most);
    if (count < first.length) this.#incoming.unshift(first.subarray(count));
    this.#incomingBytes -= count;
    if (target !== undefined) {
      first.copy(target, 0, 0, count);
      events.data(target.subarray(0, count));
    } else {
      const lent = Buffer.from(first.subarray(0, count));
      events.data(lent);
      lent.fill(SPOILT);
    }
    // As Node does: it is asked now where the next bytes go, whenever they come.
    this.#target = events.target();
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    this.#schedule();
  }

  end(): void {
    if (this.#ending !== 'no') return;
    this.#ending = 'asked';
    this.#sendEnd();
  }

  #sendEnd(): void {
    if (this.#ending !== 'asked' || this.#outgoing !== undefined) return;
    this.#ending = 'sent';
    const peer = this.#peer;
    if (peer === undefined) return;
    peer.#endSeen = 'coming';
    peer.#schedule();
    this.#closeIfBothEnded();
  }

  #closeIfBothEnded(): void {
    if (this.#ending === 'sent' && this.#endSeen === 'told') this.destroy();
  }

  destroy(): void {
    if (this.#isGone) return;
    this.#isGone = true;
    this.#incoming = [];
    this.#outgoing = undefined;
    setImmediate(() => {
      this.#events?.close();
    });
    const peer = this.#peer;
    if (peer === undefined || peer.#isGone) return;
    if (peer.#endSeen === 'no') peer.#endSeen = 'coming';
    // What is on its way to the peer still arrives; what it was sending can't: ECONNRESET.
    if (peer.#outgoing === undefined) peer.#schedule();
    else peer.destroy();
  }

  defer(call: () => void): void {
    setImmediate(call);
  }
}
