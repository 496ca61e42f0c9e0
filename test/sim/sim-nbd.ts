/**
 * An NBD server in a simulated machine, and devices that reach it through a simulated network: the
 * real server and the real client, so that whatever drives a volume drives it as clients do.
 */
import type { ByteCount, ByteOffset } from '../../src/base/units.ts';
import { mebibytes } from '../../src/base/units.ts';
import type { Timers } from '../../src/base/world.ts';
import type { ExportDirectory, WriteOptions, ZeroOptions } from '../../src/device/block-device.ts';
import { openExport, parseExportName } from '../../src/control/export-directory.ts';
import { NbdClient } from '../../src/nbd/client.ts';
import type { ClientOptions } from '../../src/nbd/client-handshake.ts';
import { NbdServer } from '../../src/nbd/server.ts';
import type { Volume } from '../../src/volume/volume.ts';
import type { PowerSupply } from './power-supply.ts';
import { SimNetwork } from './sim-network.ts';
import type { PairOptions, SimSocket } from './sim-socket.ts';
import type { SimWorld } from './sim-world.ts';

/** Where a server lives: in a life of a machine, which may end, or in the world itself. */
export type Place =
  { readonly power: PowerSupply; readonly clientsInside?: boolean } | { readonly world: SimWorld };

export interface SimNbdOptions {
  /** For payloads and replies; 72 MiB if not given. */
  readonly payloadBudget?: ByteCount;
  readonly connectionsMax?: number;
  readonly stallTimeoutMs?: number;
  readonly trace?: (line: string) => void;
}

/** The disk and its moments, as a server offers them: `NAME` and `NAME@MOMENT`. */
export function exportsOf(volume: Volume): ExportDirectory {
  return {
    list: () => Promise.resolve([{ name: volume.name, description: '' }]),
    open: (name) => openExport(volume, parseExportName(name).moment),
  };
}

/**
 * A device over NBD. It is used as `BlockDevice` is; failures are NbdError with the errno that the
 * server answered, or VarveError SERVER_GONE when the connection broke.
 */
export class NbdDevice {
  readonly size: number;
  readonly requestBytesMax: number;
  readonly client: NbdClient;
  readonly socket: SimSocket;

  private constructor(client: NbdClient, socket: SimSocket) {
    this.client = client;
    this.socket = socket;
    this.size = client.size;
    this.requestBytesMax = client.info.payloadBytesMax ?? mebibytes(32);
  }

  static async connect(socket: SimSocket, options: ClientOptions): Promise<NbdDevice> {
    return new NbdDevice(await NbdClient.connect(socket, options), socket);
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    target.set(await this.client.read(offset, target.length));
  }

  write(offset: number, source: Uint8Array, options: WriteOptions): Promise<void> {
    return this.client.write(offset, source, options);
  }

  trim(offset: number, length: number, options: WriteOptions): Promise<void> {
    return this.client.trim(offset, length, options);
  }

  zero(offset: number, length: number, { fua, allocate }: ZeroOptions): Promise<void> {
    return this.client.zero(offset, length, { fua, noHole: allocate });
  }

  flush(): Promise<void> {
    return this.client.flush();
  }

  cache(offset: ByteOffset, length: ByteCount): Promise<void> {
    return this.client.cache(offset, length);
  }

  /** What is in flight is answered first; then the connection ends. */
  close(): Promise<void> {
    return this.client.disconnect();
  }
}

export class SimNbd {
  readonly network: SimNetwork;
  readonly server: NbdServer;

  private constructor(
    network: SimNetwork,
    timers: Timers,
    options: SimNbdOptions,
    exports: ExportDirectory,
  ) {
    this.network = network;
    this.server = NbdServer.create({ payloadBudget: mebibytes(72), ...options, exports, timers });
  }

  /** A server in the machine's current life, or in a world without machines. */
  static create(place: Place, exports: ExportDirectory, options: SimNbdOptions = {}): SimNbd {
    if ('world' in place) {
      return new SimNbd(new SimNetwork(place.world), place.world.timers, options, exports);
    }
    const { power, clientsInside = false } = place;
    const network = new SimNetwork(power.world, { power, clientsInside });
    return new SimNbd(network, power.life.timers, options, exports);
  }

  /** The client's end of a new connection. */
  socket(options: PairOptions = {}): SimSocket {
    const pieceBytes = (): number => this.server.pieceBytes;
    const { server, client } = this.network.pair({ pieceBytes, ...options });
    this.server.accept(server);
    return client;
  }

  /** @throws VarveError SERVER_GONE, VOLUME_UNKNOWN, PROTOCOL */
  connect(exportName: string, options: PairOptions & ClientOptions = {}): Promise<NbdDevice> {
    return NbdDevice.connect(this.socket(options), { ...options, exportName });
  }
}
