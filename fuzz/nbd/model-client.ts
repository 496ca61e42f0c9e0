/**
 * A client that knows what its part of a device holds, byte for byte, whatever becomes of its
 * connections. Nobody else writes to that part.
 *
 * Invariants:
 *   - What was answered is there; what was refused is not.
 *   - What was in flight when the stream broke is there whole or not at all, from the time on when
 *     the server knows of that.
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError } from '../../src/base/errors.ts';
import { NbdError } from '../../src/nbd/client.ts';
import type { ClientOptions } from '../../src/nbd/client-handshake.ts';
import type { SeededRandom } from '../../test/sim/random.ts';
import type { NbdDevice } from '../../test/sim/sim-nbd.ts';
import type { PairOptions } from '../../test/sim/sim-socket.ts';
import type { SimWorld } from '../../test/sim/sim-world.ts';

export interface Part {
  readonly start: number;
  readonly end: number;
}

export interface ClientCounts {
  operations: number;
  'refused operations': number;
  'broken operations': number;
  connections: number;
  stalls: number;
}

export interface ModelClientOptions {
  readonly world: SimWorld;
  readonly random: SeededRandom;
  readonly part: Part;
  /** Of the whole device. */
  readonly size: number;
  /** To the server that runs by now. */
  readonly connect: (options: PairOptions & ClientOptions) => Promise<NbdDevice>;
  readonly counts: ClientCounts;
}

/** Bytes of a part that are changed, or read, by a request in flight. */
interface Use {
  readonly offset: number;
  readonly length: number;
  readonly changes: boolean;
}

/** A change of which no answer came. */
interface Doubt {
  readonly offset: number;
  readonly after: Buffer;
}

const BLOCK = 4096;
const IN_FLIGHT_MAX = 12;
const LENGTHS = [1, 100, 512, 4096, 4097, 20_000, 70_000];
/** Before a client tries again. */
const PAUSE_US = 300_000;
/** How often it is looked whether the server knows of an end; it hears of one within this. */
const LOOK_US = 1000;

const isGone = (error: unknown): boolean => isVarveError(error, 'SERVER_GONE');

export class ModelClient {
  readonly #options: ModelClientOptions;
  readonly #model: Buffer;
  readonly #uses = new Set<Use>();
  #doubts: Doubt[] = [];

  constructor(options: ModelClientOptions) {
    this.#options = options;
    this.#model = Buffer.alloc(options.part.end - options.part.start);
  }

  /** Works through `operations`, over as many connections as that takes; then looks at it all. */
  async run(operations: number): Promise<void> {
    const { random } = this.#options;
    for (let left = operations; left > 0;) {
      const device = await this.#connected(false);
      if (device === undefined) continue;
      const share = Math.min(left, random.between(1, operations));
      left -= await this.#session(device, share);
      await this.#part(device);
    }
    for (;;) {
      const device = await this.#connected(true);
      if (device === undefined) continue;
      const isSeen = await this.#look(device);
      await device.close();
      if (isSeen) return;
    }
  }

  /** @returns undefined: the stream broke before it was of use, or the server was closing */
  async #connected(isGentle: boolean): Promise<NbdDevice | undefined> {
    const { world, random, connect, counts } = this.#options;
    counts.connections += 1;
    const isShort = !isGentle && random.chance(0.5);
    const cut = random.chance(0.05) ? 'byte' : random.pick(['any', 'whole'] as const);
    const structured = random.chance(0.8);
    let device: NbdDevice;
    try {
      device = await connect({
        capacity: random.pick([200, 5000, 65_536, 262_144]),
        cut,
        structured,
        ...(structured && random.chance(0.5) ? { metaContexts: ['base:allocation'] } : {}),
        ...(isShort ? { resetAfterBytes: random.between(1, 2 ** random.between(6, 20)) } : {}),
      });
    } catch (error) {
      if (!isGone(error) && !isVarveError(error, 'CLOSED')) throw error;
      await world.sleep(PAUSE_US);
      return undefined;
    }
    if (this.#doubts.length === 0 || (await this.#look(device))) return device;
    device.client.destroy();
    await world.sleep(PAUSE_US);
    return undefined;
  }

