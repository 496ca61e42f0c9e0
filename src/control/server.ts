/**
 * A directory being served: its volumes open, NBD and control sockets listening.
 *
 * Invariants:
 *   - What could not be started whole is taken down whole.
 *   - Volumes are closed last, when nobody can ask for anything any more.
 */
import { join } from 'node:path';
import { isVarveError, VarveError } from '../base/errors.ts';
import type { World } from '../base/world.ts';
import type { ExportDirectory, ExportListing, OpenExport } from '../device/block-device.ts';
import type { MetaFiles } from '../device/meta-files.ts';
import type { WriteMode } from '../volume/report.ts';
import type { ControlDoor } from './control-channel.ts';
import type { ServerInfo } from './control-protocol.ts';
import { serveControl } from './control-session.ts';
import { VolumeExports } from './export-directory.ts';
import { LocalOperator } from './local-operator.ts';
import { Receptions } from './receptions.ts';
import { ToldRefusals } from './told-refusals.ts';
import { tcpUri, unixUri, type TcpAddress } from './uris.ts';
import type { VolumeDirectory } from './volume-directory.ts';
import { ServedVolumes } from './volume-pool.ts';

export const CONTROL_SOCKET = 'control.sock';
export const NBD_SOCKET = 'nbd.sock';
export const SERVER_LOCK = 'lock';

/** The NBD server on sockets of the machine. */
export interface FrontEnd {
  /** @throws VarveError ADDRESS_IN_USE, ADDRESS_BAD, PERMISSION */
  listenUnix(path: string): Promise<void>;
  /** @returns the address that was taken */
  listenTcp(address: TcpAddress): Promise<TcpAddress>;
  /** Answers what was asked, and ends all connections. */
  close(): Promise<void>;
}

export interface ServerPorts {
  readonly files: MetaFiles;
  readonly world: World;
  readonly controlDoor: ControlDoor;
  readonly startFrontEnd: (exports: ExportDirectory) => Promise<FrontEnd>;
  readonly pid: number;
}

export interface ServeOptions {
  /** Absolute; default DIR/nbd.sock. */
  readonly unixPath?: string | undefined;
  readonly tcp?: TcpAddress | undefined;
  /** Makes volumes, when the addresses are taken and before any volume is opened. */
  readonly prepare?: (() => Promise<void>) | undefined;
  /** Told what clients were refused, a line each. */
  readonly onRefusal?: ((line: string) => void) | undefined;
  /** For all volumes, as long as this server runs; default: what each volume.json says. */
  readonly writeMode?: WriteMode | undefined;
}

export interface NotServed {
  readonly name: string;
  readonly error: VarveError;
}

export class Server {
  readonly info: ServerInfo;
  /** The address that was taken, if one was asked for. */
  readonly tcp: TcpAddress | undefined;
  readonly names: readonly string[];
  /** Volumes that are there and not served: why. */
  readonly failures: readonly NotServed[];
  /** What their openings cut off and could not keep aside: a line each. */
  readonly unkept: readonly string[];
  readonly #ends: readonly End[];
  #stopping: Promise<void> | undefined;

  private constructor(started: Started, ends: readonly End[]) {
    this.info = started.info;
    this.tcp = started.tcp;
    this.names = started.names;
    this.failures = started.failures;
    this.unkept = started.unkept;
    this.#ends = ends;
  }

  /** @throws VarveError VOLUME_LOCKED, ADDRESS_IN_USE, and what opening a volume throws */
  static async start(
    directory: VolumeDirectory,
    options: ServeOptions,
    ports: ServerPorts,
  ): Promise<Server> {
    const ends: End[] = [];
    try {
      return new Server(await startParts(directory, { options, ports, ends }), ends);
    } catch (error) {
      await endAll(ends);
      throw error;
    }
  }

