/** The adapter to node:net: addresses, permissions, stale files, descriptors. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import koffi from 'koffi';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { mebibytes } from '../../src/base/units.ts';
import { NbdClient } from '../../src/nbd/client.ts';
import {
  connectTcp,
  connectUnix,
  listenFd,
  listenTcp,
  listenUnix,
  systemdFds,
  type Listener,
} from '../../src/nbd/node-socket.ts';
import { NbdServer } from '../../src/nbd/server.ts';
import { temporaryDirectory } from '../support/files.ts';
import { MemoryDevice, MemoryDirectory } from '../support/nbd-memory-device.ts';
import { ManualTimers, until } from '../support/nbd-rig.ts';

let directory: ReturnType<typeof temporaryDirectory>;
let server: NbdServer;
let device: MemoryDevice;
const listeners: Listener[] = [];

beforeEach(() => {
  directory = temporaryDirectory();
  device = new MemoryDevice(2 ** 26);
  server = NbdServer.create({
    exports: new MemoryDirectory({ disk: device }),
    timers: new ManualTimers(),
    payloadBudget: mebibytes(72),
  });
});

afterEach(async () => {
  for (const listener of listeners.splice(0)) await listener.close();
  for (const client of clients.splice(0)) client.destroy();
  await server.close(0);
  directory[Symbol.dispose]();
});

const clients: NbdClient[] = [];

async function unix(path: string): Promise<Listener> {
  const listener = await listenUnix(server, path);
  listeners.push(listener);
  return listener;
}

async function expectServed(client: NbdClient): Promise<void> {
  clients.push(client);
  const large = Buffer.alloc(2 ** 25, 'large');
  await client.write(5, large);
  expect((await client.read(5, 2 ** 25)).equals(large)).toBe(true);
  const small = Array.from({ length: 2000 }, (_, i) => client.read(i * 100, 100));
  for (const [i, bytes] of (await Promise.all(small)).entries()) {
    expect(bytes.equals(device.bytes.subarray(i * 100, i * 100 + 100))).toBe(true);
  }
  await client.disconnect();
  await until(() => server.connections === 0);
  expect(server.budget.used).toBe(0);
}

describe('a Unix socket', () => {
  it('is for its owner only, has a URI, and is gone after closing', async () => {
    const path = join(directory.path, 'nbd.sock');
    const listener = await unix(path);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(listener.uri('disk@-10m')).toBe(`nbd+unix:///disk@-10m?socket=${path}`);
    expect(listener.uri()).toBe(`nbd+unix:///?socket=${path}`);
    await expectServed(await NbdClient.connect(await connectUnix(path), { exportName: 'disk' }));
    await listener.close();
    expect(existsSync(path)).toBe(false);
  });

  it('that nobody answers on is replaced', async () => {
    const path = join(directory.path, 'nbd.sock');
    const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
    await once(spawn(process.execPath, ['-e', script]), 'exit');
    expect(existsSync(path)).toBe(true);
    await unix(path);
    await expectServed(await NbdClient.connect(await connectUnix(path)));
  });

  it('that is answered on is in use', async () => {
    const path = join(directory.path, 'nbd.sock');
    await unix(path);
    await expect(listenUnix(server, path)).rejects.toMatchObject({ code: 'ADDRESS_IN_USE' });
    await expectServed(await NbdClient.connect(await connectUnix(path)));
  });

  it('does not replace a file that is no socket', async () => {
    const path = join(directory.path, 'notes');
    writeFileSync(path, 'keep me');
    await expect(listenUnix(server, path)).rejects.toMatchObject({ code: 'ADDRESS_IN_USE' });
    expect(statSync(path).size).toBe(7);
  });

  it('has a path of at most 107 bytes', async () => {
    const path = join(directory.path, 'x'.repeat(107 - directory.path.length));
    await expect(listenUnix(server, path)).rejects.toMatchObject({
      code: 'ADDRESS_BAD',
      message: expect.stringContaining('at most 107 bytes, this one 108'),
    });
    await unix(path.slice(0, -1));
  });

  it('needs its folder', async () => {
    const path = join(directory.path, 'none/nbd.sock');
    await expect(listenUnix(server, path)).rejects.toMatchObject({ code: 'ADDRESS_BAD' });
  });
});

/**
 * Seconds until the system looks after each peer that is connected to a local port.
 * Source: Documentation/networking/proc_net_tcp.rst: 2 is the timer of keep-alive, in 1/100 s.
 */
