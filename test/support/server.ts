/**
 * The server as its users run it: a process of its own over a directory, ready, and gone when the
 * test is over.
 *
 * Invariants:
 *   - What `start` gives is ready: it has printed its URIs and `ready`.
 *   - Only the process that was started here is ever ended, by its id, and none is left behind.
 */
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type { WriteMode } from '../../src/volume/report.ts';
import { varve, VARVE } from './run.ts';

export interface ServerOptions {
  readonly create?: string;
  readonly writeMode?: WriteMode;
  /** Further words of the command line. */
  readonly more?: readonly string[];
  /** Words before it; they have to end as the server itself, by exec. */
  readonly launcher?: readonly string[];
  readonly readyMs?: number;
}

const READY_MS = 60_000;
const STOP_MS = 60_000;

/**
 * What a server may hold beside rings and indexes: the program, its caches, payloads and replies in
 * flight. The goal is 150 MB, and docs/PERFORMANCE.md says what is measured; this bound is for growth,
 * far enough above what one run differs from the next.
 */
export const RSS_REST_MAX = 190_000_000;

/** And for each connection, idle or not: its socket and session, as Node has them. */
export const RSS_CONNECTION_MAX = 32 * 1024;

/** What the tests look at in `varve info --json`. */
export interface Info {
  readonly size: number;
  readonly writeMode: WriteMode;
  readonly failure?: string | undefined;
  readonly lineage: string;
  readonly head: { readonly generation: number; readonly wallUs: number };
  readonly durable: { readonly generation: number };
  readonly horizon: { readonly generation: number; readonly wallUs: number };
  readonly settled: { readonly generation: number };
  readonly ring: { readonly usedBytes: number; readonly sizeBytes: number };
  readonly log: { readonly usedBytes: number; readonly sizeBytes: number };
  readonly indexBytes: number;
  readonly counters: {
    readonly logBytes: number;
    readonly rounds: number;
    readonly writes: number;
  };
  readonly recovery: { readonly clean: boolean; readonly requests: number };
}

export async function infoOf(directory: string, name = 'disk'): Promise<Info> {
  const info: Info = JSON.parse(await varve(directory, ['info', name, '--json']));
  return info;
}

/** The URI of an export behind a Unix socket; `@` and colons are escaped. */
export function unixUri(socket: string, exportName = 'disk'): string {
  return `nbd+unix:///${encodeURIComponent(exportName)}?socket=${socket}`;
}

export class Server implements AsyncDisposable {
  readonly directory: string;
  readonly socket: string;
  readonly #child: ChildProcessByStdio<null, Readable, Readable>;
  #stdout = '';
  #stderr = '';
  #ended = false;

  private constructor(directory: string, options: ServerOptions) {
    const { create, writeMode, more = [], launcher = [] } = options;
    this.directory = directory;
    this.socket = join(directory, 'nbd.sock');
    const words = [...launcher, process.execPath, VARVE, 'serve', '--dir', directory];
    if (create !== undefined) words.push('--create', create);
    if (writeMode !== undefined) words.push('--write-mode', writeMode);
    words.push(...more);
    const [program = process.execPath, ...rest] = words;
    this.#child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child.stdout.on('data', (chunk: Buffer) => (this.#stdout += chunk.toString()));
    this.#child.stderr.on('data', (chunk: Buffer) => (this.#stderr += chunk.toString()));
    this.#child.on('exit', () => (this.#ended = true));
  }

  /** @throws Error with all that the server said, when it ends or is not ready in time */
  static async start(directory: string, options: ServerOptions = {}): Promise<Server> {
    const server = new Server(directory, options);
    try {
      await server.#ready(options.readyMs ?? READY_MS);
      return server;
    } catch (error) {
      await server.kill();
      throw error;
    }
  }

  /** Starts a server that is not ready yet, and may never be. */
  static startUnready(directory: string, options: ServerOptions): Server {
    return new Server(directory, options);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get isRunning(): boolean {
    return !this.#ended;
  }

  get stdout(): string {
    return this.#stdout;
  }

  get stderr(): string {
    return this.#stderr;
  }

  /** The URIs that it printed. */
  get uris(): readonly string[] {
    return this.#stdout.match(/\bnbd(\+unix)?:\/\/\S+/g) ?? [];
  }

  uri(exportName = 'disk'): string {
    return unixUri(this.socket, exportName);
  }

  info(name = 'disk'): Promise<Info> {
    return infoOf(this.directory, name);
  }

  /** Memory that it holds now, in bytes. */
  rssBytes(): number {
    return this.#status('VmRSS');
  }

  /** The most that it ever held. */
  rssBytesMax(): number {
    return this.#status('VmHWM');
  }

  /** Open files and sockets. */
  descriptors(): number {
    return readdirSync(`/proc/${this.pid}/fd`).length;
  }

  #status(field: string): number {
    const status = readFileSync(`/proc/${this.pid}/status`, 'utf8');
    const found = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status);
    if (found === null) throw new Error(`/proc/${this.pid}/status has no ${field}`);
    return Number(found[1]) * 1024;
  }

  /** SIGTERM, or other signals, one after the other. @returns its exit code */
  async stop(signals: readonly NodeJS.Signals[] = ['SIGTERM']): Promise<number | null> {
    if (!this.#ended) {
      const timer = setTimeout(() => this.#child.kill('SIGKILL'), STOP_MS);
      for (const signal of signals) {
        this.#child.kill(signal);
        // Two that wait are one.
        if (signals.length > 1) await sleep(20);
      }
      await this.#gone();
      clearTimeout(timer);
    }
    return this.#child.exitCode;
  }

  /** SIGKILL: nothing is flushed, nothing is closed. */
  async kill(): Promise<void> {
    if (this.#ended) return;
    this.#child.kill('SIGKILL');
    await this.#gone();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }

  async #gone(): Promise<void> {
    if (!this.#ended) await once(this.#child, 'exit');
  }

  #ready(readyMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const fail = (why: string): void => {
        clearTimeout(timer);
        reject(new Error(`the server ${why}\n${this.#stdout}\n${this.#stderr}`));
      };
      const timer = setTimeout(() => fail(`is not ready after ${readyMs} ms`), readyMs);
      this.#child.on('error', (error) => fail(`can not be started: ${error.message}`));
      this.#child.on('exit', (code, signal) => fail(`ended early: ${code ?? signal}`));
      this.#child.stdout.on('data', () => {
        if (!/^ready$/m.test(this.#stdout)) return;
        clearTimeout(timer);
        resolve();
      });
    });
  }
}
