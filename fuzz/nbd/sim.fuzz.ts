/**
 * The real server and several of our real clients in a simulated world: any cuts of bytes, hardly
 * any room, streams that break anywhere, clients that stall, a device that is slow or fails, a
 * server that is killed or closed. Each client reads what it wrote, nothing hangs, and in the end
 * nothing is held. One seed is one run: some are run twice.
 */
import { assert } from '../../src/base/assert.ts';
import { VarveError } from '../../src/base/errors.ts';
import { kibibytes, type ByteCount } from '../../src/base/units.ts';
import { BUDGET_BYTES_MIN } from '../../src/nbd/limits.ts';
import type { SocketEvents } from '../../src/nbd/socket.ts';
import { PowerSupply } from '../../test/sim/power-supply.ts';
import { SeededRandom } from '../../test/sim/random.ts';
import { SimNbd } from '../../test/sim/sim-nbd.ts';
import { SimWorld } from '../../test/sim/sim-world.ts';
import { MemoryDevice, MemoryDirectory } from '../../test/support/nbd-memory-device.ts';
import { mutatedSession } from '../../test/support/nbd-session.ts';
import type { Counts, Fuzzer } from '../options.ts';
import { ModelClient, type ClientCounts } from './model-client.ts';

const PART_BYTES = 150_000;
const VICTIM_BYTES = 2 ** 20;
const OPERATIONS = 40;
/** Virtual: a run that takes longer hangs somewhere, or is held up for no reason. */
const RUN_US_MAX = 30 * 60 * 1_000_000;
const GRACE_MS = 2000;