  /** Finishes what was accepted, flushes, and closes the volumes; idempotent. */
  stop(): Promise<void> {
    this.#stopping ??= endAll(this.#ends);
    return this.#stopping;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

type End = () => Promise<void>;

interface Around {
  readonly options: ServeOptions;
  readonly ports: ServerPorts;
  readonly ends: End[];
}

interface Started {
  readonly info: ServerInfo;
  readonly tcp: TcpAddress | undefined;
  readonly names: readonly string[];
  readonly failures: readonly NotServed[];
  readonly unkept: readonly string[];
}

/** Newest first, each whether or not the others fail; the first failure is thrown. */
async function endAll(ends: readonly End[]): Promise<void> {
  const failures: unknown[] = [];
  for (const end of ends.toReversed()) {
    try {
      await end();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}

/** Exports of volumes that are still being opened. */
class AwaitedExports implements ExportDirectory {
  opened: (exports: ExportDirectory) => void = () => undefined;
  readonly #exports = new Promise<ExportDirectory>((resolve) => {
    this.opened = resolve;
  });

  async list(): Promise<readonly ExportListing[]> {
    return (await this.#exports).list();
  }

  async open(name: string): Promise<OpenExport> {
    return (await this.#exports).open(name);
  }
}

/** Closed after the front end, which was there before: so it ends before them. */
async function openVolumes(
  directory: VolumeDirectory,
  { options, ends }: Around,
): Promise<ServedVolumes> {
  const volumes = await ServedVolumes.open(directory);
  // Behind the lock, which is let go last.
  ends.splice(1, 0, () => volumes.close());
  const { writeMode } = options;
  if (writeMode === undefined) return volumes;
  for (const name of volumes.names()) volumes.find(name)?.setWriteMode(writeMode);
  return volumes;
}

/** @param around - `ends`: takes what ends each part, as soon as it is there */
async function startParts(directory: VolumeDirectory, around: Around): Promise<Started> {
  const { options, ports, ends } = around;
  const isThere = await directory.exists();
  if (!isThere && options.prepare === undefined) throw directoryMissing(directory);
  if (isThere) await lockDirectory(directory, around);
  // Addresses first: one that is in use is told before any volume is opened. Clients that come
  // before the volumes are open wait for them.
  const exports = new AwaitedExports();
  const unixPath = options.unixPath ?? join(directory.path, NBD_SOCKET);
  const frontEnd = await ports.startFrontEnd(exports);
  ends.push(() => frontEnd.close());
  const isUnixEarly = isThere || options.unixPath !== undefined;
  if (isUnixEarly) await frontEnd.listenUnix(unixPath);
  const tcp = options.tcp === undefined ? undefined : await frontEnd.listenTcp(options.tcp);
  await options.prepare?.();
  if (!isThere) await lockDirectory(directory, around);
  if (!isUnixEarly) await frontEnd.listenUnix(unixPath);
  const volumes = await openVolumes(directory, around);
  const { clock } = ports.world;
  const { onRefusal = () => undefined } = options;
  exports.opened(new ToldRefusals(new VolumeExports(volumes), clock, onRefusal));
  const names = volumes.names();
  const uris = urisOf(names, unixPath, tcp);
  const info = { pid: ports.pid, nbdSocket: unixPath, uris };
  const operator = new LocalOperator(directory, volumes, { isServed: true });
  const receptions = new Receptions(volumes);
  const control = await ports.controlDoor.listen(join(directory.path, CONTROL_SOCKET), (channel) =>
    serveControl(channel, { desk: { operator, receptions, info }, world: ports.world }),
  );
  ends.push(() => control.close());
  const failures = volumes.failed().flatMap((name) => {
    const error = volumes.failure(name);
    return error === undefined ? [] : [{ name, error }];
  });
  return { info, tcp, names, failures, unkept: unkeptOf(volumes) };
}

/** Of requests whose flush was never answered: nothing is missing, but somebody may ask for them. */
function unkeptOf(volumes: ServedVolumes): readonly string[] {
  return volumes.names().flatMap((name) => {
    const cut = volumes.find(name)?.core.recovery.cut;
    if (cut?.unkept === undefined) return [];
    const what = `"${name}": what a torn tail after generation ${cut.generation} held`;
    return [`${what} could not be kept aside: ${cut.unkept}`];
  });
}

function directoryMissing(directory: VolumeDirectory): VarveError {
  return new VarveError('FILE_BAD', `the directory ${directory.path} does not exist`);
}

/** Let go last. */
async function lockDirectory(directory: VolumeDirectory, { ports, ends }: Around): Promise<void> {
  if (!(await directory.exists())) throw directoryMissing(directory);
  try {
    const lock = await ports.files.lock(join(directory.path, SERVER_LOCK));
    ends.unshift(() => lock.release());
  } catch (error) {
    if (!isVarveError(error, 'VOLUME_LOCKED')) throw error;
    const next = 'use the server that runs, as commands do by themselves, or stop it first';
    const told = `a server serves this directory already: ${error.detail}`;
    throw new VarveError('VOLUME_LOCKED', told, { cause: error, next });
  }
}

/** For each volume a URI on each socket; the empty name where there is no volume yet. */
function urisOf(
  names: readonly string[],
  unixPath: string,
  tcp: TcpAddress | undefined,
): readonly string[] {
  const shown = names.length === 0 ? [''] : names;
  return shown.flatMap((name) => [
    unixUri(name, unixPath),
    ...(tcp === undefined ? [] : [tcpUri(name, tcp)]),
  ]);
}
