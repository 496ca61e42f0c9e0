/**
 * Pages of the checksum sidecar that the device refuses to read, one or two, while rounds go on: what
 * is accepted goes home, writers are refused for seconds at most, and a block is what it was or an
 * error.
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
import { useVolume } from './bench.ts';
import type { OneSeed } from './one-seed.ts';

const PAGE_BLOCKS = 248;
const PAGES = 4;
const BLOCKS = PAGES * PAGE_BLOCKS;
const SECONDS_MAX = 12;
const WRITE_BLOCKS_MAX = 4;
const TRIM_BLOCKS_MAX = 3 * PAGE_BLOCKS;

class RefusedSums {
  readonly #random: SeededRandom;
  readonly #power: PowerSupply;
  readonly #sim: SimVolume;
  readonly #model = new VolumeModel(BLOCKS * BLOCK_BYTES);
  readonly #onStep: (() => void) | undefined;

  constructor({ seed, onStep }: OneSeed) {
    const world = new SimWorld(seed);
    this.#onStep = onStep;
    this.#random = world.fork('refused-sums');
    this.#power = new PowerSupply(world);
    this.#sim = new SimVolume(this.#power, {
      size: byteCount(BLOCKS * BLOCK_BYTES),
      segmentBytes: kibibytes(32),
      slots: 14,
      requestBytesMax: byteCount(WRITE_BLOCKS_MAX * BLOCK_BYTES),
      ringBytes: kibibytes(96),
      undoBytes: byteCount(kibibytes(64) + 1200 * kibibytes(32)),
    });
  }

  async run(): Promise<void> {
    const { world } = this.#power;
    await world.run(() => this.#sim.format(this.#power.life));
    const mends = await this.#use((volume) => this.#refuse(volume));
    for (const mend of mends) mend();
    await this.#use((volume) => this.#compare(volume.live(), this.#model.head));
  }

  async #use<T>(work: (volume: Volume) => Promise<T>): Promise<T> {
    // One page of sums stays in memory, and no more.
    return await useVolume(this.#sim, work, { cacheBytes: kibibytes(16) });
  }

  async #refuse(volume: Volume): Promise<(() => void)[]> {
    const random = this.#random;
    await this.#change(volume, random.between(20, 80));
    const before = this.#model.head;
    const isKept = random.chance(0.6);
    if (isKept) await volume.createSnapshot('before');
    const pages = random.chance(0.5) ? [random.below(PAGES)] : [1, random.between(2, PAGES - 1)];
    const mends = pages.map((page) =>
      this.#sim.sums.failRead({ offset: page * BLOCK_BYTES, length: 512 }),
    );
    await this.#change(volume, random.between(60, 120));
    await this.#compare(volume.live(), this.#model.head);
    if (!isKept) return mends;
    const moment = volume.openMoment(await volume.resolve('before'));
    await this.#compare(moment, before);
    await moment.close();
    return mends;
  }

  /** Refused before acceptance while attempts fail; each page has three of them, a second apart. */
  async #accepted(request: () => Promise<void> | undefined): Promise<void> {
    for (let seconds = 0; ; seconds++) {
      try {
        await request();
        return;
      } catch (error) {
        if (!isVarveError(error, 'DEVICE_IO') || seconds >= SECONDS_MAX) throw error;
        await this.#power.world.sleep(1_000_000);
      }
    }
  }

  async #change(volume: Volume, requests: number): Promise<void> {
    const random = this.#random;
    const live = volume.live();
    for (let i = 0; i < requests; i++) {
      this.#onStep?.();
      const isTrim = random.chance(0.1);
      const count = random.between(1, isTrim ? TRIM_BLOCKS_MAX : WRITE_BLOCKS_MAX);
      const offset = byteOffset(random.below(BLOCKS - count + 1) * BLOCK_BYTES);
      const length = byteCount(count * BLOCK_BYTES);
      if (isTrim) {
        this.#model.trim(offset, length);
        await this.#accepted(() => live.trim(offset, length, { fua: false }));
        continue;
      }
      const content = random.bytes(length);
      this.#model.write(offset, content);
      await this.#accepted(() => live.write(offset, content, { fua: false }));
    }
  }

  async #compare(device: BlockDevice, generation: number): Promise<void> {
    const content = new Uint8Array(BLOCK_BYTES);
    for (let block = 0; block < BLOCKS; block++) {
      try {
        await device.read(byteOffset(block * BLOCK_BYTES), content);
      } catch (error) {
        const isTold = isVarveError(error, 'BLOCK_CORRUPT') || isVarveError(error, 'DEVICE_IO');
        if (!isTold) throw error;
        continue;
      }
      const isRight = Buffer.compare(content, this.#model.blockAt(block, generation)) === 0;
      assert(isRight, `block ${block} is as it was at generation ${generation}, or an error`);
    }
  }
}

export async function runRefusedSums(options: OneSeed): Promise<void> {
  await new RefusedSums(options).run();
}
