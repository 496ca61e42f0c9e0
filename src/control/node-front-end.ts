/** The NBD server on sockets of the machine, as a served directory needs it. */
import { mebibytes, type ByteCount } from '../base/units.ts';
import type { Timers } from '../base/world.ts';
import type { ExportDirectory } from '../device/block-device.ts';
import { listenTcp, listenUnix, type Listener } from '../nbd/node-socket.ts';
import { NbdServer } from '../nbd/server.ts';
import type { FrontEnd } from './server.ts';
import type { TcpAddress } from './uris.ts';

/** Payloads and replies of all clients: one of the largest requests (68 MiB) and some more. */
const PAYLOAD_BUDGET_BYTES: ByteCount = mebibytes(80);
/** What is not answered after this time at the end is cut off. */
const GRACE_MS = 10_000;

class NodeFrontEnd implements FrontEnd {
  readonly #server: NbdServer;
  readonly #listeners: Listener[] = [];

  constructor(server: NbdServer) {
    this.#server = server;
  }

  async listenUnix(path: string): Promise<void> {
    this.#listeners.push(await listenUnix(this.#server, path));
  }

  async listenTcp({ host, port }: TcpAddress): Promise<TcpAddress> {
    const listener = await listenTcp(this.#server, host, port);
    this.#listeners.push(listener);
    return { host, port: Number(new URL(listener.uri()).port) };
  }

  async close(): Promise<void> {
    for (const listener of this.#listeners.splice(0)) await listener.close();
    await this.#server.close(GRACE_MS);
  }
}

export function nodeFrontEnd(exports: ExportDirectory, timers: Timers): FrontEnd {
  const payloadBudget = PAYLOAD_BUDGET_BYTES;
  return new NodeFrontEnd(NbdServer.create({ exports, timers, payloadBudget }));
}
