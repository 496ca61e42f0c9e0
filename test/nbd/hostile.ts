/**
 * Hostile minutes: mutated sessions, idle connections by the thousand, clients that never read,
 * payloads sent in part, all at once, while a client that behaves works and verifies.
 *
 * By hand: `npx vitest run test/nbd/hostile` with VARVE_HOSTILE_SECONDS=240.
 */
import { strictEqual } from 'node:assert';
import { NbdClient } from '../../src/nbd/client.ts';
import type { Socket, SocketEvents } from '../../src/nbd/socket.ts';
import { SeededRandom } from '../sim/random.ts';
import {
  CMD_READ,
  command,
  handshake,
  mutatedSession,
  writeHeader,
} from '../support/nbd-session.ts';

export interface HostileOptions {
  /** A new connection to the server under test. */
  readonly connect: () => Promise<Socket>;
  readonly seconds: number;
  readonly seed: number;
  /** Served to the hostile ones; its content is lost. */
  readonly hostileExport: string;
  /** Served to the client that behaves. */
  readonly goodExport: string;
  readonly idleConnections?: number;
}

export interface HostileReport {
  sessions: number;
  idle: number;
  deaf: number;
  partial: number;
  /** Requests of the client that behaves, each verified. */
  good: number;
  /** The longest that one of them took. */
  goodMsMax: number;
}

const SIZE = 2 ** 26;
const MIB = 2 ** 20;
const IDLE_DEFAULT = 2000;
const LANES = { mutated: 12, deaf: 16, partial: 16 };

const sleep = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

/** A client that only sends; what comes is thrown away, or never read at all. */
class Rude implements SocketEvents {
  readonly #socket: Socket;
  isClosed = false;

  constructor(socket: Socket, isDeaf = false) {
    this.#socket = socket;
    socket.start(this);
    if (isDeaf) socket.pause();
  }

  data(): void {
    // Nobody listens.
  }

  target(): undefined {
    return undefined;
  }

  end(): void {
    this.#socket.end();
  }

  close(): void {
    this.isClosed = true;
  }

  /** Settles when it has left, or after a while when nobody takes it. */
  async send(bytes: Uint8Array, waitMs = 500): Promise<void> {
    const sent = new Promise<void>((resolve) => {
      this.#socket.write([bytes], resolve);
    });
    await Promise.race([sent, sleep(waitMs)]);
  }

  leave(isAbrupt: boolean): void {
    if (isAbrupt) this.#socket.destroy();
    else this.#socket.end();
  }

  destroy(): void {
    this.#socket.destroy();
  }
}

export async function hostileMinutes(options: HostileOptions): Promise<HostileReport> {
  const crowd = new Crowd(options);
  try {
    return await crowd.run();
  } finally {
    crowd.leave();
  }
}

class Crowd {
  readonly #options: HostileOptions;
  readonly #random: SeededRandom;
  readonly #all = new Set<Rude>();
  readonly #report = { sessions: 0, idle: 0, deaf: 0, partial: 0, good: 0, goodMsMax: 0 };
  #isOver = false;

  constructor(options: HostileOptions) {
    this.#options = options;
    this.#random = new SeededRandom(options.seed);
  }

