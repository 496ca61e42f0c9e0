/**
 * Brings admitted requests to the device and their answers to the outbox.
 *
 * Invariants:
 *   - Each request is answered once, or never when the stream is gone.
 *   - A payload's store is released when the device is done with it, a reply's when it was sent.
 *   - An error that is no VarveError is a bug, and is raised, not answered.
 *   - The device hears at once that the client is gone, unless that said farewell.
 */
import { assert } from '../base/assert.ts';
import { isVarveError, type Errno } from '../base/errors.ts';
import { byteCount, byteOffset } from '../base/units.ts';
import { UnreadableError } from '../base/unreadable.ts';
import type { BlockDevice, Done, WriteOptions, ZeroOptions } from '../device/block-device.ts';
import type { FixedContext, Session } from './handshake.ts';
import {
  CACHE_PIECE_BYTES,
  MESSAGE_BYTES_MAX,
  MESSAGE_UNSENT_BYTES_MAX,
  STATUS_RUNS_MAX,
} from './limits.ts';
import { Outbox } from './outbox.ts';
import * as nbd from './protocol.ts';
import { sendPartial } from './partial-read.ts';
import {
  encodeError,
  encodeNone,
  putOffsetData,
  putOffsetHole,
  putSimpleReply,
} from './replies.ts';
import { putStatus, statusBytes } from './replies.ts';
import { refusalText, type Request, type RequestBounds } from './request.ts';
import { raise, type Counters, type Shared } from './shared.ts';
import type { Socket } from './socket.ts';
import { letOthersRun, type Turns } from './turns.ts';
import { isZero } from './zeros.ts';

/** Zeros of this length and more are sent as a hole. */
const HOLE_BYTES_MIN = 4096;

const WRITE: readonly [WriteOptions, WriteOptions] = [{ fua: false }, { fua: true }];
const ZERO: readonly [ZeroOptions, ZeroOptions, ZeroOptions, ZeroOptions] = [
  { fua: false, allocate: false },
  { fua: true, allocate: false },
  { fua: false, allocate: true },
  { fua: true, allocate: true },
];

export interface ExecutorOptions {
  readonly socket: Socket;
  readonly session: Session;
  readonly bounds: RequestBounds;
  readonly shared: Shared;
  /** So many replies have left. */
  readonly onSent: (replies: number) => void;
  /** The device has nothing in hand any more. */
  readonly onIdle: () => void;
}

export class Executor {
  readonly outbox: Outbox;
  readonly #socket: Socket;
  readonly #device: BlockDevice;
  readonly #contexts: readonly FixedContext[];
  readonly #bounds: RequestBounds;
  readonly #counters: Counters;
  readonly #caches: Turns;
  readonly #statuses: Turns;
  readonly #structured: boolean;
  readonly #onIdle: () => void;
  #running = 0;
  #isAbandoned = false;
  #isDropped = false;

  constructor(options: ExecutorOptions) {
    this.#socket = options.socket;
    this.#device = options.session.opened.device;
    this.#contexts = options.session.contexts;
    this.#structured = options.session.structured;
    this.#bounds = options.bounds;
    this.#counters = options.shared.counters;
    this.#caches = options.shared.caches;
    this.#statuses = options.shared.statuses;
    this.#onIdle = options.onIdle;
    this.outbox = new Outbox(options.socket, options.onSent);
  }

  /** Requests that the device has in hand. */
  get running(): number {
    return this.#running;
  }

  /** The client is gone: what the device has not applied yet is refused. */
  abandon(): void {
    this.#isAbandoned = true;
    this.#device.abandon?.();
  }

  /** The stream is gone: what still runs comes to its end, and is answered to nobody. */
  drop(): void {
    this.#isDropped = true;
    this.outbox.drop();
  }

