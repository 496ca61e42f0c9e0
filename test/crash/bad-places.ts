/**
 * Places of the undo device that can't be read for a while, or can't be written any more, beside
 * snapshots that come and go: writers are never refused, since there is room in other places; what a
 * snapshot reads is what it had, or an error where the device refuses; and what is kept stays bounded.
 */
import { assert } from '../../src/base/assert.ts';
import {
  block as blockOf,
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  generation,
  kibibytes,
} from '../../src/base/units.ts';
import { isUnreadable } from '../../src/base/unreadable.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { needSame } from '../model/same-blocks.ts';
import { VolumeModel } from '../model/volume-model.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import type { SeededRandom } from '../sim/random.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';
import type { OneSeed } from './one-seed.ts';

const BLOCKS = 120;
const SEGMENT = kibibytes(64);
const SLOTS = 13;
const LIVES = 2;
const STEPS = 10;
/** Of these each step writes a few, which the oldest snapshot then needs. */
const OLD_BLOCKS = 90;
/** So often each step writes the others, at least, until a round has passed what it began with. */
const YOUNG_WRITES = 40;

class BadPlaces {
  readonly #random: SeededRandom;
  readonly #world: SimWorld;
  readonly #power: PowerSupply;
  readonly #sim: SimVolume;
  readonly #model = new VolumeModel(BLOCKS * BLOCK_BYTES);
  readonly #onStep: (() => void) | undefined;
  #old = 0;
  #isUnreadable = false;
  #mend = (): void => undefined;

  constructor({ seed, onStep }: OneSeed) {
    this.#onStep = onStep;
    this.#world = new SimWorld(seed);
    this.#power = new PowerSupply(this.#world);
    this.#random = this.#world.random.fork('bad-places');
    const undoBytes = byteCount(kibibytes(64) + SLOTS * SEGMENT);
    const size = byteCount(this.#model.size);
    this.#sim = new SimVolume(this.#power, { size, undoBytes, segmentBytes: SEGMENT, slots: 10 });
  }

  async run(): Promise<void> {
    const random = this.#random;
    await this.#world.run(() => this.#sim.format(this.#power.life));
    const bad = random.below(LIVES) * STEPS + 1 + random.below(4);
    for (let life = 0; life < LIVES; life++) {
      await this.#world.run(async () => {
        const volume = await this.#sim.open(this.#power.life);
        if (life === 0) await this.#begin(volume);
        for (let step = life * STEPS; step < (life + 1) * STEPS; step++) {
          this.#onStep?.();
          if (step === bad) await this.#spoil(volume);
          await this.#step(volume, step);
        }
        await this.#look(volume);
        await volume.live().flush();
      });
      // An opening looks at all of it.
      this.#mend();
      this.#power.kill();
      this.#power.restore();
    }
  }

  async #begin(volume: Volume): Promise<void> {
    for (let block = 0; block < BLOCKS; block++) await this.#write(volume, block);
    await volume.createSnapshot('old');
    this.#old = this.#model.head;
  }

  /** A block: something that is needed can't be read, or somewhere early nothing can be written. */
  async #spoil({ core: { undo } }: Volume): Promise<void> {
    const random = this.#random;
    this.#isUnreadable = random.chance(0.5);
    if (this.#isUnreadable) {
      const { copies } = await undo.find(blockOf(0), OLD_BLOCKS, generation(this.#old));
      const places = copies.flatMap((images) => images.map(({ place }) => place));
      if (places.length === 0) return;
      this.#mend = this.#sim.undo.failRead({ offset: random.pick(places), length: BLOCK_BYTES });
      return;
    }
    const slots = Math.max(2, undo.segments);
    const offset = kibibytes(64) + random.below((slots * SEGMENT) / BLOCK_BYTES) * BLOCK_BYTES;
    this.#sim.undo.failWrite({ offset, length: BLOCK_BYTES });
  }

  /** Only what the oldest snapshot needs stays of it. */
  async #step(volume: Volume, step: number): Promise<void> {
    const random = this.#random;
    const label = `young-${step}`;
    await volume.createSnapshot(label);
    const count = 1 + random.below(3);
    for (let i = 0; i < count; i++) await this.#write(volume, 3 * step + i);
    await this.#rewrite(volume);
    await volume.deleteSnapshot(label);
    await this.#rewrite(volume);
    await volume.core.collected();
  }

  async #rewrite(volume: Volume): Promise<void> {
    const { core } = volume;
    const { head } = core;
    for (let i = 0; i < YOUNG_WRITES || core.settled < head; i++) {
      await this.#write(volume, OLD_BLOCKS + this.#random.below(BLOCKS - OLD_BLOCKS));
    }
  }

  async #write(volume: Volume, block: number): Promise<void> {
    const offset = byteOffset(block * BLOCK_BYTES);
    const bytes = this.#random.bytes(BLOCK_BYTES);
    this.#model.write(offset, bytes);
    await volume.live().write(offset, bytes, { fua: false });
  }

  async #look(volume: Volume): Promise<void> {
    const { core } = volume;
    await core.collected();
    if (!this.#isUnreadable) await core.home.run(() => core.undo.check());
    const content = new Uint8Array(this.#model.size);
    await volume.live().read(byteOffset(0), content);
    needSame(content, this.#model, this.#model.head, 'the live disk');
    const moment = volume.openMoment(await volume.resolve('old'));
    for (let block = 0; block < BLOCKS; block++) {
      const got = new Uint8Array(BLOCK_BYTES);
      const offset = byteOffset(block * BLOCK_BYTES);
      try {
        await moment.read(offset, got);
      } catch (error) {
        if (!this.#isUnreadable || !isUnreadable(error)) throw error;
        continue;
      }
      const expected = this.#model.bytesAt(offset, BLOCK_BYTES, this.#old);
      assert(Buffer.compare(got, expected) === 0, `block ${block} is what the snapshot had`);
    }
    await moment.close();
  }
}

export async function runBadPlaces(options: OneSeed): Promise<void> {
  await new BadPlaces(options).run();
}
