/**
 * A sync fails, the page cache forgets what was dirty and goes on showing it, and the process is
 * killed before it has written that again. The next one reads it as if it were there, and then the
 * power goes: what was shown or answered in between is there after all.
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount, byteOffset, kibibytes } from '../../src/base/units.ts';
import type { LowerDevice } from '../../src/device/lower-device.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { needSame } from '../model/same-blocks.ts';
import { VolumeModel } from '../model/volume-model.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import type { SeededRandom } from '../sim/random.ts';
import type { SimDisk } from '../sim/sim-disk.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';
import type { OneSeed } from './one-seed.ts';

export interface ForgottenSyncsOptions extends OneSeed {
  readonly lives: number;
}

const BLOCKS = 64;
const WRITE_BLOCKS_MAX = 4;

class ForgottenSyncs {
  readonly #options: ForgottenSyncsOptions;
  readonly #world: SimWorld;
  readonly #power: PowerSupply;
  readonly #sim: SimVolume;
  readonly #random: SeededRandom;
  readonly #model = new VolumeModel(BLOCKS * BLOCK_BYTES);
  /** What a loss must not take: it was answered, or shown. */
  #least = 0;
  /** How often a sync fails in this life. */
  #chance = 0;
  #failed = false;

  constructor(options: ForgottenSyncsOptions) {
    this.#options = options;
    this.#world = new SimWorld(options.seed);
    this.#power = new PowerSupply(this.#world);
    this.#random = this.#world.random.fork('forgotten-syncs');
    this.#sim = new SimVolume(this.#power, {
      size: byteCount(this.#model.size),
      segmentBytes: kibibytes(32),
      slots: this.#random.pick([10, 16]),
    });
    const sim = this.#sim;
    const devices = sim.devices.bind(sim);
    sim.devices = () => {
      const { log, final, sums, undo } = devices();
      return {
        log: this.#forgetful(log, sim.log),
        final: this.#forgetful(final, sim.final),
        sums: this.#forgetful(sums, sim.sums),
        undo,
      };
    };
  }

  async run(): Promise<void> {
    await this.#world.run(() => this.#sim.format(this.#power.life));
    for (let life = 0; life < this.#options.lives; life++) {
      // One that the disks trouble, and one that finds what it left.
      this.#chance = life % 2 === 0 ? this.#random.pick([0.1, 0.5]) : 0;
      this.#failed = false;
      await this.#power.runLife(() => this.#live());
      if (this.#power.alive && this.#failed) this.#power.kill();
      if (this.#power.alive) this.#power.cut();
      this.#power.restore();
    }
    this.#chance = 0;
    await this.#world.run(async () => {
      const volume = await this.#open();
      await volume.close();
    });
  }

  #forgetful(device: LowerDevice, disk: SimDisk): LowerDevice {
    return {
      name: device.name,
      size: device.size,
      read: (offset, target) => device.read(offset, target),
      write: (offset, sources) => device.write(offset, sources),
      punch: (offset, length) => device.punch(offset, length),
      sync: (point) => {
        if (this.#chance > 0 && this.#random.chance(this.#chance)) {
          disk.failNextSync({ point, dropDirty: true });
          // Before, or while, or after it is written again.
          this.#plan('kill', 2 + this.#random.below(6));
          this.#failed = true;
        }
        return device.sync(point);
      },
      allocated: () => device.allocated(),
      close: () => device.close(),
    };
  }

  #plan(loss: 'cut' | 'kill', afterOperations: number): void {
    if (this.#power.alive) this.#power.plan({ loss, afterOperations });
  }

  async #live(): Promise<void> {
    try {
      const volume = await this.#open();
      // Soon, so that no round makes lasting what the opening took.
      if (this.#chance === 0) this.#plan('cut', 1 + this.#random.below(40));
      await this.#work(volume);
    } catch (error) {
      const isTold = isVarveError(error, 'DEVICE_IO') || isVarveError(error, 'VOLUME_FAILED');
      if (!this.#failed || !isTold) throw error;
    }
  }

  async #open(): Promise<Volume> {
    const volume = await this.#sim.open(this.#power.life);
    const { head } = volume.core;
    const { head: most } = this.#model;
    const isPrefix = head >= this.#least && head <= most;
    assert(isPrefix, `generation ${head} lies in [${this.#least}, ${most}]`);
    this.#model.cut(head);
    this.#least = head;
    const content = new Uint8Array(this.#model.size);
    await volume.live().read(byteOffset(0), content);
    needSame(content, this.#model, head, 'the live disk');
    return volume;
  }

  async #work(volume: Volume): Promise<void> {
    const random = this.#random;
    // Who only meets RAM goes on for a while after the end of its life.
    const { life } = this.#power;
    const steps = 10 + random.below(100);
    for (let i = 0; i < steps && life.alive; i++) {
      this.#options.onStep?.();
      const block = random.below(BLOCKS - WRITE_BLOCKS_MAX);
      const offset = byteOffset(block * BLOCK_BYTES);
      const bytes = random.bytes((1 + random.below(WRITE_BLOCKS_MAX)) * BLOCK_BYTES);
      const head = this.#model.write(offset, bytes);
      const fua = random.chance(0.1);
      await volume.live().write(offset, bytes, { fua });
      const isFlushed = random.chance(0.2);
      if (isFlushed) await volume.live().flush();
      if (!life.alive) return;
      if (fua || isFlushed) this.#least = head;
      if (random.chance(0.1)) await this.#world.sleep(random.below(20_000));
    }
    if (life.alive && random.chance(0.3)) {
      await volume.close();
      if (life.alive) this.#least = this.#model.head;
    }
  }
}

export async function runForgottenSyncs(options: ForgottenSyncsOptions): Promise<void> {
  await new ForgottenSyncs(options).run();
}