  /** Reads all of the part, and settles what was in doubt. */
  async #look(device: NbdDevice): Promise<boolean> {
    const { part } = this.#options;
    const seen = Buffer.alloc(part.end - part.start);
    for (let at = 0; at < seen.length;) {
      const piece = seen.subarray(at, at + Math.min(65_536, device.requestBytesMax));
      try {
        await device.read(part.start + at, piece);
      } catch (error) {
        if (isGone(error)) return false;
        // A device that fails now and then is asked again.
        if (error instanceof NbdError && error.errno === 'EIO') continue;
        if (error instanceof NbdError && error.errno === 'ESHUTDOWN') return false;
        throw error;
      }
      at += piece.length;
    }
    for (const { offset, after } of this.#doubts) {
      const before = this.#model.subarray(offset, offset + after.length);
      const now = seen.subarray(offset, offset + after.length);
      assert(now.equals(before) || now.equals(after), 'a broken change is there whole or not');
      now.copy(before);
    }
    this.#doubts = [];
    assert(seen.equals(this.#model), 'a part holds what was answered');
    return true;
  }

  /** @returns how many operations were asked */
  async #session(device: NbdDevice, operations: number): Promise<number> {
    const { world, random } = this.#options;
    const inFlight = new Set<Promise<void>>();
    let isOver = false;
    let asked = 0;
    while (asked < operations && !isOver) {
      asked += 1;
      const one = this.#operation(device).then((isAnswered) => {
        if (!isAnswered) isOver = true;
        inFlight.delete(one);
      });
      inFlight.add(one);
      if (inFlight.size >= random.between(1, IN_FLIGHT_MAX)) await Promise.race(inFlight);
      else if (random.chance(0.2)) await world.sleep(random.below(2000));
      if (random.chance(0.01)) this.#stall(device);
    }
    if (random.chance(0.3)) await this.#leave(device);
    await Promise.all(inFlight);
    return asked;
  }

  /** Reads nothing for a while; long enough to be thrown out, at times. */
  #stall(device: NbdDevice): void {
    const { world, random, counts } = this.#options;
    counts.stalls += 1;
    device.socket.stall();
    world.schedule(random.pick([1000, 100_000, 3_000_000, 70_000_000]), () => {
      device.socket.stall(false);
    });
  }

  /** Goes while requests may be in flight: rudely, politely, or by the half. */
  async #leave(device: NbdDevice): Promise<void> {
    const { world, random } = this.#options;
    await world.sleep(random.below(3000));
    const way = random.below(3);
    if (way === 0) device.client.destroy();
    else if (way === 1) device.socket.reset();
    else await device.close();
  }

  async #part(device: NbdDevice): Promise<void> {
    const { world, random } = this.#options;
    if (random.chance(0.7)) await device.close();
    else device.client.destroy();
    while (!device.socket.isUnheard) await world.sleep(LOOK_US);
    await world.sleep(LOOK_US);
  }

  /** @returns false: the connection is of no use any more */
  async #operation(device: NbdDevice): Promise<boolean> {
    const { random, counts, part } = this.#options;
    counts.operations += 1;
    const length = Math.min(random.pick(LENGTHS), this.#model.length, device.requestBytesMax);
    const offset = random.below(this.#model.length - length + 1);
    const kind = random.below(20);
    const use = { offset, length, changes: kind >= 8 && kind < 17 };
    if (kind < 17 && !this.#isFree(use)) return true;
    this.#uses.add(use);
    try {
      if (kind < 8) await this.#read(device, use);
      else if (kind < 13) await this.#write(device, use);
      else if (kind < 17) await this.#clear(device, use);
      else if (kind === 17) await device.flush();
      else if (kind === 18) await this.#status(device, part.start + offset, length);
      else await this.#outside(device, length);
    } catch (error) {
      return this.#endOf(error);
    } finally {
      this.#uses.delete(use);
    }
    return true;
  }

  #endOf(error: unknown): boolean {
    const { counts } = this.#options;
    if (isGone(error)) {
      counts['broken operations'] += 1;
      return false;
    }
    if (!(error instanceof NbdError)) throw error;
    counts['refused operations'] += 1;
    assert(['EIO', 'ESHUTDOWN'].includes(error.errno), `no reason for ${error.message}`);
    return error.errno === 'EIO';
  }

  #isFree({ offset, length, changes }: Use): boolean {
    for (const other of this.#uses) {
      const meets = other.offset < offset + length && offset < other.offset + other.length;
      if (meets && (changes || other.changes)) return false;
    }
    return true;
  }

  async #read(device: NbdDevice, { offset, length }: Use): Promise<void> {
    const target = Buffer.alloc(length);
    await device.read(this.#options.part.start + offset, target);
    const wanted = this.#model.subarray(offset, offset + length);
    assert(target.equals(wanted), 'a read gives what was written');
  }

  async #write(device: NbdDevice, { offset, length }: Use): Promise<void> {
    const { random, part } = this.#options;
    const source = Buffer.from(random.bytes(length));
    const after = Buffer.from(source);
    const done = device.write(part.start + offset, source, { fua: random.chance(0.2) });
    try {
      await this.#changed(done, { offset, after });
    } finally {
      // The loan is over: the caller does with it as it likes.
      source.fill(0xee);
    }
  }

  async #clear(device: NbdDevice, { offset, length }: Use): Promise<void> {
    const { random, part } = this.#options;
    const after = Buffer.from(this.#model.subarray(offset, offset + length));
    const start = part.start + offset;
    const fua = random.chance(0.2);
    if (random.chance(0.5)) {
      after.fill(0);
      const done = device.zero(start, length, { fua, allocate: random.chance(0.5) });
      await this.#changed(done, { offset, after });
      return;
    }
    const first = Math.ceil(start / BLOCK) * BLOCK;
    const last = Math.floor((start + length) / BLOCK) * BLOCK;
    if (last > first) after.fill(0, first - start, last - start);
    await this.#changed(device.trim(start, length, { fua }), { offset, after });
  }

  async #changed(done: Promise<void>, doubt: Doubt): Promise<void> {
    try {
      await done;
    } catch (error) {
      if (isGone(error)) this.#doubts.push(doubt);
      throw error;
    }
    doubt.after.copy(this.#model, doubt.offset);
  }

  async #status(device: NbdDevice, offset: number, length: number): Promise<void> {
    if (device.client.info.contexts.length === 0) return;
    const runs = (await device.client.status(offset, length)).get('base:allocation') ?? [];
    const covered = runs.reduce((sum, run) => sum + run.length, 0);
    assert(covered >= 1 && covered <= length, 'a status covers something, and no more than asked');
  }

  /** What lies beyond the end is refused, each kind in its way, and the connection goes on. */
  async #outside(device: NbdDevice, length: number): Promise<void> {
    const { random, size } = this.#options;
    const offset = size - random.below(length);
    const isWrite = random.chance(0.5);
    const wanted = isWrite ? 'ENOSPC' : 'EINVAL';
    try {
      if (isWrite) await device.write(offset, new Uint8Array(length + 1), { fua: false });
      else await device.client.read(offset, length + 1);
    } catch (error) {
      if (error instanceof NbdError && [wanted, 'ESHUTDOWN'].includes(error.errno)) return;
      throw error;
    }
    assert(false, 'a request beyond the end is refused');
  }
}
