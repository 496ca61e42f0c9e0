/**
 * A real NBD client for tests: libnbd, in a Python process of its own, with as many connections and
 * requests in flight as a test wants.
 *
 * Invariants:
 *   - Each request is answered once: by libnbd, or by an error when its connection ended.
 *   - Requests of one connection are sent in the order in which they were made here.
 */
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Readable, Writable } from 'node:stream';

const WORKER = fileURLToPath(new URL('libnbd-worker.py', import.meta.url));

/** A request was answered with an error, or its connection is gone. */
export class NbdError extends Error {
  /** Such as `ENOSPC`. */
  readonly errno: string;

  constructor(errno: string, text: string) {
    super(`${errno} ${text}`);
    this.name = 'NbdError';
    this.errno = errno;
  }
}

/** What libnbd knows of an open export. */
export interface About {
  readonly size: number;
  readonly canonicalName: string;
  readonly description: string;
  readonly contexts: readonly string[];
  readonly is_read_only: boolean;
  readonly can_multi_conn: boolean;
  readonly can_flush: boolean;
  readonly can_fua: boolean;
  readonly can_trim: boolean;
  readonly can_zero: boolean;
  readonly can_fast_zero: boolean;
  readonly can_df: boolean;
  readonly can_cache: boolean;
  readonly get_structured_replies_negotiated: boolean;
}

export interface Extents {
  readonly context: string;
  readonly offset: number;
  /** Length and flags, in turn. */
  readonly entries: readonly number[];
}

/** Names and descriptions. */
export type Listing = readonly (readonly [string, string])[];

interface Answer {
  readonly id: number;
  readonly bytes: number;
  readonly error?: string;
  readonly text?: string;
  readonly about?: About;
  readonly exports?: Listing;
  readonly extents?: readonly Extents[];
}

interface Waiting {
  resolve(answer: { readonly answer: Answer; readonly payload: Buffer }): void;
  reject(error: Error): void;
}

type Request = Readonly<Record<string, unknown>>;

export class LibNbd implements AsyncDisposable {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #waiting = new Map<number, Waiting>();
  #requests = 0;
  #connections = 0;
  #header = Buffer.alloc(0);
  #answer: Answer | undefined;
  #payload = Buffer.alloc(0);
  #filled = 0;
  #stderr = '';
  #ended = false;

