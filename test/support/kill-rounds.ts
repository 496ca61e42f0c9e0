/**
 * Rounds of one volume, each ended by a blow in the middle of writes, such as `kill -9` of its
 * server: served to libnbd, on a small disk with the smallest log, so that the log wraps and rounds
 * of destaging run.
 *
 * What is checked after each (law 1): the content is what some first part of the accepted requests
 * left, with all that a flush or FUA covered; in modes that promise more, all that was answered. The generation that `varve info` tells is the number of requests that are there. Some
 * servers are killed while they recover, too.
 *
 * The seed decides about requests and delays; how far they get is up to the machine.
 */
import { assert } from '../../src/base/assert.ts';
import type { WriteMode } from '../../src/volume/report.ts';
import { setTimeout as delay } from 'node:timers/promises';
import { SeededRandom } from '../sim/random.ts';
import { temporaryDirectory } from './files.ts';
import { LibNbd, NbdError, type Connection } from './libnbd.ts';
import { varve } from './run.ts';
import { SECTOR_BYTES, SectorHistory, type SectorRequest } from './sector-history.ts';
import { Server } from './server.ts';

/** What ends the lives of a server. */
export interface Blow extends AsyncDisposable {
  /** Words before the command line of a server. */
  readonly launcher?: readonly string[];
  /** Called when the volume was made, and before each server is started. */
  begin(random: SeededRandom): Promise<void>;
  /** Ends a server, ready or not, some time later. */
  strike(server: Server, random: SeededRandom): Promise<void>;
  /** Strikes when the server has ended in order. */
  strikeIdle(): Promise<void>;
  /** Whether all that was answered in that mode outlasts it. */
  spares(mode: WriteMode): boolean;
}

/** `kill -9`: nothing that the kernel has is lost. */
export const kill: Blow = {
  begin: () => Promise.resolve(),
  async strike(server, random) {
    await delay(random.between(20, WORK_MS_MAX));
    await server.kill();
  },
  strikeIdle: () => Promise.resolve(),
  spares: (mode) => mode !== 'back',
  [Symbol.asyncDispose]: () => Promise.resolve(),
};

export interface KillOptions {
  readonly seed: number;
  readonly rounds: number;
  /** 1: one after the other, so the rule is the strict one. */
  readonly inFlight: number;
  readonly connections: number;
  /** Of each life one of these. */
  readonly writeModes: readonly WriteMode[];
  /** Length of the longest request; 128 if not given. */
  readonly requestSectorsMax?: number;
  /** Default: `kill`. @param directory - that of the volume `disk` */
  readonly makeBlow?: (directory: string) => Promise<Blow>;
}

export interface KillReport {
  rounds: number;
  requests: number;
  answered: number;
  /** Requests that no flush had covered, and that a blow took. */
  taken: number;
  struckInRecovery: number;
  /** Payload of the requests that are there. */
  writtenBytes: number;
  /** Lives in which final storage moved on. */
  settled: number;
}

const DISK_BYTES = 16 * 1024 ** 2;
const LOG_SIZE = '74M';
const RING_SIZE = '64M';
const REQUEST_SECTORS_MAX = 128;
const BLOCK_SECTORS = 8;
export const WORK_MS_MAX = 500;

export async function killRounds(options: KillOptions): Promise<KillReport> {
  using directory = temporaryDirectory();
  const sizes = ['--size', String(DISK_BYTES), '--log-size', LOG_SIZE, '--ring-size', RING_SIZE];
  await varve(directory.path, ['create', 'disk', ...sizes]);
  await using blow = await (options.makeBlow?.(directory.path) ?? kill);
  await using worker = new LibNbd();
  const run = new KillRun(options, { directory: directory.path, worker, blow });
  for (let round = 0; round < options.rounds; round++) {
    try {
      await run.round();
    } catch (error) {
      throw new Error(`seed ${options.seed}, round ${round}`, { cause: error });
    }
  }
  await run.end();
  return run.report;
}

class KillRun {
  readonly report: KillReport = {
    rounds: 0,
    requests: 0,
    answered: 0,
    taken: 0,
    struckInRecovery: 0,
    writtenBytes: 0,
    settled: 0,
  };
  readonly #options: KillOptions;
  readonly #directory: string;
  readonly #worker: LibNbd;
  readonly #blow: Blow;
  readonly #random: SeededRandom;
  readonly #history: SectorHistory;
  #writeMode: WriteMode = 'back';
  #generation = 0;
  #settled = 0;

  constructor(
    options: KillOptions,
    around: { readonly directory: string; readonly worker: LibNbd; readonly blow: Blow },
  ) {
    this.#options = options;
    this.#directory = around.directory;
    this.#worker = around.worker;
    this.#blow = around.blow;
    this.#random = new SeededRandom(options.seed).fork('kill-rounds');
    this.#history = new SectorHistory(DISK_BYTES, options.seed + 1);
  }

