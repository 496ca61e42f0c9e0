/**
 * Replies on their way out. Those that are ready at one time leave together, and those whose
 * bytes lie side by side leave in one piece.
 *
 * Invariants:
 *   - One write is with the socket at a time, and it has a bounded size: so `sent` tells how fast
 *     the client reads.
 *   - A store is released when its last byte has gone to the system, or when all is dropped.
 */
import { ACK_PAGE_BYTES, BATCH_BYTES_MAX } from './limits.ts';
import type { Store } from './memory.ts';
import { NBD_SIMPLE_REPLY_BYTES } from './protocol.ts';
import { putSimpleReply, type Cookie } from './replies.ts';
import type { Socket } from './socket.ts';

interface Piece {
  readonly bytes: Buffer;
  start: number;
  end: number;
  readonly store: Store | undefined;
  /** Replies that end in this piece. */
  replies: number;
}

export class Outbox {
  readonly #socket: Socket;
  readonly #onSent: (replies: number) => void;
  #queue: Piece[] = [];
  #last: Piece | undefined;
  #queuedBytes = 0;
  #sending: Piece[] = [];
  #sendingBytes = 0;
  #isSending = false;
  #isScheduled = false;
  #page: Buffer | undefined;
  #pageUsed = 0;

  /** @param onSent - called with the number of replies that have left whole */
  constructor(socket: Socket, onSent: (replies: number) => void) {
    this.#socket = socket;
    this.#onSent = onSent;
  }

  get unsentBytes(): number {
    return this.#queuedBytes + this.#sendingBytes;
  }

  get isEmpty(): boolean {
    return !this.#isSending && this.#queue.length === 0;
  }

  /** A simple reply without data. */
  ack(cookie: Cookie, error: number): void {
    let page = this.#page;
    if (page === undefined || this.#pageUsed === ACK_PAGE_BYTES) {
      page = Buffer.allocUnsafeSlow(ACK_PAGE_BYTES);
      this.#page = page;
      this.#pageUsed = 0;
    }
    const start = this.#pageUsed;
    const end = start + NBD_SIMPLE_REPLY_BYTES;
    putSimpleReply(page, start, cookie, error);
    this.#pageUsed = end;
    this.#queuedBytes += NBD_SIMPLE_REPLY_BYTES;
    const last = this.#last;
    if (last?.bytes === page && last.end === start) {
      last.end = end;
      last.replies += 1;
    } else this.#push({ bytes: page, start, end, store: undefined, replies: 1 });
  }

  /** A whole reply, or with `replies: 0` a part of one, in bytes of its own. */
  bytes(bytes: Buffer, replies: number): void {
    this.#queuedBytes += bytes.length;
    this.#push({ bytes, start: 0, end: bytes.length, store: undefined, replies });
  }

  /** Bytes of a store, one pin of which becomes the outbox's; `replies` end in them. */
  stored(store: Store, start: number, end: number, replies = 1): void {
    this.#queuedBytes += end - start;
    const last = this.#last;
    if (last?.store === store && last.end === start) {
      last.end = end;
      last.replies += replies;
      // The piece has a pin of its own already.
      store.release();
    } else this.#push({ bytes: store.bytes, start, end, store, replies });
  }

  #push(piece: Piece): void {
    this.#queue.push(piece);
    this.#last = piece;
  }

  /** Sends soon, with whatever else gets ready until then. */
  flushSoon(): void {
    if (this.#isScheduled || this.#isSending) return;
    this.#isScheduled = true;
    this.#socket.defer(this.#flushScheduled);
  }

  readonly #flushScheduled = (): void => {
    this.#isScheduled = false;
    this.flush();
  };

  /** Sends what is there, unless a write is under way: then what is there follows it. */
  flush(): void {
    if (this.#isSending || this.#queue.length === 0) return;
    if (this.#queuedBytes <= BATCH_BYTES_MAX) {
      this.#sending = this.#queue;
      this.#sendingBytes = this.#queuedBytes;
      this.#queue = [];
    } else this.#cutBatch();
    this.#queuedBytes -= this.#sendingBytes;
    this.#last = undefined;
    this.#isSending = true;
    const views: Uint8Array[] = [];
    for (const { bytes, start, end } of this.#sending) views.push(bytes.subarray(start, end));
    this.#socket.write(views, this.#sent);
  }

  /** Takes a batch off a long queue; a long piece is cut, and its store stays with the rest. */
  #cutBatch(): void {
    this.#sending = [];
    this.#sendingBytes = 0;
    let taken = 0;
    for (const piece of this.#queue) {
      const room = BATCH_BYTES_MAX - this.#sendingBytes;
      const length = piece.end - piece.start;
      // A long piece begins a batch of its own, sooner than it is cut.
      if (room === 0 || (length > room && room < BATCH_BYTES_MAX / 2)) break;
      if (length > room) {
        const end = piece.start + room;
        this.#sending.push({ ...piece, end, store: undefined, replies: 0 });
        piece.start = end;
        this.#sendingBytes += room;
        break;
      }
      this.#sending.push(piece);
      this.#sendingBytes += length;
      taken += 1;
    }
    this.#queue.splice(0, taken);
  }

  readonly #sent = (): void => {
    if (!this.#isSending) return;
    const pieces = this.#sending;
    this.#sending = [];
    this.#sendingBytes = 0;
    this.#isSending = false;
    if (this.#queue.length === 0) this.#pageUsed = 0;
    let replies = 0;
    for (const piece of pieces) {
      replies += piece.replies;
      piece.store?.release();
    }
    this.flush();
    this.#onSent(replies);
  };

  /** The stream is gone: releases everything. */
  drop(): void {
    const pieces = [...this.#sending, ...this.#queue];
    this.#sending = [];
    this.#queue = [];
    this.#last = undefined;
    this.#isSending = false;
    this.#sendingBytes = 0;
    this.#queuedBytes = 0;
    for (const { store } of pieces) store?.release();
  }
}