  constructor() {
    this.#child = spawn('/usr/bin/python3', [WORKER], { stdio: 'pipe' });
    this.#child.stdout.on('data', (chunk: Buffer) => this.#take(chunk));
    this.#child.stderr.on('data', (chunk: Buffer) => (this.#stderr += chunk.toString()));
    this.#child.stdin.on('error', () => undefined);
    this.#child.on('close', () => {
      this.#ended = true;
      for (const waiting of this.#waiting.values()) waiting.reject(this.#gone());
      this.#waiting.clear();
    });
  }

  async open(uri: string, contexts: readonly string[] = []): Promise<Connection> {
    const connection = ++this.#connections;
    const { answer } = await this.request({ op: 'open', connection, uri, contexts });
    if (answer.about === undefined) throw new Error('the answer says nothing about the export');
    return new Connection(this, connection, answer.about);
  }

  /** As NBD_OPT_LIST gives them. */
  async list(uri: string): Promise<Listing> {
    const { answer } = await this.request({ op: 'list', connection: 0, uri });
    return answer.exports ?? [];
  }

  /** @throws NbdError */
  request(
    request: Request,
    payload?: Uint8Array,
  ): Promise<{ readonly answer: Answer; readonly payload: Buffer }> {
    if (this.#ended) return Promise.reject(this.#gone());
    const id = ++this.#requests;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      const bytes = payload?.length ?? 0;
      this.#child.stdin.write(`${JSON.stringify({ ...request, id, bytes })}\n`);
      if (payload !== undefined) this.#child.stdin.write(Buffer.from(payload));
    });
  }

  /** SIGSTOP: the process neither reads nor writes, and its sockets stay open. */
  stop(): void {
    this.#child.kill('SIGSTOP');
  }

  /** SIGCONT. */
  goOn(): void {
    this.#child.kill('SIGCONT');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#ended) return;
    this.#child.kill('SIGKILL');
    await once(this.#child, 'close');
  }

  #gone(): Error {
    return new Error(`the libnbd process ended: ${this.#stderr}`);
  }

  #take(chunk: Buffer): void {
    let rest = chunk;
    while (rest.length > 0) {
      if (this.#answer === undefined) {
        const end = rest.indexOf(10);
        const part = end < 0 ? rest : rest.subarray(0, end);
        this.#header = Buffer.concat([this.#header, part]);
        if (end < 0) return;
        rest = rest.subarray(end + 1);
        const answer: Answer = JSON.parse(this.#header.toString());
        this.#header = Buffer.alloc(0);
        this.#answer = answer;
        this.#payload = Buffer.allocUnsafe(answer.bytes);
        this.#filled = 0;
      } else {
        const count = rest.copy(this.#payload, this.#filled);
        this.#filled += count;
        rest = rest.subarray(count);
      }
      if (this.#filled === this.#answer.bytes) this.#settle(this.#answer);
    }
  }

  #settle(answer: Answer): void {
    const waiting = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    this.#answer = undefined;
    if (answer.error !== undefined) {
      waiting?.reject(new NbdError(answer.error, answer.text ?? ''));
    } else {
      waiting?.resolve({ answer, payload: this.#payload });
    }
  }
}

export interface Range {
  readonly offset: number;
  readonly length: number;
}

export class Connection {
  readonly about: About;
  readonly #worker: LibNbd;
  readonly #connection: number;

  constructor(worker: LibNbd, connection: number, about: About) {
    this.#worker = worker;
    this.#connection = connection;
    this.about = about;
  }

  async read({ offset, length }: Range): Promise<Buffer> {
    const request = { op: 'read', connection: this.#connection, offset, length };
    return (await this.#worker.request(request)).payload;
  }

  /** The whole disk, in requests of a few MiB, some of them in flight together. */
  async readAll(): Promise<Buffer> {
    const { size } = this.about;
    const step = 4 * 1024 ** 2;
    const whole = Buffer.allocUnsafe(size);
    let next = 0;
    const reader = async (): Promise<void> => {
      while (next < size) {
        const offset = next;
        next += step;
        const part = await this.read({ offset, length: Math.min(step, size - offset) });
        part.copy(whole, offset);
      }
    };
    await Promise.all([reader(), reader(), reader()]);
    return whole;
  }

  async write(offset: number, source: Uint8Array, options: { fua?: boolean } = {}): Promise<void> {
    const request = { op: 'write', connection: this.#connection, offset, length: source.length };
    await this.#worker.request({ ...request, ...options }, source);
  }

  /** Writes eight bytes again and again; `length` is a multiple of eight. */
  async fill(range: Range, eight: Uint8Array, options: { fua?: boolean } = {}): Promise<void> {
    const fill = Buffer.from(eight).toString('hex');
    const request = { op: 'write', connection: this.#connection, fill };
    await this.#worker.request({ ...request, ...range, ...options });
  }

  async zero(
    range: Range,
    options: { fua?: boolean; noHole?: boolean; fast?: boolean } = {},
  ): Promise<void> {
    const request = { op: 'zero', connection: this.#connection };
    await this.#worker.request({ ...request, ...range, ...options });
  }

  async trim(range: Range, options: { fua?: boolean } = {}): Promise<void> {
    const request = { op: 'trim', connection: this.#connection };
    await this.#worker.request({ ...request, ...range, ...options });
  }

  async flush(): Promise<void> {
    await this.#worker.request({ op: 'flush', connection: this.#connection });
  }

  async cache(range: Range): Promise<void> {
    await this.#worker.request({ op: 'cache', connection: this.#connection, ...range });
  }

  /** What each negotiated context says of the range. */
  async status(range: Range): Promise<readonly Extents[]> {
    const request = { op: 'status', connection: this.#connection, ...range };
    return (await this.#worker.request(request)).answer.extents ?? [];
  }

  async close(): Promise<void> {
    await this.#worker.request({ op: 'close', connection: this.#connection });
  }
}
