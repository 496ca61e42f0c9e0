/** A server over streams in memory, with a clock moved by hand, and clients for it. */
import type { Timers } from '../../src/base/world.ts';
import { byteCount, mebibytes } from '../../src/base/units.ts';
import { NbdClient } from '../../src/nbd/client.ts';
import type { ClientOptions } from '../../src/nbd/client-handshake.ts';
import * as nbd from '../../src/nbd/protocol.ts';
import { encodeInfoQuery, encodeOption } from '../../src/nbd/options.ts';
import { encodeRequest, type RequestFields } from '../../src/nbd/request.ts';
import { NbdServer } from '../../src/nbd/server.ts';
import type { SocketEvents } from '../../src/nbd/socket.ts';
import { uint16, uint32 } from '../../src/nbd/wire.ts';
import { MemoryDevice, MemoryDirectory, type MemoryDeviceOptions } from './nbd-memory-device.ts';
import { FakeSocket, type PairOptions } from './nbd-socket-pair.ts';

/** One turn of the event loop. */
export function turn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

/** What the event loop has to do by now is done afterwards. */
export async function settled(rounds = 20): Promise<void> {
  for (let i = 0; i < rounds; i += 1) await turn();
}

/** Waits until `holds`; for real time no longer than a few seconds. */
export async function until(holds: () => boolean, what = 'the condition'): Promise<void> {
  const end = Date.now() + 10_000;
  while (!holds()) {
    if (Date.now() > end) throw new Error(`waited in vain until ${what}`);
    await turn();
  }
}

export class ManualTimers implements Timers {
  #nowMs = 0;
  readonly #timers = new Set<{ atMs: number; call: () => void }>();

  get armed(): number {
    return this.#timers.size;
  }