  /** Bytes that have to be reserved before it is run: its payload, its reply, or what it works in. */
  storeBytes(request: Request): number {
    const { type, length } = request;
    if (length === 0) return 0;
    switch (type) {
      case nbd.NBD_CMD_READ:
        return length + this.#readHeaderBytes;
      case nbd.NBD_CMD_WRITE:
        return length;
      case nbd.NBD_CMD_BLOCK_STATUS:
        return this.#contexts.length * statusBytes(runsMax(request));
      case nbd.NBD_CMD_CACHE:
        return Math.min(length, CACHE_PIECE_BYTES, this.#bounds.payloadBytesMax);
      default:
        return 0;
    }
  }

  get #readHeaderBytes(): number {
    return this.#structured ? nbd.NBD_OFFSET_DATA_BYTES : nbd.NBD_SIMPLE_REPLY_BYTES;
  }

  /** Runs a request whose payload is whole; the caller flushes what is answered at once. */
  run(request: Request): void {
    this.#counters.requests += 1;
    this.#running += 1;
    let done: Done;
    try {
      done = this.#ask(request);
    } catch (error) {
      this.#running -= 1;
      this.#fail(request, error);
      return;
    }
    if (done === undefined) {
      this.#running -= 1;
      this.#answer(request);
      return;
    }
    done.then(
      () => {
        this.#running -= 1;
        this.#answer(request);
        this.#later();
      },
      (error: unknown) => {
        this.#running -= 1;
        this.#fail(request, error);
        this.#later();
      },
    );
  }

  #later(): void {
    if (!this.#isDropped) this.outbox.flushSoon();
    if (this.#running === 0) this.#onIdle();
  }

  #ask(request: Request): Done {
    const { type, length, store, start, flags } = request;
    const fua = (flags & nbd.NBD_CMD_FLAG_FUA) === 0 ? 0 : 1;
    if (type === nbd.NBD_CMD_FLUSH) return this.#device.flush();
    if (length === 0) return undefined;
    const offset = byteOffset(request.offset ?? 0);
    switch (type) {
      case nbd.NBD_CMD_READ: {
        assert(store !== undefined, 'a read has room for its reply');
        const at = start + this.#readHeaderBytes;
        return this.#device.read(offset, store.bytes.subarray(at, at + length));
      }
      case nbd.NBD_CMD_WRITE:
        assert(store !== undefined, 'a write has its payload');
        return this.#device.write(offset, store.bytes.subarray(start, start + length), WRITE[fua]);
      case nbd.NBD_CMD_TRIM:
        return this.#device.trim(offset, byteCount(length), WRITE[fua]);
      case nbd.NBD_CMD_CACHE:
        return this.#caches.run(() => this.#cache(request));
      case nbd.NBD_CMD_WRITE_ZEROES: {
        const noHole = (flags & nbd.NBD_CMD_FLAG_NO_HOLE) !== 0;
        const options = noHole ? ZERO[fua === 0 ? 2 : 3] : ZERO[fua];
        return this.#device.zero(offset, byteCount(length), options);
      }
      default:
        assert(type === nbd.NBD_CMD_BLOCK_STATUS, 'what is unknown was refused');
        return this.#statuses.run(() => this.#askStatus(request));
    }
  }

