/** The sockets of the machine: node:net as the port of `socket.ts`, and listening. */
import { access, chmod, lstat, unlink } from 'node:fs/promises';
import {
  connect,
  createServer,
  Socket as NetSocket,
  type NetConnectOpts,
  type Server,
} from 'node:net';
import { dirname } from 'node:path';
import { VarveError } from '../base/errors.ts';
import { KEEP_ALIVE_MS, READ_BYTES_MAX, UNIX_PATH_BYTES_MAX } from './limits.ts';
import type { NbdServer } from './server.ts';
import type { Socket, SocketEvents } from './socket.ts';

export interface Listener {
  /** As people and clients write it, for an export; without a name the default one. */
  uri(exportName?: string): string;
  /** Accepts no more; connections go on. */
  close(): Promise<void>;
}

/**
 * What all sockets read into, one after the other: a read and its `data` are one step, and what
 * came is only lent. So an idle connection has no buffer of its own.
 */
const READ_BUFFER = Buffer.allocUnsafeSlow(READ_BYTES_MAX);

/** Where a socket's bytes go: into the place that is wanted, else into the common buffer. */
class Reader {
  readonly #pieceBytes: () => number;
  events: SocketEvents | undefined;

  /** @param pieceBytes - how much may come at a time, by now */
  constructor(pieceBytes: () => number) {
    this.#pieceBytes = pieceBytes;
  }

  readonly onread = {
    buffer: (): Uint8Array => {
      const target = this.events?.target();
      if (target !== undefined) return target;
      const bytes = this.#pieceBytes();
      return bytes === READ_BYTES_MAX ? READ_BUFFER : READ_BUFFER.subarray(0, bytes);
    },
    callback: (count: number, buffer: Uint8Array): boolean => {
      this.events?.data(buffer.subarray(0, count));
      return true;
    },
  };
}

/**
 * The accepted connection as a socket that reads into buffers of ours. Node offers that to
 * clients only (`onread`), so the handle moves into a socket made as a client makes it.
 *
 * @returns undefined when this Node keeps its handles elsewhere
 */
function withReader(accepted: NetSocket, { onread }: Reader): NetSocket | undefined {
  const handle: unknown = Reflect.get(accepted, '_handle');
  if (typeof handle !== 'object' || handle === null || !('useUserBuffer' in handle)) return;
  Reflect.set(accepted, '_handle', null);
  const options = { handle, allowHalfOpen: true, onread };
  return new NetSocket(options);
}

export class NodeSocket implements Socket {
  readonly name: string;
  readonly #socket: NetSocket;
  readonly #reader: Reader | undefined;

  /** @param reader - that `socket` was made with; without it, Node's own buffers are used */
  private constructor(socket: NetSocket, name: string, reader?: Reader) {
    this.#socket = socket;
    this.#reader = reader;
    this.name = name;
    socket.setNoDelay(true);
    // A peer that vanished would have the live disk open for ever. Nothing to a Unix socket.
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
  }

  /** @param socket - just accepted, and paused */
  static accepted(socket: NetSocket, name: string, pieceBytes: () => number): NodeSocket {
    const reader = new Reader(pieceBytes);
    const own = withReader(socket, reader);
    return own === undefined ? new NodeSocket(socket, name) : new NodeSocket(own, name, reader);
  }

  /** @throws VarveError SERVER_GONE */
  static connect(address: NetConnectOpts, name: string): Promise<NodeSocket> {
    const reader = new Reader(() => READ_BYTES_MAX);
    const socket = connect({ ...address, allowHalfOpen: true, onread: reader.onread });
    return new Promise((resolve, reject) => {
      socket.once('error', (error) => {
        reject(new VarveError('SERVER_GONE', `${name}: ${error.message}`, { cause: error }));
      });
      socket.once('connect', () => {
        socket.removeAllListeners('error');
        resolve(new NodeSocket(socket, name, reader));
        // Until it is started, nobody takes what comes.
        socket.pause();
      });
    });
  }

  start(events: SocketEvents): void {
    const socket = this.#socket;
    if (this.#reader === undefined) {
      socket.on('data', (bytes: Buffer) => {
        events.data(bytes);
      });
    } else this.#reader.events = events;
    socket.on('end', () => {
      events.end();
    });
    // `close` follows, and says all that matters.
    socket.on('error', () => undefined);
    socket.on('close', () => {
      events.close();
    });
    socket.resume();
  }

