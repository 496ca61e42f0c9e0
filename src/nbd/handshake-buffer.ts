/**
 * The bytes of a handshake, between the socket's events and the option haggling that asks for
 * them. Bounded: while more lies here than one option may hold, the socket is paused.
 */
import { assert } from '../base/assert.ts';
import { VarveError } from '../base/errors.ts';
import type { HandshakeStream } from './handshake.ts';
import { OPTION_BYTES_MAX } from './limits.ts';
import type { Socket } from './socket.ts';

interface Wait {
  readonly count: number;
  readonly resolve: (bytes: Uint8Array) => void;
  readonly reject: (error: VarveError) => void;
}

export class HandshakeBuffer implements HandshakeStream {
  readonly #socket: Socket;
  #chunks: Uint8Array[] = [];
  #bytes = 0;
  #skip = 0;
  #wait: Wait | undefined;
  #isPaused = false;
  #isEnded = false;
  #isGone = false;
  #writes = 0;
  #failWrite: ((error: VarveError) => void) | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Undefined: nothing waits for the client to read. Else a number that changes with progress. */
  get stallProgress(): number | undefined {
    return this.#failWrite === undefined ? undefined : this.#writes;
  }

  data(bytes: Uint8Array): void {
    const skipped = Math.min(this.#skip, bytes.length);
    this.#skip -= skipped;
    if (skipped < bytes.length) {
      // A copy: `slice` of a Buffer would be a view of what is only lent.
      this.#chunks.push(Buffer.from(bytes.subarray(skipped)));
      this.#bytes += bytes.length - skipped;
    }
    this.#serve();
    if (this.#bytes > OPTION_BYTES_MAX && !this.#isPaused) {
      this.#isPaused = true;
      this.#socket.pause();
    }
  }

  end(): void {
    this.#isEnded = true;
    this.#serve();
  }

  close(): void {
    this.#isEnded = true;
    this.#isGone = true;
    this.#serve();
    this.#failWrite?.(gone());
  }

  read(count: number): Promise<Uint8Array> {
    assert(count <= OPTION_BYTES_MAX, 'a handshake asks for no more than is kept for it');
    assert(this.#wait === undefined, 'a handshake asks for one thing at a time');
    return new Promise((resolve, reject) => {
      this.#wait = { count, resolve, reject };
      this.#serve();
    });
  }

  async skip(count: number): Promise<void> {
    let left = count;
    while (left > 0 && this.#bytes > 0) {
      const now = Math.min(left, this.#bytes);
      this.#take(now);
      left -= now;
    }
    this.#skip = left;
    // It is over when the byte after the last one can be asked for.
    await this.read(0);
  }

  write(bytes: Uint8Array): Promise<void> {
    if (this.#isGone) return Promise.reject(gone());
    return new Promise((resolve, reject) => {
      this.#failWrite = reject;
      this.#socket.write([bytes], () => {
        this.#failWrite = undefined;
        this.#writes += 1;
        resolve();
      });
    });
  }

  /** The handshake is over: gives what came after it, and takes no more. */
  release(): { readonly rest: Uint8Array; readonly isEnded: boolean } {
    const rest = this.#take(this.#bytes);
    if (this.#isPaused) this.#socket.resume();
    return { rest, isEnded: this.#isEnded };
  }

  #serve(): void {
    const wait = this.#wait;
    if (wait === undefined) return;
    if (this.#skip === 0 && this.#bytes >= wait.count) {
      this.#wait = undefined;
      wait.resolve(this.#take(wait.count));
    } else if (this.#isEnded) {
      this.#wait = undefined;
      wait.reject(gone());
    } else if (this.#isPaused) {
      this.#isPaused = false;
      this.#socket.resume();
    }
  }

  #take(count: number): Uint8Array {
    const all = this.#chunks.length === 1 ? this.#chunks[0] : Buffer.concat(this.#chunks);
    const bytes = all ?? new Uint8Array(0);
    assert(bytes.length === this.#bytes, 'the buffer counts what it holds');
    this.#bytes -= count;
    this.#chunks = count < bytes.length ? [bytes.subarray(count)] : [];
    return bytes.subarray(0, count);
  }
}

function gone(): VarveError {
  return new VarveError('SERVER_GONE', 'the client went away');
}
