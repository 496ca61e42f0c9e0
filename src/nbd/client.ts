/**
 * An NBD client over a byte stream: for tests, for replication, for tools. Many requests may be
 * in flight at a time.
 *
 * Invariants:
 *   - Every request settles: with its reply, or with SERVER_GONE or PROTOCOL when the stream ends.
 *   - A source is borrowed until its request has settled, which is not before it was sent: a server
 *     may answer while what was queued behind is still on its way from our buffers.
 */
import { isVarveError, VarveError, type Errno } from '../base/errors.ts';
import type { UnreadableRange } from '../base/unreadable.ts';
import type { ExportListing } from '../device/block-device.ts';
import {
  clientHandshake,
  clientList,
  type ClientOptions,
  type ExportInfo,
} from './client-handshake.ts';
import { missingOf, ReplyReader, type Pending, type ReplyError } from './client-replies.ts';
import { Coverage } from './coverage.ts';
import { HandshakeBuffer } from './handshake-buffer.ts';
import * as nbd from './protocol.ts';
import { encodeRequest } from './request.ts';
import type { Socket, SocketEvents } from './socket.ts';
import { protocolError } from './wire.ts';

/** A request that the server answered with an error. */
export class NbdError extends Error {
  readonly errno: Errno;
  /** Where it failed, if the server said so. */
  readonly offset: number | undefined;
  /** Of a read, if the server said so exactly: what could not be read; the rest was filled. */
  readonly missing: readonly UnreadableRange[] | undefined;

  constructor({ errno, message, offset }: ReplyError, missing?: readonly UnreadableRange[]) {
    super(message === '' ? errno : `${errno}: ${message}`);
    this.name = 'NbdError';
    this.errno = errno;
    this.offset = offset;
    this.missing = missing;
  }
}

export interface StatusRuns {
  readonly length: number;
  readonly flags: number;
}

interface Command {
  readonly type: number;
  readonly flags?: number;
  readonly offset?: number;
  readonly length?: number;
  readonly source?: Uint8Array;
  readonly target?: Buffer;
}

export interface FuaOption {
  readonly fua?: boolean;
}

export interface ZeroFlags extends FuaOption {
  readonly noHole?: boolean;
  readonly fast?: boolean;
}

const fuaFlag = ({ fua }: FuaOption): number => (fua === true ? nbd.NBD_CMD_FLAG_FUA : 0);