function keepAliveTimers(port: number): readonly number[] {
  const hex = port.toString(16).toUpperCase().padStart(4, '0');
  const line = new RegExp(`^ *\\d+: 0100007F:${hex} \\S+ 01 \\S+ 02:([0-9A-F]+) `, 'gm');
  const text = readFileSync('/proc/net/tcp', 'latin1');
  return [...text.matchAll(line)].map(([, ticks]) => Number.parseInt(ticks ?? '', 16) / 100);
}

describe('TCP', () => {
  it('takes a free port for 0, and says which', async () => {
    const listener = await listenTcp(server, '127.0.0.1', 0);
    listeners.push(listener);
    const uri = new URL(listener.uri('disk'));
    expect(uri.pathname).toBe('/disk');
    const socket = await connectTcp('127.0.0.1', Number(uri.port));
    await expectServed(await NbdClient.connect(socket));
    await expect(listenTcp(server, '127.0.0.1', Number(uri.port))).rejects.toMatchObject({
      code: 'ADDRESS_IN_USE',
    });
  });

  // The host of a client lost its power; the server waited for its next request for ever, and counted
  // it among those that have the live disk open, so that every rollback was refused.
  it('asks from time to time whether a silent peer is still there', async () => {
    const listener = await listenTcp(server, '127.0.0.1', 0);
    listeners.push(listener);
    const port = Number(new URL(listener.uri()).port);
    clients.push(await NbdClient.connect(await connectTcp('127.0.0.1', port)));
    // Until what was sent is acknowledged, there is another timer.
    await until(() => keepAliveTimers(port).length === 1, 'there is a timer');
    const [seconds = 0] = keepAliveTimers(port);
    expect(Math.abs(seconds - 60)).toBeLessThan(20);
  });

  it('does not listen on an address that is not here', async () => {
    await expect(listenTcp(server, '192.0.2.1', 0)).rejects.toMatchObject({ code: 'ADDRESS_BAD' });
  });
});

/** A second descriptor of a server's socket, as a process inherits one. */
function duplicate(given: Server): number {
  const libc = koffi.load('libc.so.6');
  const dup: (fd: number) => number = libc.func('int dup(int)');
  const handle: unknown = Reflect.get(given, '_handle');
  return dup(Number(Reflect.get(Object(handle), 'fd')));
}

describe('socket activation', () => {
  it('serves a descriptor that somebody else listens on', async () => {
    const given = createServer().listen(0, '127.0.0.1');
    await once(given, 'listening');
    const address = given.address();
    const port = typeof address === 'object' ? (address?.port ?? 0) : 0;
    const listener = await listenFd(server, duplicate(given));
    listeners.push(listener);
    given.close();
    await once(given, 'close');
    expect(listener.uri('disk')).toBe(`nbd://127.0.0.1:${port}/disk`);
    await expectServed(await NbdClient.connect(await connectTcp('127.0.0.1', port)));
  });

  it('is meant for the process that LISTEN_PID names', () => {
    expect(systemdFds({ LISTEN_PID: '12', LISTEN_FDS: '2' }, 12)).toEqual([3, 4]);
    expect(systemdFds({ LISTEN_PID: '13', LISTEN_FDS: '2' }, 12)).toEqual([]);
    expect(systemdFds({ LISTEN_FDS: '2' }, 12)).toEqual([]);
    expect(systemdFds({ LISTEN_PID: '12', LISTEN_FDS: 'x' }, 12)).toEqual([]);
  });
});