  write(pieces: readonly Uint8Array[], sent: () => void): void {
    const socket = this.#socket;
    const last = pieces.length - 1;
    const done = (error?: Error | null): void => {
      if (error === undefined || error === null) sent();
    };
    if (last === 0) {
      socket.write(pieces[0] ?? new Uint8Array(0), done);
      return;
    }
    socket.cork();
    for (const [index, piece] of pieces.entries()) {
      if (index === last) socket.write(piece, done);
      else socket.write(piece);
    }
    socket.uncork();
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  end(): void {
    this.#socket.end();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  defer(call: () => void): void {
    setImmediate(call);
  }
}

/** @throws VarveError ADDRESS_IN_USE, PERMISSION, ADDRESS_BAD */
export async function listenUnix(server: NbdServer, path: string): Promise<Listener> {
  const length = Buffer.byteLength(path);
  if (length > UNIX_PATH_BYTES_MAX) {
    throw new VarveError(
      'ADDRESS_BAD',
      `a Unix socket path has at most ${UNIX_PATH_BYTES_MAX} bytes, this one ${length}: ${path}`,
    );
  }
  await expectFolder(path);
  await removeStale(path);
  const net = acceptInto(server, path);
  // The file must not be there for others even for a moment: the mask makes it 0600.
  const mask = process.umask(0o177);
  try {
    await listening(net, path, () => net.listen({ path }));
  } finally {
    process.umask(mask);
  }
  await chmod(path, 0o600);
  const uri = (name = ''): string => `nbd+unix:///${escapeName(name)}?socket=${encodeURI(path)}`;
  return { uri, close: () => closeServer(net) };
}

/** @throws VarveError ADDRESS_IN_USE, PERMISSION, ADDRESS_BAD */
export async function listenTcp(server: NbdServer, host: string, port: number): Promise<Listener> {
  const net = acceptInto(server, 'tcp');
  await listening(net, `${host}:${port}`, () => net.listen({ host, port }));
  const address = net.address();
  const actual = typeof address === 'object' && address !== null ? address.port : port;
  const hostText = host.includes(':') ? `[${host}]` : host;
  const uri = (name = ''): string => `nbd://${hostText}:${actual}/${escapeName(name)}`;
  return { uri, close: () => closeServer(net) };
}

/** A socket that systemd listens on (LISTEN_FDS); its address is systemd's affair. */
export async function listenFd(server: NbdServer, fd: number): Promise<Listener> {
  const net = acceptInto(server, `fd ${fd}`);
  await listening(net, `file descriptor ${fd}`, () => net.listen({ fd }));
  const address = net.address();
  const uri = (name = ''): string => {
    if (typeof address === 'string') {
      return `nbd+unix:///${escapeName(name)}?socket=${encodeURI(address)}`;
    }
    if (address === null) return `fd:${fd}`;
    const host = address.family === 'IPv6' ? `[${address.address}]` : address.address;
    return `nbd://${host}:${address.port}/${escapeName(name)}`;
  };
  return { uri, close: () => closeServer(net) };
}

/** systemd's first descriptor: sd_listen_fds(3). */
const LISTEN_FDS_START = 3;

/** The descriptors that systemd gave this process, from LISTEN_PID and LISTEN_FDS. */
export function systemdFds(
  env: Readonly<Record<string, string | undefined>>,
  pid: number,
): readonly number[] {
  if (Number(env['LISTEN_PID']) !== pid) return [];
  const count = Number(env['LISTEN_FDS']);
  if (!Number.isSafeInteger(count) || count < 1) return [];
  return Array.from({ length: count }, (_, index) => LISTEN_FDS_START + index);
}

function escapeName(name: string): string {
  return encodeURIComponent(name).replaceAll('%40', '@').replaceAll('%3A', ':');
}

function acceptInto(server: NbdServer, name: string): Server {
  let count = 0;
  return createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
    count += 1;
    const peer = socket.remoteAddress;
    const who = peer === undefined ? `${name}#${count}` : `${peer}:${socket.remotePort ?? 0}`;
    server.accept(NodeSocket.accepted(socket, who, () => server.pieceBytes));
  });
}

function listening(net: Server, address: string, listen: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    net.once('error', (error) => {
      reject(listenError(error, address));
    });
    net.once('listening', () => {
      // Failures of single accepts (no descriptors left) are no reason to end.
      net.removeAllListeners('error').on('error', () => undefined);
      resolve();
    });
    listen();
  });
}

function listenError(error: Error, address: string): VarveError {
  const code = 'code' in error ? String(error.code) : error.message;
  const cause = { cause: error };
  switch (code) {
    case 'EADDRINUSE':
      return new VarveError('ADDRESS_IN_USE', address, cause);
    case 'EACCES':
    case 'EPERM':
      return new VarveError('PERMISSION', address, cause);
    default:
      return new VarveError('ADDRESS_BAD', `${address}: ${code}`, cause);
  }
}

function closeServer(net: Server): Promise<void> {
  return new Promise((resolve) => {
    // Its callback would wait for the connections, which are the NbdServer's.
    net.close();
    setImmediate(resolve);
  });
}

/** Binding in a folder that is not there would read as a lack of permission. */
async function expectFolder(path: string): Promise<void> {
  const folder = dirname(path);
  try {
    await access(folder);
  } catch (error) {
    throw new VarveError('ADDRESS_BAD', `${path}: there is no folder ${folder}`, { cause: error });
  }
}

/** Removes the socket file of a server that is gone; leaves it when one answers. */
async function removeStale(path: string): Promise<void> {
  let isSocket: boolean;
  try {
    isSocket = (await lstat(path)).isSocket();
  } catch {
    return;
  }
  if (!isSocket) throw new VarveError('ADDRESS_IN_USE', `${path} exists and is no socket`);
  if (await answers(path)) throw new VarveError('ADDRESS_IN_USE', `a server answers on ${path}`);
  await unlink(path);
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect({ path });
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', (error) => {
      // Only a refusal says that nobody listens; a full queue (EAGAIN) says that somebody does.
      resolve(!('code' in error && error.code === 'ECONNREFUSED'));
    });
  });
}

/** Connects to a server; for clients. */
export function connectUnix(path: string): Promise<Socket> {
  return NodeSocket.connect({ path }, path);
}

export function connectTcp(host: string, port: number): Promise<Socket> {
  return NodeSocket.connect({ host, port }, `${host}:${port}`);
}