class Bench {
  readonly world: SimWorld;
  readonly #power: PowerSupply;
  readonly #random: SeededRandom;
  readonly #device: MemoryDevice;
  readonly #victim = new MemoryDevice(VICTIM_BYTES);
  readonly #exports: MemoryDirectory;
  readonly #budget: ByteCount;
  readonly #counts: ClientCounts & Record<string, number> = {
    operations: 0,
    'refused operations': 0,
    'broken operations': 0,
    connections: 0,
    stalls: 0,
    runs: 1,
    kills: 0,
    closes: 0,
    resets: 0,
    'hostile clients': 0,
  };
  #nbd: SimNbd;
  #isOver = false;

  constructor(seed: number, clients: number) {
    this.world = new SimWorld(seed);
    this.#random = this.world.fork('bench');
    this.#power = new PowerSupply(this.world);
    this.#device = new MemoryDevice(clients * PART_BYTES);
    this.#device.before = this.#whim(this.world.fork('device'));
    this.#exports = new MemoryDirectory({ disk: this.#device, victim: this.#victim });
    this.#budget = this.#random.chance(0.5) ? BUDGET_BYTES_MIN : kibibytes(4096);
    this.#nbd = this.#serve();
  }

  get counts(): Counts {
    return this.#counts;
  }

  #serve(): SimNbd {
    const options = { payloadBudget: this.#budget };
    return SimNbd.create({ power: this.#power }, this.#exports, options);
  }

  /** Slow at times, broken at times; what an ended life asked for is never done. */
  #whim(random: SeededRandom): MemoryDevice['before'] {
    return () => {
      const mood = random.below(20);
      if (mood === 0) throw new VarveError('DEVICE_IO', 'a whim');
      if (mood === 1) return Promise.reject(new VarveError('BLOCK_CORRUPT', 'another whim'));
      if (mood > 12) return undefined;
      const { timers } = this.#power.life;
      return new Promise((resolve) => {
        timers.after(random.below(mood === 2 ? 100 : 3), resolve);
      });
    };
  }

  async run(clients: number): Promise<void> {
    const cancel = this.world.schedule(RUN_US_MAX, () => {
      this.world.fail(new Error('broken invariant: all clients come to their end in time'));
    });
    await this.world.run(async () => {
      const crowd = Array.from({ length: clients }, (_, i) => this.#client(i).run(OPERATIONS));
      const trouble = [this.#upheaval(), this.#hostile()];
      await Promise.all(crowd);
      this.#isOver = true;
      await Promise.all(trouble);
      await this.#end();
    });
    cancel();
  }

  #client(i: number): ModelClient {
    return new ModelClient({
      world: this.world,
      random: this.world.fork(`client ${i}`),
      part: { start: i * PART_BYTES, end: (i + 1) * PART_BYTES },
      size: this.#device.size,
      connect: (options) => this.#nbd.connect('disk', options),
      counts: this.#counts,
    });
  }

  /** The server is killed, or closes and comes back, now and then. */
  async #upheaval(): Promise<void> {
    const random = this.world.fork('upheaval');
    for (let left = random.below(4); left > 0 && !this.#isOver; left -= 1) {
      await this.world.sleep(random.below(3_000_000));
      if (random.chance(0.5)) {
        this.#counts['kills'] = (this.#counts['kills'] ?? 0) + 1;
        this.#power.kill();
        this.#power.restore();
        this.#device.openCount = 0;
        this.#victim.openCount = 0;
      } else {
        this.#counts['closes'] = (this.#counts['closes'] ?? 0) + 1;
        const before = this.world.nowUs;
        await this.#nbd.server.close(GRACE_MS);
        const tookUs = this.world.nowUs - before;
        assert(tookUs < (GRACE_MS + 500) * 1000, 'closing takes no longer than its grace');
        await this.#isEmpty();
      }
      this.#counts['resets'] = (this.#counts['resets'] ?? 0) + this.#nbd.network.counters.resets;
      this.#nbd = this.#serve();
    }
  }

  /** Clients that mean harm, or don't know better. */
  async #hostile(): Promise<void> {
    const random = this.world.fork('hostile');
    for (let left = random.below(4); left > 0 && !this.#isOver; left -= 1) {
      this.#counts['hostile clients'] = (this.#counts['hostile clients'] ?? 0) + 1;
      await this.world.sleep(random.below(1_000_000));
      const socket = this.#nbd.socket({ capacity: random.pick([100, 5000, 65_536]) });
      const deaf: SocketEvents = {
        data: () => undefined,
        target: () => undefined,
        end: () => undefined,
        close: () => undefined,
      };
      if (random.chance(0.7)) socket.start(deaf);
      // To a device of their own: nobody's part is changed.
      const bytes = mutatedSession(random, 'victim', VICTIM_BYTES);
      if (bytes.length > 0) socket.write([bytes], () => undefined);
      await this.world.sleep(random.below(10_000_000));
      if (random.chance(0.5)) socket.end();
      else socket.destroy();
      await this.world.sleep(random.below(10_000_000));
      socket.destroy();
    }
  }

  /** Nothing is left of anybody. */
  async #isEmpty(): Promise<void> {
    const { server } = this.#nbd;
    for (let i = 0; server.connections > 0; i += 1) {
      assert(i < 300, 'connections of clients that are gone end');
      await this.world.sleep(1_000_000);
    }
    const { used, usedMax, waiting } = server.budget;
    assert(used === 0 && waiting === 0, 'the budget returns to nothing');
    assert(usedMax <= this.#budget, 'the budget was kept');
    assert(this.#device.openCount + this.#victim.openCount === 0, 'every export was closed');
  }

  async #end(): Promise<void> {
    await this.#isEmpty();
    this.#counts['resets'] = (this.#counts['resets'] ?? 0) + this.#nbd.network.counters.resets;
    await this.#nbd.server.close(GRACE_MS);
  }
}

async function once(seed: number): Promise<{ digest: number; counts: Counts }> {
  const clients = 1 + new SeededRandom(seed).fork('clients').below(4);
  const bench = new Bench(seed, clients);
  await bench.run(clients);
  return { digest: bench.world.digest, counts: bench.counts };
}

export const fuzzer: Fuzzer = {
  name: 'nbd-sim',
  runs: 25,
  async main({ seed, runs }) {
    const total: Record<string, number> = {};
    for (let run = 0; run < runs; run += 1) {
      const one = (seed + run) >>> 0;
      try {
        const { digest, counts } = await once(one);
        for (const [word, count] of Object.entries(counts)) {
          total[word] = (total[word] ?? 0) + count;
        }
        if (run % 16 === 0) assert((await once(one)).digest === digest, 'one seed is one run');
      } catch (error) {
        const what = error instanceof Error ? error.stack : String(error);
        throw new Error(`seed ${one}: ${what}`, { cause: error });
      }
    }
    return total;
  },
};