  async round(): Promise<void> {
    const random = this.#random;
    while (random.chance(0.2)) {
      await this.#blow.begin(random);
      await this.#blow.strike(
        Server.startUnready(this.#directory, { launcher: this.#launcher }),
        random,
      );
      this.report.struckInRecovery += 1;
    }
    await using server = await this.#start();
    const connections = await this.#connect(server);
    await this.#check(server, connections);
    const struck = this.#blow.strike(server, random);
    const workers = Array.from({ length: this.#options.inFlight }, (_, lane) =>
      this.#work(connections, random.fork(`lane-${this.report.rounds}-${lane}`), () => {
        return server.isRunning;
      }),
    );
    await Promise.all([struck, ...workers]);
    for (const connection of connections) await connection.close();
    this.report.rounds += 1;
  }

  /** What the last blow left; then an end in order, which takes nothing. */
  async end(): Promise<void> {
    const server = await this.#start();
    try {
      const connections = await this.#connect(server);
      await this.#check(server, connections);
      const workers = connections.map((connection, lane) => this.#some(connection, lane));
      await Promise.all(workers);
      for (const connection of connections) await connection.close();
      assert((await server.stop()) === 0, 'SIGTERM ends the server with exit code 0');
    } finally {
      await server.kill();
    }
    for (const request of this.#history.requests) request.lasts = true;
    await this.#blow.strikeIdle();
    await using again = await this.#start();
    const [connection] = await this.#connect(again);
    assert(connection !== undefined, 'there is a connection');
    await this.#check(again, [connection]);
    await again.kill();
  }

  async #start(): Promise<Server> {
    await this.#blow.begin(this.#random);
    if (this.#blow.spares(this.#writeMode)) {
      for (const request of this.#history.requests) request.lasts ||= request.answered < Infinity;
    }
    this.#writeMode = this.#random.pick(this.#options.writeModes);
    const options = { writeMode: this.#writeMode, launcher: this.#launcher };
    return Server.start(this.#directory, options);
  }

  get #launcher(): readonly string[] {
    return this.#blow.launcher ?? [];
  }

  #connect(server: Server): Promise<Connection[]> {
    const { connections } = this.#options;
    return Promise.all(Array.from({ length: connections }, () => this.#worker.open(server.uri())));
  }

  async #check(server: Server, connections: readonly Connection[]): Promise<void> {
    const history = this.#history;
    const info = await server.info();
    const content = await connections[0]?.readAll();
    assert(content !== undefined, 'there is a connection');
    const found = history.decode(content);
    const accepted = info.head.generation - this.#generation;
    if (this.#options.inFlight === 1) {
      const fits = history.checkPrefix(found);
      assert(
        fits.includes(accepted),
        `${accepted} requests are there, it says; but ${fits.join()}`,
      );
    } else {
      const { least, most } = history.checkOrder(found);
      assert(
        accepted >= least && accepted <= most,
        `${accepted} requests are there, it says; but ${least} to ${most}`,
      );
    }
    this.report.requests += history.requests.length;
    const answered = history.requests.filter((one) => one.answered < Infinity).length;
    this.report.answered += answered;
    this.report.taken += Math.max(0, answered - accepted);
    this.report.writtenBytes += writtenBytes(history.requests.slice(0, accepted));
    if (info.settled.generation > this.#settled) this.report.settled += 1;
    this.#settled = info.settled.generation;
    this.#generation = info.head.generation;
    history.restart(found);
  }

  /** One request after the other, until the server is gone. */
  async #work(
    connections: readonly Connection[],
    random: SeededRandom,
    goesOn: () => boolean,
  ): Promise<void> {
    while (goesOn()) {
      try {
        await this.#step(random.pick(connections), random);
      } catch (error) {
        if (!(error instanceof NbdError)) throw error;
        // The socket may tell of the end before the process table does.
        for (let i = 0; i < 100 && goesOn(); i++) await delay(10);
        assert(!goesOn(), `only the blow ends a request: ${error.message}`);
        return;
      }
    }
  }

  async #some(connection: Connection, lane: number): Promise<void> {
    const random = this.#random.fork(`end-${lane}`);
    for (let i = 0; i < 50; i++) await this.#step(connection, random);
  }

  async #step(connection: Connection, random: SeededRandom): Promise<void> {
    if (random.chance(0.03)) {
      const answered = this.#history.flush();
      await connection.flush();
      answered();
      return;
    }
    const request = this.#request(random);
    const range = {
      offset: request.from * SECTOR_BYTES,
      length: (request.to - request.from) * SECTOR_BYTES,
    };
    const options = { fua: request.fua };
    if (request.kind === 'zero') await connection.zero(range, options);
    else if (request.kind === 'trim') await connection.trim(range, options);
    else await connection.fill(range, this.#history.stamp(request.number), options);
    this.#history.answer(request);
    if (request.fua) request.lasts = true;
  }

  #request(random: SeededRandom): SectorRequest {
    const fua = random.chance(0.03);
    // Zeros do not say whose they are, so they are for the strict rule only.
    const kind =
      this.#options.inFlight > 1 || random.chance(0.85)
        ? 'write'
        : random.pick(['zero', 'trim'] as const);
    const step = kind === 'trim' ? BLOCK_SECTORS : 1;
    const all = this.#history.sectors / step;
    const most = this.#options.requestSectorsMax ?? REQUEST_SECTORS_MAX;
    const count = random.between(1, most / step);
    const from = random.below(all - count + 1) * step;
    return this.#history.make({ kind, from, to: from + count * step, fua });
  }
}

function writtenBytes(requests: readonly SectorRequest[]): number {
  let sectors = 0;
  for (const { kind, from, to } of requests) sectors += kind === 'write' ? to - from : 0;
  return sectors * SECTOR_BYTES;
}
