/**
 * Byte streams of a simulated world: bytes take time, come in any pieces, and the stream may break
 * anywhere.
 *
 * Invariants:
 *   - Bytes arrive in order and once, or the stream ends.
 *   - No more than `capacity` bytes lie between two ends; a write's `sent` comes when its last byte
 *     has found its place there.
 *   - A piece is borrowed until `sent`, or until the stream's end: one that changed is reported.
 *   - An end of a life that is over changes nothing and hears nothing; its peer is reset.
 */
import { AssertionError } from 'node:assert';
import { assert } from '../../src/base/assert.ts';
import { crc32c } from '../../src/base/crc32c.ts';
import type { Socket, SocketEvents } from '../../src/nbd/socket.ts';
import type { Latency } from './medium.ts';
import type { Loss } from './power-supply.ts';
import type { SeededRandom } from './random.ts';
import type { SimWorld } from './sim-world.ts';

/** How bytes are cut: at random, one by one, or as long as they come. */
export type Cut = 'any' | 'byte' | 'whole';

export interface PairOptions {
  /** Bytes that fit between the ends, each way; 64 KiB if not given. */
  readonly capacity?: number;
  /** One way; 5 to 300 us if not given. */
  readonly latency?: Latency;
  readonly cut?: Cut;
  /** The stream breaks when so many bytes have passed, both ways together. */
  readonly resetAfterBytes?: number;
  /** Most bytes of one `data` at the server; 64 KiB if not given. */
  readonly pieceBytes?: () => number;
}

export interface NetworkCounters {
  pairs: number;
  bytes: number;
  pieces: number;
  ends: number;
  resets: number;
}

export const PIECE_BYTES_MAX = 65_536;
/** Between two steps of one end: some come at one instant. */
const STEP_US_MAX = 20;
/** How long a machine without power seems to be there. */
const SILENCE_US_MAX = 200_000;
const SPOILT = 0xdd;

/** Numbers of the digest. */
const NOTE = { write: 40, data: 41, end: 42, close: 43, break: 44 } as const;

function piecesChecksum(pieces: readonly Uint8Array[]): number {
  let crc = 0;
  for (const piece of pieces) crc = crc32c(piece, crc);
  return crc;
}

/** What two ends share. */
export interface Wire {
  readonly world: SimWorld;
  readonly counters: NetworkCounters;
  readonly random: SeededRandom;
  readonly latency: Latency;
  readonly capacity: number;
  bytesLeft: number;
  /** The end needs to hear of no loss of power any more. */
  readonly onGone: (end: SimSocket) => void;
}

interface Outgoing {
  readonly pieces: readonly Uint8Array[];
  readonly checksum: number;
  readonly sent: () => void;
  /** The piece that goes now, and how much of it has gone. */
  at: number;
  offset: number;
  /** Of what has gone. */
  copiedChecksum: number;
}

export class SimSocket implements Socket {
  readonly name: string;
  readonly #wire: Wire;
  readonly #pieceBytes: () => number;
  /** Its life is over, and what it does changes nothing. */
  readonly #isMute: () => boolean;
  readonly #id: number;
  #peer: SimSocket = this;
  #events: SocketEvents | undefined;
  /** Between the ends, on the way here: arrived, and sent but not arrived. */
  #arrived: Uint8Array[] = [];
  #arrivedBytes = 0;
  #travellingBytes = 0;
  #lastArrivalUs = 0;
  #target: Uint8Array | undefined;
  #outgoing: Outgoing | undefined;
  #isPaused = false;
  #isStalled = false;
  /** A piece may still come after `pause`. */
  #mayComeLate = false;
  #isDelivering = false;
  #isPumping = false;
  #ending: 'no' | 'asked' | 'sent' = 'no';
  #endSeen: 'no' | 'arrived' | 'told' = 'no';
  #isGone = false;
  /** How what comes here is cut, and what is sent from here; may change at any time. */
  cut: Cut;