  /** Piece by piece, and no more than a read may ask for; nothing for a client that is gone. */
  async #cache(request: Request): Promise<void> {
    const { store, start, length } = request;
    assert(store !== undefined, 'caching has memory to read into');
    const piece = this.storeBytes(request);
    const most = Math.min(length, this.#bounds.payloadBytesMax);
    const isWanted = (): boolean => !this.#isAbandoned && !this.#isDropped;
    for (let done = 0; done < most && isWanted(); done += piece) {
      const scratch = store.bytes.subarray(start, start + Math.min(piece, most - done));
      await this.#device.cache(byteOffset((request.offset ?? 0) + done), scratch);
      await letOthersRun(this.#socket);
    }
  }

  /**
   * Writes the answer into the request's store; `length` of the answer ends up in its `end`. For a
   * client that is gone there is none.
   */
  async #askStatus(request: Request): Promise<void> {
    const { store, start, length } = request;
    assert(store !== undefined, 'a status request has room for its reply');
    const offset = byteOffset(request.offset ?? 0);
    const most = runsMax(request);
    let at = start;
    for (const [index, { id, fixed }] of this.#contexts.entries()) {
      if (this.#isDropped) return;
      const runs = await this.#device.status(fixed, offset, byteCount(length), most);
      assert(runs.length <= most, 'no more status runs than were asked for');
      const done = index === this.#contexts.length - 1;
      at = putStatus(store.bytes, at, request, { id, runs, done });
      await letOthersRun(this.#socket);
    }
    request.end = at;
  }

  #answer(request: Request): void {
    const { store, type, length } = request;
    if (this.#isDropped) {
      store?.release();
      return;
    }
    switch (type) {
      case nbd.NBD_CMD_READ:
        this.#counters.bytesRead += length;
        this.#answerRead(request);
        return;
      case nbd.NBD_CMD_BLOCK_STATUS:
        assert(store !== undefined, 'a status answer lies in its store');
        this.outbox.stored(store, request.start, request.end);
        return;
      case nbd.NBD_CMD_WRITE:
        this.#counters.bytesWritten += length;
        break;
      default:
    }
    store?.release();
    this.outbox.ack(request, 0);
  }

  #answerRead(request: Request): void {
    const { store, start, length } = request;
    const offset = request.offset ?? 0;
    if (store === undefined) {
      if (this.#structured) this.outbox.bytes(encodeNone(request), 1);
      else this.outbox.ack(request, 0);
      return;
    }
    const end = start + this.#readHeaderBytes + length;
    if (!this.#structured) {
      putSimpleReply(store.bytes, start, request);
      this.outbox.stored(store, start, end);
      return;
    }
    const extent = { offset, length, done: true };
    const isHole = length >= HOLE_BYTES_MIN && isZero(store.bytes, end - length, end);
    if (isHole) {
      putOffsetHole(store.bytes, start, request, extent);
      this.outbox.stored(store, start, start + nbd.NBD_OFFSET_HOLE_BYTES);
    } else {
      putOffsetData(store.bytes, start, request, extent);
      this.outbox.stored(store, start, end);
    }
  }

  #fail(request: Request, error: unknown): void {
    if (!isVarveError(error)) {
      raise(error);
      request.store?.release();
      return;
    }
    const { store, type } = request;
    const isPartial = type === nbd.NBD_CMD_READ && error instanceof UnreadableError;
    if (isPartial && this.#structured && !this.#isDropped && store !== undefined) {
      this.#counters.errors += 1;
      sendPartial(this.outbox, request, this.#readHeaderBytes, error);
      request.store = undefined;
      return;
    }
    store?.release();
    request.store = undefined;
    this.#error(request, error.errno, error.message);
  }

  /** Answers a request that never reached the device. */
  refuse(request: Request, errno: Errno): void {
    this.#counters.requests += 1;
    this.#error(request, errno, refusalText(request, this.#bounds));
  }

  #error(request: Request, errno: Errno, message: string): void {
    this.#counters.errors += 1;
    if (this.#isDropped) return;
    const error = nbd.NBD_ERRORS[errno];
    if (!this.#structured) {
      this.outbox.ack(request, error);
      return;
    }
    const many = this.outbox.unsentBytes > MESSAGE_UNSENT_BYTES_MAX;
    const messageBytesMax = many ? 0 : MESSAGE_BYTES_MAX;
    this.outbox.bytes(encodeError(request, { error, message, messageBytesMax, done: true }), 1);
  }
}

function runsMax({ flags, length }: Request): number {
  return (flags & nbd.NBD_CMD_FLAG_REQ_ONE) === 0 ? Math.min(STATUS_RUNS_MAX, length) : 1;
}