  after(delayMs: number, call: () => void): () => void {
    const timer = { atMs: this.#nowMs + delayMs, call };
    this.#timers.add(timer);
    return () => {
      this.#timers.delete(timer);
    };
  }

  advance(ms: number): void {
    const end = this.#nowMs + ms;
    for (;;) {
      const due = [...this.#timers].filter(({ atMs }) => atMs <= end);
      const next = due.toSorted((a, b) => a.atMs - b.atMs)[0];
      if (next === undefined) break;
      this.#timers.delete(next);
      this.#nowMs = next.atMs;
      next.call();
    }
    this.#nowMs = end;
  }
}

export interface Reply {
  readonly type: number;
  readonly data: Buffer;
}

export interface Chunk {
  readonly kind: 'simple' | 'chunk';
  readonly cookie: number;
  /** Of a simple reply. */
  readonly error: number;
  readonly type: number;
  readonly done: boolean;
  readonly payload: Buffer;
}

/** A client that sends any bytes, and reads what comes when asked. */
export class RawClient implements SocketEvents {
  readonly socket: FakeSocket;
  #chunks: Buffer[] = [];
  available = 0;
  isEnded = false;
  isClosed = false;

  constructor(socket: FakeSocket) {
    this.socket = socket;
    socket.start(this);
  }

  data(bytes: Uint8Array): void {
    this.#chunks.push(Buffer.from(bytes));
    this.available += bytes.length;
  }

  target(): undefined {
    return undefined;
  }

  end(): void {
    this.isEnded = true;
  }

  close(): void {
    this.isEnded = true;
    this.isClosed = true;
  }

  async send(...pieces: readonly Uint8Array[]): Promise<void> {
    await new Promise<void>((resolve) => {
      this.socket.write([Buffer.concat(pieces)], resolve);
    });
  }

  async read(count: number): Promise<Buffer> {
    await until(() => this.available >= count || this.isEnded, `${count} bytes came`);
    if (this.available < count) throw new Error(`the stream ended, ${count} bytes wanted`);
    const [first] = this.#chunks;
    const isThere = first !== undefined && first.length >= count;
    const bytes = isThere ? first : Buffer.concat(this.#chunks);
    if (!isThere) this.#chunks = [bytes];
    this.#chunks[0] = bytes.subarray(count);
    this.available -= count;
    return bytes.subarray(0, count);
  }

  /** The server has ended the session, and said nothing more. */
  async ended(): Promise<void> {
    await until(() => this.isEnded, 'the session ends');
  }

  async greet(flags = 3): Promise<void> {
    await this.read(nbd.NBD_GREETING_BYTES);
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(flags);
    await this.send(bytes);
  }

  async reply(): Promise<Reply & { readonly option: number }> {
    const head = await this.read(nbd.NBD_OPTION_REPLY_BYTES);
    const data = await this.read(uint32(head, 16));
    return { option: uint32(head, 8), type: uint32(head, 12), data };
  }

  /** Sends an option; all replies to it, the final one last. */
  async option(option: number, data?: Uint8Array): Promise<readonly Reply[]> {
    await this.send(encodeOption(option, data));
    const replies: Reply[] = [];
    for (;;) {
      const reply = await this.reply();
      if (reply.option !== option) throw new Error(`a reply to option ${reply.option}`);
      replies.push(reply);
      if (reply.type === nbd.NBD_REP_ACK || reply.type >= 2 ** 31) return replies;
    }
  }

  async go(name = 'disk', structured = true): Promise<void> {
    await this.greet();
    if (structured) await this.option(nbd.NBD_OPT_STRUCTURED_REPLY);
    const data = encodeInfoQuery({ name, infos: new Set() });
    const replies = await this.option(nbd.NBD_OPT_GO, data);
    if (replies.at(-1)?.type !== nbd.NBD_REP_ACK) throw new Error('GO was refused');
  }

  async request(fields: RequestFields, payload?: Uint8Array): Promise<void> {
    const header = encodeRequest(fields);
    await this.send(...(payload === undefined ? [header] : [header, payload]));
  }

  /** One simple reply or one chunk. @param dataBytes - that follow a simple reply without error */
  async chunk(dataBytes = 0): Promise<Chunk> {
    const head = await this.read(nbd.NBD_SIMPLE_REPLY_BYTES);
    const cookie = Number(head.readBigUInt64BE(8));
    if (uint32(head, 0) === nbd.NBD_SIMPLE_REPLY_MAGIC) {
      const error = uint32(head, 4);
      const payload = error === 0 ? await this.read(dataBytes) : Buffer.alloc(0);
      return { kind: 'simple', cookie, error, type: -1, done: true, payload };
    }
    if (uint32(head, 0) !== nbd.NBD_STRUCTURED_REPLY_MAGIC) throw new Error('no reply magic');
    const payload = await this.read(uint32(await this.read(4), 0));
    const type = uint16(head, 6);
    const error = (type & 0x8000) === 0 ? 0 : uint32(payload, 0);
    return { kind: 'chunk', cookie, error, type, done: (uint16(head, 4) & 1) === 1, payload };
  }
}

export interface RigOptions extends MemoryDeviceOptions {
  readonly size?: number;
  readonly budget?: number;
  readonly connectionsMax?: number;
  readonly pair?: PairOptions;
}

/** A server of one device called `disk`. */
export class Rig {
  readonly device: MemoryDevice;
  readonly directory: MemoryDirectory;
  readonly timers = new ManualTimers();
  readonly server: NbdServer;
  readonly trace: string[] = [];
  readonly #pair: PairOptions;

  constructor({ size = 2 ** 20, budget, connectionsMax, pair = {}, ...device }: RigOptions = {}) {
    this.device = new MemoryDevice(size, device);
    this.device.calls = [];
    this.directory = new MemoryDirectory({ disk: this.device });
    this.#pair = pair;
    this.server = NbdServer.create({
      exports: this.directory,
      timers: this.timers,
      payloadBudget: budget === undefined ? mebibytes(72) : byteCount(budget),
      ...(connectionsMax === undefined ? {} : { connectionsMax }),
      trace: (line) => {
        this.trace.push(line);
      },
    });
  }

  socket(options = this.#pair): FakeSocket {
    const { server, client } = FakeSocket.pair(options);
    this.server.accept(server);
    return client;
  }

  raw(options?: PairOptions): RawClient {
    return new RawClient(this.socket(options));
  }

  /** A raw client in the transmission phase. */
  async session(structured = true): Promise<RawClient> {
    const client = this.raw();
    await client.go('disk', structured);
    return client;
  }

  connect(options: ClientOptions = {}): Promise<NbdClient> {
    return NbdClient.connect(this.socket(), { exportName: 'disk', ...options });
  }

  /** What the device was asked of one kind. */
  calls(kind: string): number {
    return (this.device.calls ?? []).filter((call) => call.kind === kind).length;
  }
}

/** A promise and its end. */
export function gate(): { readonly opened: Promise<void>; readonly open: () => void } {
  let open = (): void => undefined;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return {
    opened,
    open: () => {
      open();
    },
  };
}