  /** Package-private: `SimNetwork.pair` makes them. */
  constructor(
    wire: Wire,
    options: PairOptions,
    { id, name, isMute }: { id: number; name: string; isMute: () => boolean },
  ) {
    this.#wire = wire;
    this.#id = id;
    this.name = name;
    this.#isMute = isMute;
    this.cut = options.cut ?? 'any';
    this.#pieceBytes = options.pieceBytes ?? (() => PIECE_BYTES_MAX);
  }

  /** Package-private. */
  join(peer: SimSocket): void {
    this.#peer = peer;
  }

  get isGone(): boolean {
    return this.#isGone;
  }

  /** Nothing that was sent from here is looked at any more: the other end is gone, or its life is. */
  get isUnheard(): boolean {
    return this.#peer.#isGone || this.#peer.#isMute();
  }

  /** Bytes between the ends, on their way here. */
  get unreadBytes(): number {
    return this.#arrivedBytes + this.#travellingBytes;
  }

  // The port.

  start(events: SocketEvents): void {
    assert(this.#events === undefined, 'a socket is started once');
    this.#events = events;
    this.#deliverSoon();
  }

  write(pieces: readonly Uint8Array[], sent: () => void): void {
    if (this.#isMute()) return;
    assert(this.#outgoing === undefined, 'one write at a time');
    assert(this.#ending === 'no', 'nothing is written after the end');
    assert(pieces.length > 0 && pieces.every(({ length }) => length > 0), 'a write has bytes');
    if (this.#isGone) return;
    const checksum = piecesChecksum(pieces);
    this.#note(NOTE.write, pieces.length, checksum);
    this.#outgoing = { pieces: [...pieces], checksum, sent, at: 0, offset: 0, copiedChecksum: 0 };
    this.#pumpSoon();
  }

  pause(): void {
    this.#isPaused = true;
    this.#mayComeLate = this.#isDelivering && this.#wire.random.chance(0.3);
  }

  resume(): void {
    this.#isPaused = false;
    this.#deliverSoon();
  }

  end(): void {
    if (this.#ending !== 'no' || this.#isGone || this.#isMute()) return;
    this.#ending = 'asked';
    this.#sendEnd();
  }

  destroy(): void {
    if (this.#isGone || this.#isMute()) return;
    // A peer that had more to say is told that nobody heard it.
    const isRude = this.unreadBytes > 0 || this.#outgoing !== undefined;
    this.#outgoing = undefined;
    this.#vanish();
    const peer = this.#peer;
    if (isRude || this.#wire.random.chance(0.3)) {
      this.#later(this.#latencyUs(), () => {
        peer.#break();
      });
    } else if (this.#ending !== 'sent') peer.#endArrives();
    // What waits for room here waits in vain.
    peer.#pumpSoon();
  }

  defer(call: () => void): void {
    this.#later(this.#wire.random.below(STEP_US_MAX), () => {
      if (!this.#isMute()) call();
    });
  }

  // For tests: what networks, and peers that mean harm, do.

  /** The stream breaks, in the midst of whatever is on its way; each end hears it in its time. */
  reset(): void {
    for (const end of [this, this.#peer]) {
      this.#later(this.#latencyUs(), () => {
        end.#break();
      });
    }
  }

  /** Nothing is read here any more, whoever asks, until it is called with false. */
  stall(isStalled = true): void {
    this.#isStalled = isStalled;
    this.#deliverSoon();
  }

  /** Package-private: the life of this end is over. */
  lose(loss: Loss): void {
    if (this.#isMute()) this.#forget();
    else this.#break();
    const peer = this.#peer;
    const silenceUs = loss === 'cut' ? this.#wire.random.below(SILENCE_US_MAX) : 0;
    this.#later(silenceUs + this.#latencyUs(), () => {
      peer.#break();
    });
  }

  // Sending.

  #pumpSoon(): void {
    if (this.#isPumping || this.#outgoing === undefined) return;
    this.#isPumping = true;
    this.#later(this.#wire.random.below(STEP_US_MAX), () => {
      this.#isPumping = false;
      this.#pump();
    });
  }

  /** A part of what is written finds its place between the ends. */
  #pump(): void {
    const peer = this.#peer;
    const out = this.#outgoing;
    if (out === undefined || this.#isMute()) return;
    if (peer.#isGone) {
      // Nobody is there to take it: EPIPE.
      this.#break();
      return;
    }
    const room = peer.#isMute() ? 0 : this.#wire.capacity - peer.unreadBytes;
    const part = room > 0 ? this.#take(out, this.#cutTo(room)) : undefined;
    if (part === undefined) return;
    peer.#travels(part);
    this.#spend(part.length);
    if (out.at < out.pieces.length) this.#pumpSoon();
    else {
      this.#later(this.#wire.random.below(STEP_US_MAX), () => {
        this.#sent(out);
      });
    }
  }

  #take(out: Outgoing, most: number): Uint8Array {
    const parts: Uint8Array[] = [];
    let room = most;
    while (room > 0 && out.at < out.pieces.length) {
      const piece = out.pieces[out.at] ?? new Uint8Array(0);
      const part = piece.subarray(out.offset, out.offset + room);
      parts.push(part);
      room -= part.length;
      out.offset += part.length;
      if (out.offset < piece.length) continue;
      out.at += 1;
      out.offset = 0;
    }
    const copy = Buffer.concat(parts);
    out.copiedChecksum = crc32c(copy, out.copiedChecksum);
    return copy;
  }

  #sent(out: Outgoing): void {
    if (this.#outgoing !== out || this.#isMute()) return;
    this.#checkBorrowed();
    this.#outgoing = undefined;
    out.sent();
    this.#sendEnd();
  }

  /** Borrowed means unchanged: the system may read it at any time until it says so. */
  #checkBorrowed(): void {
    const out = this.#outgoing;
    if (out === undefined) return;
    const isWhole = out.at === out.pieces.length;
    const isSame = piecesChecksum(out.pieces) === out.checksum;
    if (isSame && (!isWhole || out.copiedChecksum === out.checksum)) return;
    const message = `broken invariant: a buffer keeps its content until it is sent (${this.name})`;
    this.#wire.world.fail(new AssertionError({ message }));
  }

  #sendEnd(): void {
    if (this.#ending !== 'asked' || this.#outgoing !== undefined) return;
    this.#ending = 'sent';
    this.#peer.#endArrives();
    this.#closeIfBothEnded();
  }

  /** Both ways together, so that a break falls anywhere in a conversation. */
  #spend(bytes: number): void {
    const wire = this.#wire;
    wire.counters.bytes += bytes;
    const isOver = wire.bytesLeft <= bytes;
    wire.bytesLeft -= bytes;
    if (isOver && wire.bytesLeft + bytes > 0) this.reset();
  }

  // Receiving.

  #travels(part: Uint8Array): void {
    this.#travellingBytes += part.length;
    this.#arrives(() => {
      this.#travellingBytes -= part.length;
      this.#arrived.push(part);
      this.#arrivedBytes += part.length;
    });
  }

  #endArrives(): void {
    this.#arrives(() => {
      if (this.#endSeen === 'no') this.#endSeen = 'arrived';
    });
  }

  /** In order: nothing overtakes what was sent before it. */
  #arrives(what: () => void): void {
    const { world } = this.#wire;
    const atUs = Math.max(this.#lastArrivalUs, world.nowUs + this.#latencyUs());
    // One instant has no order of its own.
    this.#lastArrivalUs = atUs + 1;
    this.#later(atUs - world.nowUs, () => {
      if (this.#isGone || this.#isMute()) return;
      what();
      this.#deliverSoon();
    });
  }

  get #hasNews(): boolean {
    return this.#arrivedBytes > 0 || this.#endSeen === 'arrived';
  }

  #deliverSoon(): void {
    if (this.#isDelivering || this.#events === undefined || !this.#hasNews) return;
    if (this.#isPaused || this.#isStalled) return;
    this.#isDelivering = true;
    this.#later(this.#wire.random.below(STEP_US_MAX), () => {
      this.#isDelivering = false;
      this.#deliver();
    });
  }

  #deliver(): void {
    const events = this.#events;
    if (events === undefined || this.#isGone || this.#isMute() || this.#isStalled) return;
    if (this.#isPaused && !this.#mayComeLate) return;
    this.#mayComeLate = false;
    if (this.#arrivedBytes > 0) {
      this.#deliverPiece(events);
      this.#peer.#pumpSoon();
    } else if (this.#endSeen === 'arrived') {
      this.#endSeen = 'told';
      this.#wire.counters.ends += 1;
      this.#note(NOTE.end);
      events.end();
      this.#closeIfBothEnded();
    }
    this.#deliverSoon();
  }

  #deliverPiece(events: SocketEvents): void {
    const target = this.#target;
    const most = target?.length ?? Math.max(1, this.#pieceBytes());
    const piece = this.#takeArrived(this.#cutTo(Math.min(this.#arrivedBytes, most)));
    const count = piece.length;
    this.#wire.counters.pieces += 1;
    this.#note(NOTE.data, count, crc32c(piece));
    if (target === undefined) {
      const lent = Buffer.from(piece);
      events.data(lent);
      lent.fill(SPOILT);
    } else {
      target.set(piece);
      events.data(target.subarray(0, count));
    }
    // As Node does: it is asked now where the next bytes go, whenever they come.
    this.#target = events.target();
  }

  #takeArrived(count: number): Uint8Array {
    const parts: Uint8Array[] = [];
    let left = count;
    while (left > 0) {
      const first = this.#arrived.shift() ?? new Uint8Array(0);
      const part = first.subarray(0, left);
      parts.push(part);
      left -= part.length;
      if (part.length < first.length) this.#arrived.unshift(first.subarray(part.length));
    }
    this.#arrivedBytes -= count;
    return Buffer.concat(parts);
  }

  /** From 1 to `most`: small and large ones alike. */
  #cutTo(most: number): number {
    const { random } = this.#wire;
    if (this.cut === 'byte') return 1;
    if (this.cut === 'whole' || random.chance(0.3)) return most;
    return Math.min(most, random.between(1, 2 ** random.below(18)));
  }

  // Ends.

  #closeIfBothEnded(): void {
    if (this.#ending === 'sent' && this.#endSeen === 'told') this.#vanish();
  }

  /** ECONNRESET, EPIPE, or the network's own fault. */
  #break(): void {
    if (this.#isGone || this.#isMute()) return;
    this.#wire.counters.resets += 1;
    this.#note(NOTE.break);
    this.#vanish();
  }

  /** Nothing comes any more but `close`. */
  #vanish(): void {
    this.#isGone = true;
    this.#later(this.#wire.random.below(STEP_US_MAX), () => {
      if (this.#isMute()) return;
      this.#note(NOTE.close);
      this.#checkBorrowed();
      this.#forget();
      this.#events?.close();
      this.#peer.#pumpSoon();
    });
  }

  #forget(): void {
    this.#outgoing = undefined;
    this.#target = undefined;
    this.#arrived = [];
    this.#arrivedBytes = 0;
    this.#wire.onGone(this);
  }

  #latencyUs(): number {
    const { usMin, usMax } = this.#wire.latency;
    return this.#wire.random.between(usMin, usMax);
  }

  #later(delayUs: number, call: () => void): void {
    this.#wire.world.schedule(delayUs, call);
  }

  #note(what: number, first = 0, second = 0): void {
    this.#wire.world.note(what, this.#id, first, second, this.unreadBytes);
  }
}
