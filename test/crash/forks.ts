/**
 * Two continuations of one volume, from the same copy of its files: the same requests in the same
 * places, with other contents. Then parts of one log are put into the other, as a restore that
 * went half-way does. Every sequence, position and generation fits, so only the chain of checksums
 * tells them apart: what opens is one of the two histories or the volume is refused, never a
 * mixture (laws 1 and 5).
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount, byteOffset, kibibytes, slot } from '../../src/base/units.ts';
import type { BlockDevice } from '../../src/device/block-device.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { slotOffset } from '../../log/geometry.ts';
import { VolumeModel } from '../model/volume-model.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import type { SeededRandom } from '../sim/random.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';
import type { OneSeed } from './one-seed.ts';

const BLOCKS = 16;
const MOMENTS = 4;

/** One of the two: a whole simulated machine, the same as the other up to the fork. */
class Branch {
  readonly world: SimWorld;
  readonly sim: SimVolume;
  readonly model = new VolumeModel(BLOCKS * BLOCK_BYTES);
  readonly power: PowerSupply;
  readonly #onStep: (() => void) | undefined;

  constructor({ seed, onStep }: OneSeed) {
    this.#onStep = onStep;
    this.world = new SimWorld(seed);
    this.power = new PowerSupply(this.world);
    this.sim = new SimVolume(this.power, {
      size: byteCount(BLOCKS * BLOCK_BYTES),
      segmentBytes: kibibytes(32),
      slots: 24,
      requestBytesMax: byteCount(2 * BLOCK_BYTES),
      ringBytes: kibibytes(256),
    });
  }

  async begin(count: number): Promise<void> {
    await this.world.run(() => this.sim.format(this.power.life));
    await this.live(count, 'base');
  }

  /** @param name - decides on the contents; where they go is the same for all names */
  async live(count: number, name: string): Promise<void> {
    const shape = this.world.fork('shape');
    const content = this.world.fork(name);
    await this.world.run(async () => {
      const volume = await this.sim.open(this.power.life, { writeMode: 'written' });
      for (let i = 0; i < count; i++) await this.#request(volume, shape, content);
      await volume.close();
    });
    this.power.cut();
    this.power.restore();
  }

  async #request(volume: Volume, shape: SeededRandom, content: SeededRandom): Promise<void> {
    this.#onStep?.();
    const offset = shape.below(BLOCKS) * BLOCK_BYTES;
    if (shape.chance(0.2)) {
      const length = Math.min(2 * BLOCK_BYTES, this.model.size - offset);
      // One of the two trims, the other zeroes: no content tells them apart, their headers do.
      this.model.trim(offset, length);
      const options = { fua: false, allocate: content.chance(0.5) };
      await volume.live().zero(byteOffset(offset), byteCount(length), options);
    } else {
      const bytes = content.bytes(BLOCK_BYTES);
      this.model.write(offset, bytes);
      await volume.live().write(byteOffset(offset), bytes, { fua: shape.chance(0.1) });
    }
    if (shape.chance(0.1)) await volume.live().flush();
  }

  /** The state of a moment, by block; undefined for a block that answers EIO. */
  async read(device: BlockDevice): Promise<readonly (Uint8Array | undefined)[]> {
    const state: (Uint8Array | undefined)[] = [];
    for (let block = 0; block < BLOCKS; block++) {
      const target = new Uint8Array(BLOCK_BYTES);
      try {
        await device.read(byteOffset(block * BLOCK_BYTES), target);
        state.push(target);
      } catch (error) {
        if (!isVarveError(error, 'BLOCK_CORRUPT')) throw error;
        state.push(undefined);
      }
    }
    return state;
  }
}

class ForkRun {
  readonly #random: SeededRandom;
  readonly #one: Branch;
  readonly #other: Branch;
  /** Who may still be the one that is read. */
  #candidates: readonly VolumeModel[];

  constructor(options: OneSeed) {
    this.#one = new Branch(options);
    this.#other = new Branch(options);
    this.#random = this.#one.world.fork('forks');
    this.#candidates = [this.#one.model, this.#other.model];
  }

  async run(): Promise<void> {
    const random = this.#random;
    const [before, after] = [1 + random.below(12), 2 + random.below(16)];
    for (const [branch, name] of [
      [this.#one, 'one'],
      [this.#other, 'other'],
    ] as const) {
      await branch.begin(before);
      // Lineages and openings are random as well: from here on other ones.
      if (name === 'other') branch.world.random.next32();
      await branch.live(after, name);
    }
    this.#splice();
    await this.#open();
  }

  /** A block, the rest of a slot, or a whole slot comes from the other log. */
  #splice(): void {
    const random = this.#random;
    const { geometry } = this.#one.sim;
    const blocks = geometry.segmentBytes / BLOCK_BYTES;
    for (let pieces = 1 + random.below(2); pieces > 0; pieces--) {
      const first = random.pick([0, 0, random.below(blocks)]);
      const count = random.pick([1, 2, blocks - first]);
      const at = slotOffset(geometry, slot(random.below(10))) + first * BLOCK_BYTES;
      const bytes = new Uint8Array(Math.min(count, blocks - first) * BLOCK_BYTES);
      this.#other.sim.log.platter.read(at, bytes);
      this.#one.sim.log.corrupt(at, bytes);
    }
  }

  async #open(): Promise<void> {
    const { sim, power, world } = this.#one;
    await world.run(async () => {
      let volume: Volume;
      try {
        volume = await sim.open(power.life);
      } catch (error) {
        if (isVarveError(error, 'VOLUME_CORRUPT') || isVarveError(error, 'VOLUME_FOREIGN')) return;
        throw error;
      }
      const { core } = volume;
      await this.#compare(volume.live(), core.head);
      for (let i = 0; i < MOMENTS; i++) {
        const { generation: horizon } = core.horizon;
        const generation = horizon + this.#random.below(core.head - horizon + 1);
        const device = volume.openMoment(await volume.resolve(`gen=${generation}`));
        await this.#compare(device, generation);
        await device.close();
      }
      core.check();
      await volume.close();
    });
  }

  async #compare(device: BlockDevice, generation: number): Promise<void> {
    const state = await this.#one.read(device);
    this.#candidates = this.#candidates.filter(
      (model) =>
        generation <= model.head &&
        state.every(
          (content, block) =>
            content === undefined ||
            Buffer.compare(content, model.blockAt(block, generation)) === 0,
        ),
    );
    assert(this.#candidates.length > 0, 'what opens is one of two histories, not a mixture');
  }
}

export async function runForks(options: OneSeed): Promise<void> {
  await new ForkRun(options).run();
}
