/**
 * The control socket on a Unix socket of the machine.
 *
 * Invariants:
 *   - The socket is its owner's alone (mode 0600) from the moment it can be connected to.
 *   - A peer that does not read holds back its own requests, and nothing else.
 */
import { once } from 'node:events';
import { unlinkSync } from 'node:fs';
import net from 'node:net';
import { VarveError } from '../base/errors.ts';
import { fromSystemError, systemCode } from '../device/system-error.ts';
import { UNIX_PATH_BYTES_MAX } from '../nbd/limits.ts';
import type { ControlChannel, ControlDoor, ControlListener } from './control-channel.ts';
import {
  ANSWER_LINE_BYTES_MAX,
  LineSplitter,
  REQUEST_LINE_BYTES_MAX,
  encodeLine,
  type Line,
} from './control-lines.ts';

/** More at a time are an accident. */
const CHANNELS_MAX = 64;

class SocketChannel implements ControlChannel {
  readonly #socket: net.Socket;
  readonly #lineBytesMax: number;

  constructor(socket: net.Socket, lineBytesMax: number) {
    this.#socket = socket;
    this.#lineBytesMax = lineBytesMax;
    // A broken connection is an ended one; whoever reads or sends next notices.
    socket.on('error', () => undefined);
  }

  async *lines(): AsyncGenerator<Line> {
    const splitter = new LineSplitter(this.#lineBytesMax);
    try {
      const pieces: AsyncIterable<Buffer> = this.#socket;
      for await (const piece of pieces) yield* splitter.push(piece);
    } catch (error) {
      if (systemCode(error) === undefined) throw error;
    }
  }

  async send(value: unknown): Promise<void> {
    if (!this.#socket.writable) return;
    await new Promise<void>((resolve) => {
      this.#socket.write(encodeLine(value), () => resolve());
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  get isOpen(): boolean {
    return this.#socket.writable && !this.#socket.destroyed;
  }
}

/** @throws VarveError ADDRESS_BAD */
function checkSocketPath(path: string): string {
  const length = Buffer.byteLength(path);
  if (length <= UNIX_PATH_BYTES_MAX) return path;
  throw new VarveError(
    'ADDRESS_BAD',
    `the socket path ${path} has ${length} bytes; the system takes ${UNIX_PATH_BYTES_MAX}`,
  );
}

/** Removes what an earlier server left. */
function unlinkStale(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw fromSystemError(error, `removing ${path}`);
  }
}

async function listen(
  path: string,
  accept: (channel: ControlChannel) => Promise<void>,
): Promise<ControlListener> {
  unlinkStale(checkSocketPath(path));
  const sockets = new Set<net.Socket>();
  const server = net.createServer((socket) => {
    if (sockets.size >= CHANNELS_MAX) {
      socket.destroy();
      return;
    }
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    const channel = new SocketChannel(socket, REQUEST_LINE_BYTES_MAX);
    // A rejection is a bug of ours, and ends the process as one.
    void accept(channel).finally(() => channel.close());
  });
  try {
    const umask = process.umask(0o177);
    try {
      server.listen(path);
    } finally {
      // The name is made before `listen` returns: nothing else is made under this mask.
      process.umask(umask);
    }
    await once(server, 'listening');
  } catch (error) {
    if (systemCode(error) === 'EADDRINUSE') throw new VarveError('ADDRESS_IN_USE', path);
    throw fromSystemError(error, `listening on ${path}`);
  }
  const close = async (): Promise<void> => {
    const closed = new Promise<void>((resolve) => {
      server.close(() => resolve());
    });
    for (const socket of sockets) socket.destroy();
    await closed;
  };
  return { close };
}

async function connect(path: string): Promise<ControlChannel | undefined> {
  if (Buffer.byteLength(path) > UNIX_PATH_BYTES_MAX) return undefined;
  const socket = net.connect(path);
  try {
    await once(socket, 'connect');
    return new SocketChannel(socket, ANSWER_LINE_BYTES_MAX);
  } catch (error) {
    const code = systemCode(error) ?? '';
    if (['ENOENT', 'ECONNREFUSED', 'ENOTDIR', 'ENOTSOCK'].includes(code)) return undefined;
    throw fromSystemError(error, `connecting to ${path}`);
  }
}

export const nodeControlDoor: ControlDoor = { listen, connect };