  async run(): Promise<HostileReport> {
    const { seconds, idleConnections = IDLE_DEFAULT } = this.#options;
    const lanes = [
      this.#keepIdle(this.#random.fork('idle'), idleConnections),
      ...this.#lanes('mutated', (random) => this.#mutated(random)),
      ...this.#lanes('deaf', () => this.#deaf()),
      ...this.#lanes('partial', (random) => this.#partial(random)),
    ];
    const good = this.#behave(this.#random.fork('good'));
    const timer = sleep(seconds * 1000).then(() => (this.#isOver = true));
    try {
      await Promise.all([good, timer]);
    } finally {
      this.#isOver = true;
      await Promise.all(lanes);
    }
    return this.#report;
  }

  leave(): void {
    for (const rude of this.#all) rude.destroy();
  }

  #lanes(kind: keyof typeof LANES, once: (random: SeededRandom) => Promise<void>): Promise<void>[] {
    return Array.from({ length: LANES[kind] }, async (_, lane) => {
      const random = this.#random.fork(`${kind}-${lane}`);
      while (!this.#isOver) await once(random);
    });
  }

  async #rude(isDeaf = false): Promise<Rude | undefined> {
    try {
      const rude = new Rude(await this.#options.connect(), isDeaf);
      for (const other of this.#all) if (other.isClosed) this.#all.delete(other);
      this.#all.add(rude);
      return rude;
    } catch {
      // Turned away: it comes again.
      await sleep(50);
      return undefined;
    }
  }

  async #mutated(random: SeededRandom): Promise<void> {
    const rude = await this.#rude();
    if (rude === undefined) return;
    const bytes = mutatedSession(random, this.#options.hostileExport, SIZE);
    const cut = random.below(bytes.length + 1);
    if (cut > 0) await rude.send(bytes.subarray(0, cut));
    await sleep(random.below(10));
    if (cut < bytes.length && !rude.isClosed) await rude.send(bytes.subarray(cut));
    await sleep(random.below(100));
    rude.leave(random.chance(0.5));
    this.#report.sessions += 1;
    if (random.chance(0.9)) rude.destroy();
  }

  /** Asks for a lot, takes nothing, until it is thrown out or has had enough. */
  async #deaf(): Promise<void> {
    const rude = await this.#rude(true);
    if (rude === undefined) return;
    const asked = [handshake(this.#options.hostileExport)];
    for (let at = 0; at < 64; at += 1) {
      asked.push(command({ type: CMD_READ, offset: (at % 32) * MIB, length: MIB }));
    }
    await rude.send(Buffer.concat(asked));
    this.#report.deaf += 1;
    for (let i = 0; i < 50 && !this.#isOver && !rude.isClosed; i += 1) await sleep(100);
    rude.destroy();
  }

  /** Says that a lot comes, and sends a part of it. */
  async #partial(random: SeededRandom): Promise<void> {
    const rude = await this.#rude();
    if (rude === undefined) return;
    const length = random.pick([4096, MIB, 8 * MIB, 32 * MIB]);
    const begin = [handshake(this.#options.hostileExport), writeHeader(0, length)];
    await rude.send(Buffer.concat([...begin, Buffer.alloc(random.below(length))]));
    this.#report.partial += 1;
    for (let i = 0; i < 50 && !this.#isOver && !rude.isClosed; i += 1) await sleep(100);
    rude.destroy();
  }

  /** So many connections that say little or nothing, at any time. */
  async #keepIdle(random: SeededRandom, count: number): Promise<void> {
    let idle: Rude[] = [];
    const whole = handshake(this.#options.hostileExport);
    while (!this.#isOver) {
      idle = idle.filter(({ isClosed }) => !isClosed);
      for (let i = 0; i < 50 && idle.length < count; i += 1) {
        const rude = await this.#rude();
        if (rude === undefined) break;
        const said = random.pick([whole.length, 1 + random.below(whole.length), 0]);
        if (said > 0) await rude.send(whole.subarray(0, said));
        idle.push(rude);
        this.#report.idle += 1;
      }
      await sleep(20);
    }
  }

  /** Several requests at a time, each in its own part of the device, read back and compared. */
  async #behave(random: SeededRandom): Promise<void> {
    const socket = await this.#options.connect();
    const client = await NbdClient.connect(socket, { exportName: this.#options.goodExport });
    const lanes = Array.from({ length: 8 }, async (_, lane) => {
      const own = random.fork(`lane-${lane}`);
      while (!this.#isOver) await this.#verify(client, own, lane * MIB);
    });
    await Promise.all(lanes);
    await client.disconnect();
  }

  async #verify(client: NbdClient, random: SeededRandom, base: number): Promise<void> {
    const length = random.pick([512, 4096, 65_536, 300_000]);
    const offset = base + random.below(MIB - length);
    const source = Buffer.alloc(length, random.next32().toString(36));
    const began = performance.now();
    await client.write(offset, source);
    const read = await client.read(offset, length);
    const tookMs = Math.round(performance.now() - began);
    strictEqual(read.equals(source), true, 'a client reads what it wrote');
    this.#report.good += 1;
    this.#report.goodMsMax = Math.max(this.#report.goodMsMax, tookMs);
  }
}
