/**
 * Automatic snapshots are deleted by hand, the clock is set back, and their hours end once more: what
 * is kept then has the same name. The power goes in the round that keeps it, where the deletion is
 * still in the log, before the checkpoint that has the new one. What a checkpoint had is there after
 * it, and reads as it was.
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount, byteOffset, kibibytes } from '../../src/base/units.ts';
import { NO_RETENTION } from '../../src/volume/retention-policy.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { needSame } from '../model/same-blocks.ts';
import { VolumeModel } from '../model/volume-model.ts';
import { PowerSupply, type Life } from '../sim/power-supply.ts';
import type { SeededRandom } from '../sim/random.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';
import type { OneSeed } from './one-seed.ts';

export interface HoursAgainOptions extends OneSeed {
  readonly lives: number;
}

const BLOCKS = 64;
const MINUTE_US = 60_000_000;
const STEPS = 300;

class HoursAgain {
  readonly #options: HoursAgainOptions;
  readonly #world: SimWorld;
  readonly #power: PowerSupply;
  readonly #sim: SimVolume;
  readonly #random: SeededRandom;
  readonly #model = new VolumeModel(BLOCKS * BLOCK_BYTES);
  /** Automatic snapshots that a loss must not take: generation of each, by label. */
  #kept = new Map<string, number>();
  #deleting: number | undefined;
  #flushed = 0;
  /** No loss comes any more. */
  #isOver = false;

  constructor(options: HoursAgainOptions) {
    this.#options = options;
    this.#world = new SimWorld(options.seed);
    this.#power = new PowerSupply(this.#world);
    this.#random = this.#world.random.fork('hours-again');
    this.#sim = new SimVolume(this.#power, {
      size: byteCount(this.#model.size),
      segmentBytes: kibibytes(32),
      slots: this.#random.pick([8, 12]),
      undoBytes: byteCount(kibibytes(64) + 400 * kibibytes(32)),
    });
  }

  async run(): Promise<void> {
    await this.#world.run(() => this.#sim.format(this.#power.life));
    for (let i = 0; i < this.#options.lives; i++) {
      await this.#power.runLife(async (life) => {
        const volume = await this.#open(life);
        await this.#live(volume, life);
      });
      if (this.#power.alive) this.#power.cut();
      this.#power.restore();
    }
    this.#isOver = true;
    await this.#world.run(async () => {
      const volume = await this.#open(this.#power.life);
      await volume.close();
    });
  }

  async #open(life: Life): Promise<Volume> {
    const retention = { ...NO_RETENTION, hourly: 24 };
    const volume = await this.#sim.open(life, { retention });
    const { head } = volume.core;
    const isPrefix = head >= this.#flushed && head <= this.#model.head;
    assert(isPrefix, `generation ${head} lies in [${this.#flushed}, ${this.#model.head}]`);
    this.#model.cut(head);
    this.#flushed = head;
    const found = automatic(volume);
    for (const [label, generation] of this.#kept) {
      assert(found.get(label) === generation, `${label} is kept, at generation ${generation}`);
    }
    this.#kept = found;
    this.#deleting = undefined;
    // A round may begin while they are read.
    this.#watch(volume, life);
    for (const [label, generation] of found) await this.#read(volume, label, generation);
    return volume;
  }

  async #read(volume: Volume, label: string, generation: number): Promise<void> {
    const got = new Uint8Array(this.#model.size);
    try {
      const device = volume.openMoment(await volume.resolve(label));
      await device.read(byteOffset(0), got);
      await device.close();
    } catch (error) {
      // A round has let it go meanwhile.
      if (isVarveError(error) && !automatic(volume).has(label)) return;
      throw error;
    }
    needSame(got, this.#model, generation, label);
  }

  /** What each checkpoint holds; and the power goes behind some of them, and behind horizons. */
  #watch(volume: Volume, life: Life): void {
    const { log } = volume.core;
    const publish = log.publish.bind(log);
    log.publish = async (patch, point) => {
      await publish(patch, point);
      if (point === 'horizon') this.#aim(life);
    };
    const publishCheckpoint = log.publishCheckpoint.bind(log);
    log.publishCheckpoint = async (make, patch) => {
      // Until it is durable either one counts.
      const both = automatic(volume);
      for (const [label, generation] of this.#kept) {
        if (both.get(label) !== generation) this.#kept.delete(label);
      }
      await publishCheckpoint(make, patch);
      if (!life.alive) return;
      this.#kept = automatic(volume);
      for (const [label, generation] of this.#kept) {
        if (generation === this.#deleting) this.#kept.delete(label);
      }
    };
  }

  #aim(life: Life): void {
    if (this.#isOver || !life.alive || !this.#random.chance(0.3)) return;
    this.#power.plan({ loss: 'cut', afterOperations: 1 + this.#random.below(30) });
  }

  async #live(volume: Volume, life: Life): Promise<void> {
    const random = this.#random;
    for (let i = 0; i < STEPS && life.alive; i++) {
      this.#options.onStep?.();
      const turn = random.below(100);
      if (turn < 6) await this.#again(volume);
      else if (turn < 30) this.#world.jumpWall((1 + random.below(30)) * MINUTE_US);
      else await this.#write(volume, life);
    }
  }

  async #write(volume: Volume, life: Life): Promise<void> {
    const random = this.#random;
    const bytes = random.bytes(BLOCK_BYTES);
    const offset = byteOffset(random.below(BLOCKS) * BLOCK_BYTES);
    const head = this.#model.write(offset, bytes);
    const fua = random.chance(0.1);
    await volume.live().write(offset, bytes, { fua });
    if (fua && life.alive) this.#flushed = head;
  }

  /** Deletes one of the newest, and its hour is not over. */
  async #again(volume: Volume): Promise<void> {
    const all = volume.core.catalogue.automatic();
    const one = all.at(-1 - this.#random.below(Math.max(1, Math.min(3, all.length))));
    if (one === undefined) return;
    // It may be there after a loss, and may not.
    this.#kept.delete(one.label);
    this.#deleting = one.generation;
    try {
      await volume.deleteSnapshot(one.label);
    } catch (error) {
      // A round has let it go meanwhile.
      if (!isVarveError(error, 'SNAPSHOT_UNKNOWN')) throw error;
    }
    this.#deleting = undefined;
    if (!this.#random.chance(0.7)) return;
    this.#world.jumpWall(Math.min(0, one.momentWallUs - this.#world.clock.wallUs()));
  }
}

function automatic(volume: Volume): Map<string, number> {
  const all = volume.core.catalogue.automatic();
  return new Map(all.map((one) => [one.label, Number(one.generation)]));
}

export async function runHoursAgain(options: HoursAgainOptions): Promise<void> {
  await new HoursAgain(options).run();
}