export class NbdClient implements SocketEvents {
  readonly #socket: Socket;
  readonly #buffer: HandshakeBuffer;
  readonly #pending = new Map<number, Pending>();
  readonly #reader = new ReplyReader(this.#pending);
  #info: ExportInfo | undefined;
  #cookie = 0;
  #queue: Uint8Array[] = [];
  /** Called when what is in the queue has been sent. */
  #afterQueue: (() => void)[] = [];
  /** Requests that were answered before their source was sent. */
  readonly #answered = new Set<() => void>();
  #isSending = false;
  #failure: VarveError | undefined;
  #onClosed: () => void = () => undefined;
  readonly #closed = new Promise<void>((resolve) => {
    this.#onClosed = resolve;
  });

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#buffer = new HandshakeBuffer(socket);
  }

  /** @throws VarveError VOLUME_UNKNOWN, CLOSED, PROTOCOL, SERVER_GONE */
  static async connect(socket: Socket, options: ClientOptions = {}): Promise<NbdClient> {
    const client = new NbdClient(socket);
    socket.start(client);
    try {
      client.#info = await clientHandshake(client.#buffer, options);
    } catch (error) {
      socket.destroy();
      throw error;
    }
    const { rest, isEnded } = client.#buffer.release();
    client.data(rest);
    if (isEnded) client.#ended();
    return client;
  }

  static async list(socket: Socket): Promise<readonly ExportListing[]> {
    const client = new NbdClient(socket);
    socket.start(client);
    try {
      return await clientList(client.#buffer);
    } finally {
      socket.destroy();
    }
  }

  get info(): ExportInfo {
    if (this.#info === undefined) throw protocolError('the handshake is not over');
    return this.#info;
  }

  get size(): number {
    return this.info.size;
  }

  get inFlight(): number {
    return this.#pending.size;
  }

  async read(offset: number, length: number, flags = 0): Promise<Buffer> {
    const target = Buffer.allocUnsafe(length);
    await this.readInto(offset, target, flags);
    return target;
  }

  /**
   * Fills `target`, which is borrowed until this settles.
   * @throws NbdError; with its `missing` all other bytes were filled, else none counts
   */
  async readInto(offset: number, target: Uint8Array, flags = 0): Promise<void> {
    const { length } = target;
    const view = Buffer.from(target.buffer, target.byteOffset, length);
    await this.#ask({ type: nbd.NBD_CMD_READ, flags, offset, length, target: view });
  }

  async write(offset: number, source: Uint8Array, options: FuaOption = {}): Promise<void> {
    const { length } = source;
    const flags = fuaFlag(options);
    await this.#ask({ type: nbd.NBD_CMD_WRITE, flags, offset, length, source });
  }

  async flush(): Promise<void> {
    await this.#ask({ type: nbd.NBD_CMD_FLUSH });
  }

  async trim(offset: number, length: number, options: FuaOption = {}): Promise<void> {
    await this.#ask({ type: nbd.NBD_CMD_TRIM, flags: fuaFlag(options), offset, length });
  }

  async cache(offset: number, length: number): Promise<void> {
    await this.#ask({ type: nbd.NBD_CMD_CACHE, offset, length });
  }

  async zero(offset: number, length: number, options: ZeroFlags = {}): Promise<void> {
    const flags =
      fuaFlag(options) |
      (options.noHole === true ? nbd.NBD_CMD_FLAG_NO_HOLE : 0) |
      (options.fast === true ? nbd.NBD_CMD_FLAG_FAST_ZERO : 0);
    await this.#ask({ type: nbd.NBD_CMD_WRITE_ZEROES, flags, offset, length });
  }

  /** Status runs by the name of the context. */
  async status(
    offset: number,
    length: number,
    flags = 0,
  ): Promise<ReadonlyMap<string, readonly StatusRuns[]>> {
    const { status } = await this.#ask({ type: nbd.NBD_CMD_BLOCK_STATUS, flags, offset, length });
    const named = this.info.contexts.map(({ id, name }) => [name, status?.get(id) ?? []] as const);
    return new Map(named);
  }

  /** Any request at all, for tests of what a server does with it. */
  async command(command: Command): Promise<void> {
    await this.#ask(command);
  }

  /** Says DISC, and waits for the server's end; what is in flight is answered first. */
  async disconnect(): Promise<void> {
    if (this.#failure === undefined) {
      this.#send([encodeRequest({ type: nbd.NBD_CMD_DISC, cookie: 0 })]);
    }
    await this.#closed;
  }

  /** Ends the connection now. */
  destroy(): void {
    this.#socket.destroy();
  }

  #ask(command: Command): Promise<Pending> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    this.#cookie += 1;
    const cookie = this.#cookie;
    const { offset = 0, length = 0, target, source } = command;
    const hasSource = source !== undefined && source.length > 0;
    let isSent = !hasSource;
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        const { error } = pending;
        if (error === undefined) resolve(pending);
        else reject(new NbdError(error, missingOf(pending)));
      };
      const pending: Pending = {
        offset,
        length,
        target,
        coverage: new Coverage(),
        error: undefined,
        came: undefined,
        placed: undefined,
        status: command.type === nbd.NBD_CMD_BLOCK_STATUS ? new Map() : undefined,
        finish: () => {
          if (this.#failure !== undefined) reject(this.#failure);
          else if (isSent) settle();
          else this.#answered.add(settle);
        },
      };
      this.#pending.set(cookie, pending);
      const { type, flags = 0 } = command;
      const header = encodeRequest({ type, flags, cookie, offset, length });
      if (hasSource) {
        this.#afterQueue.push(() => {
          isSent = true;
          if (this.#answered.delete(settle)) settle();
        });
      }
      this.#send(hasSource ? [header, source] : [header]);
    });
  }

  #send(pieces: readonly Uint8Array[]): void {
    this.#queue.push(...pieces);
    if (!this.#isSending) this.#flush();
  }

  #flush(): void {
    if (this.#queue.length === 0 || this.#failure !== undefined) return;
    const pieces = this.#queue;
    const afterwards = this.#afterQueue;
    this.#queue = [];
    this.#afterQueue = [];
    this.#isSending = true;
    this.#socket.write(pieces, () => {
      this.#isSending = false;
      for (const call of afterwards) call();
      this.#flush();
    });
  }

  data(bytes: Uint8Array): void {
    if (this.#info === undefined) {
      this.#buffer.data(bytes);
      return;
    }
    if (this.#failure !== undefined) return;
    try {
      this.#reader.data(bytes);
    } catch (error) {
      if (!isVarveError(error)) throw error;
      this.#socket.destroy();
      this.#fail(error);
    }
  }

  target(): Uint8Array | undefined {
    return undefined;
  }

  end(): void {
    this.#buffer.end();
    // A handshake that lacks something fails by that; it still speaks until then.
    if (this.#info !== undefined) this.#ended();
  }

  /** No reply comes any more, so there is nothing left to say either. */
  #ended(): void {
    // A source whose request settles now must not be read any longer.
    if (this.#isSending) this.#socket.destroy();
    else this.#socket.end();
    this.#fail(new VarveError('SERVER_GONE', this.#socket.name));
  }

  close(): void {
    this.#buffer.close();
    this.#fail(new VarveError('SERVER_GONE', this.#socket.name));
    this.#onClosed();
  }

  #fail(error: VarveError): void {
    this.#failure ??= error;
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const request of pending) request.finish();
    const answered = [...this.#answered];
    this.#answered.clear();
    for (const settle of answered) settle();
  }
}
