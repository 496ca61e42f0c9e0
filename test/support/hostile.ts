/**
 * Clients that mean harm or know no better, many at once: sessions with bytes changed, connections
 * that say nothing, clients that never read, payloads that stop in the middle.
 */
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { SeededRandom } from '../sim/random.ts';
import { CMD_READ, command, handshake, mutatedSession, writeHeader } from './nbd-session.ts';

export interface HostileOptions {
  readonly socket: string;
  readonly exportName: string;
  readonly size: number;
  readonly seed: number;
  readonly seconds: number;
}

export interface HostileReport {
  sessions: number;
  idle: number;
  deaf: number;
  stalled: number;
}

const IDLE = 1500;
const DEAF = 24;
const STALLED = 24;
const MUTANTS = 16;
const SESSION_MS_MAX = 300;
const MIB = 1024 ** 2;

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
  readonly #sockets = new Set<Socket>();
  readonly #report: HostileReport = { sessions: 0, idle: 0, deaf: 0, stalled: 0 };

  constructor(options: HostileOptions) {
    this.#options = options;
    this.#random = new SeededRandom(options.seed);
  }

  async run(): Promise<HostileReport> {
    const end = performance.now() + this.#options.seconds * 1000;
    const isOver = (): boolean => performance.now() >= end;
    await Promise.all([
      this.#keep('idle', IDLE, (random) => this.#idle(random), isOver),
      this.#keep('deaf', DEAF, () => this.#deaf(), isOver),
      this.#keep('stalled', STALLED, () => this.#stalled(), isOver),
      ...Array.from({ length: MUTANTS }, (_, lane) => {
        return this.#mutants(this.#random.fork(`mutant-${lane}`), isOver);
      }),
    ]);
    return this.#report;
  }

  leave(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** So many of a kind at any time: who is thrown out comes back. */
  async #keep(
    kind: 'idle' | 'deaf' | 'stalled',
    count: number,
    make: (random: SeededRandom) => Socket,
    isOver: () => boolean,
  ): Promise<void> {
    const random = this.#random.fork(kind);
    const those = new Set<Socket>();
    while (!isOver()) {
      for (let i = 0; i < 50 && those.size < count; i++) {
        const socket = make(random);
        those.add(socket);
        socket.on('close', () => those.delete(socket));
        this.#report[kind] += 1;
      }
      await delay(20);
      // Who does not read learns only by writing that the server has thrown it out.
      if (kind === 'deaf' && random.chance(0.02)) {
        for (const socket of those) socket.write(command({ type: CMD_READ, offset: 0, length: 1 }));
      }
    }
  }

  async #mutants(random: SeededRandom, isOver: () => boolean): Promise<void> {
    const { exportName, size } = this.#options;
    while (!isOver()) {
      const socket = this.#connect();
      const bytes = mutatedSession(random, exportName, size);
      const cut = random.below(bytes.length + 1);
      socket.write(bytes.subarray(0, cut));
      if (random.chance(0.5)) await delay(random.below(10));
      socket.write(bytes.subarray(cut));
      socket.resume();
      const waitMs = random.below(SESSION_MS_MAX);
      for (let ms = 0; ms < waitMs && !socket.destroyed; ms += 10) await delay(10);
      if (random.chance(0.5)) socket.destroy();
      else socket.end();
      this.#report.sessions += 1;
    }
  }

  #idle(random: SeededRandom): Socket {
    const socket = this.#connect();
    const whole = handshake(this.#options.exportName);
    const said = random.pick([whole.length, random.below(whole.length), 0]);
    socket.write(whole.subarray(0, said));
    return socket;
  }

  /** Asks for a lot, and takes nothing. */
  #deaf(): Socket {
    const socket = this.#connect();
    socket.pause();
    socket.write(handshake(this.#options.exportName));
    for (let i = 0; i < 64; i++) {
      socket.write(command({ type: CMD_READ, offset: i * MIB, length: MIB }));
    }
    return socket;
  }

  /** Says that a lot comes, and sends half of it. */
  #stalled(): Socket {
    const socket = this.#connect();
    socket.write(handshake(this.#options.exportName));
    socket.resume();
    socket.write(writeHeader(0, 8 * MIB));
    socket.write(Buffer.alloc(4 * MIB));
    return socket;
  }

  #connect(): Socket {
    const socket = connect(this.#options.socket);
    this.#sockets.add(socket);
    // To be thrown out is what they are here for.
    socket.on('error', () => undefined);
    socket.on('close', () => this.#sockets.delete(socket));
    return socket;
  }
}
