/**
 * Readers beside a writer who never lets rounds end: single blocks and runs of the newest state,
 * whose content has to be one that the block had while the read was under way, and moments that
 * are held open, which read as they were or say that they are gone. The cache of checksums holds
 * one page, so that pages are read while a round writes them.
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount, byteOffset, kibibytes } from '../../src/base/units.ts';
import type { BlockDevice } from '../../src/device/block-device.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { VolumeModel } from '../model/volume-model.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import type { SeededRandom } from '../sim/random.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';
import type { OneSeed } from './one-seed.ts';
import { slowReads } from './slow-reads.ts';

/** Two pages of checksums, and a part of the third. */
const BLOCKS = 600;
/** Of moments two; slow ones wait most of the time. */
const READERS = 5;
const SLOW_READERS = 20;
const WRITES = 300;
const RUN_BLOCKS_MAX = 12;
/** After so many writes a block is home. */
const SETTLED_WITHIN = 120;
/** A round takes less. */
const ROUND_US = 500_000;

class ReadersRun {
  readonly #random: SeededRandom;
  readonly #world: SimWorld;
  readonly #power: PowerSupply;
  readonly #sim: SimVolume;
  readonly #model = new VolumeModel(BLOCKS * BLOCK_BYTES);
  readonly #onStep: (() => void) | undefined;
  readonly #pauseUsMax: number;
  readonly #readers: number;
  /** Where each write began. */
  readonly #written: number[] = [];
  #isOver = false;

  constructor({ seed, onStep }: OneSeed) {
    this.#onStep = onStep;
    this.#world = new SimWorld(seed);
    this.#power = new PowerSupply(this.#world);
    this.#random = this.#world.random.fork('readers');
    this.#pauseUsMax = this.#random.pick([1000, ROUND_US, ROUND_US]);
    const isSlow = this.#pauseUsMax === ROUND_US;
    this.#readers = isSlow ? SLOW_READERS : READERS;
    this.#sim = new SimVolume(this.#power, {
      size: byteCount(BLOCKS * BLOCK_BYTES),
      slots: this.#random.pick([8, 12]),
      requestBytesMax: kibibytes(64),
      ringBytes: kibibytes(128),
      // Often too small for what open moments need, so that they end; not where they are opened
      // again so soon that the next round finds no room either, which writers are told of.
      undoBytes: kibibytes(64 * (isSlow ? this.#random.pick([1 + 4, 1 + 64]) : 1 + 64)),
    });
  }

  async run(): Promise<void> {
    await this.#world.run(async () => {
      await this.#sim.format(this.#power.life);
      slowReads(this.#sim, this.#world, this.#random.fork('slow'), this.#pauseUsMax);
      const cacheBytes = byteCount(BLOCK_BYTES);
      const volume = await this.#sim.open(this.#power.life, { cacheBytes });
      const readers = Array.from({ length: this.#readers }, (_, i) => this.#reader(volume, i));
      const writer = this.#write(volume).finally(() => {
        this.#isOver = true;
      });
      // Whichever fails first is told: writers go on for long after a reader has.
      await Promise.all([writer, ...readers]);
      volume.core.check();
      const { readErrors } = volume.core.counters;
      assert(readErrors === 0, 'what a round is writing is not told to be damaged');
      await volume.close();
    });
  }

  async #write(volume: Volume): Promise<void> {
    const random = this.#random.fork('writer');
    for (let i = 0; i < WRITES; i++) {
      this.#onStep?.();
      const block = random.below(BLOCKS);
      this.#written.push(block);
      const count = Math.min(BLOCKS - block, 1 + random.below(RUN_BLOCKS_MAX));
      const offset = byteOffset(block * BLOCK_BYTES);
      const length = byteCount(count * BLOCK_BYTES);
      if (random.chance(0.15)) {
        this.#model.trim(offset, length);
        await volume.live().trim(offset, length, { fua: false });
      } else {
        const content = random.bytes(length);
        this.#model.write(offset, content);
        await volume.live().write(offset, content, { fua: random.chance(0.05) });
      }
      if (random.chance(0.2)) await this.#world.sleep(random.below(2000));
    }
  }

  async #reader(volume: Volume, number: number): Promise<void> {
    const random = this.#random.fork(`reader-${number}`);
    while (!this.#isOver) {
      await this.#world.sleep(random.below(3000));
      if (number < 2) await this.#moment(volume, random);
      else await this.#newest(volume, random);
    }
  }

  /** Content that the blocks had between the two ends of the read. */
  async #newest(volume: Volume, random: SeededRandom): Promise<void> {
    this.#onStep?.();
    const [block, count] = this.#placeOfNewest(random);
    const got = new Uint8Array(count * BLOCK_BYTES);
    // What was put by now is the least that is seen; what is asked for by then, the most.
    const from = volume.core.head;
    await volume.live().read(byteOffset(block * BLOCK_BYTES), got);
    const to = this.#model.head;
    for (let i = 0; i < count; i++) {
      const content = got.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
      let isKnown = false;
      for (let generation = from; generation <= to && !isKnown; generation++) {
        isKnown = Buffer.compare(content, this.#model.blockAt(block + i, generation)) === 0;
      }
      assert(isKnown, `block ${block + i} is one of generations ${from} to ${to}`);
    }
  }

  /** Often where a round is about to write. */
  #placeOfNewest(random: SeededRandom): [number, number] {
    const settling = this.#written.at(-random.between(1, SETTLED_WITHIN));
    if (settling === undefined || random.chance(0.3)) return place(random);
    return [settling, Math.min(BLOCKS - settling, 1 + random.below(RUN_BLOCKS_MAX))];
  }

  async #moment(volume: Volume, random: SeededRandom): Promise<void> {
    const { head, horizon } = volume.core;
    const generation = head - random.below(Math.min(40, head - horizon.generation + 1));
    const device = volume.openMoment(await volume.resolve(`gen=${generation}`));
    try {
      for (let i = 0; i < 12 && !this.#isOver; i++) {
        if (!(await this.#momentRead(device, generation, random))) return;
        if (random.chance(0.5)) await this.#world.sleep(random.below(20_000));
      }
    } finally {
      await device.close();
    }
  }

  /** @returns false when it is gone */
  async #momentRead(
    device: BlockDevice,
    generation: number,
    random: SeededRandom,
  ): Promise<boolean> {
    this.#onStep?.();
    const [block, count] = place(random);
    const got = new Uint8Array(count * BLOCK_BYTES);
    try {
      await device.read(byteOffset(block * BLOCK_BYTES), got);
    } catch (error) {
      if (isVarveError(error, 'MOMENT_GONE')) return false;
      throw error;
    }
    const expected = this.#model.bytesAt(block * BLOCK_BYTES, got.length, generation);
    const isSame = Buffer.compare(got, expected) === 0;
    assert(isSame, `blocks ${block} to ${block + count - 1} are those of generation ${generation}`);
    return true;
  }
}

function place(random: SeededRandom): [number, number] {
  const block = random.below(BLOCKS);
  const count = random.chance(0.4) ? 1 : 1 + random.below(RUN_BLOCKS_MAX * 4);
  return [block, Math.min(BLOCKS - block, count)];
}

export async function runReaders(options: OneSeed): Promise<void> {
  await new ReadersRun(options).run();
}
