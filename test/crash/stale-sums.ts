/**
 * Writes of the checksum sidecar that were lost, and claimed success: a page says of blocks what they
 * were a round ago, "never written" among it. Whatever happens then, a block is what it was at the
 * moment that is read, or an error; also below the horizon, after home was written over.
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError, VarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount, byteOffset, kibibytes } from '../../src/base/units.ts';
import type { BlockDevice } from '../../src/device/block-device.ts';
import { SUMS_SECTOR_BYTES } from '../../src/format/layouts.ts';
import { copyBase } from '../../src/volume/flatten.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { VolumeModel } from '../model/volume-model.ts';
import { MemoryBase } from '../support/memory-base.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import type { SeededRandom } from '../sim/random.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';
import { useVolume } from './bench.ts';
import type { OneSeed } from './one-seed.ts';

export interface StaleSumsOptions extends OneSeed {
  /** All writes of the page were lost, also that of a round before a snapshot. */
  readonly isBlank?: boolean;
  /** Over a base, which is flattened; a sector of zeros in place of a lost page, now and then. */
  readonly isFlattened?: boolean;
  /** What is written later is undone by a rollback. */
  readonly isRolledBack?: boolean;
}

export interface StaleSumsReport {
  /** Blocks that were read of the snapshot, and those that were refused. */
  readonly read: number;
  readonly refused: number;
  /** An opening took final storage for another volume's, or an older one: also an answer. */
  readonly foreign: boolean;
}

/** Their sums take three pages. */
const BLOCKS = 600;
/** Where the third page begins: what is written there heals no other. */
const LAST_PAGE = 496;
const WRITE_BLOCKS_MAX = 4;

class StaleSums {
  readonly #random: SeededRandom;
  readonly #power: PowerSupply;
  readonly #sim: SimVolume;
  readonly #model: VolumeModel;
  readonly #base: MemoryBase | undefined;
  readonly #onStep: (() => void) | undefined;
  readonly #isBlank: boolean;
  readonly #isRolledBack: boolean;
  /** A generation below the horizon when the page goes: before-images of it are sound. */
  #oldest: number | undefined;
  #read = 0;
  #refused = 0;

  constructor(options: StaleSumsOptions) {
    const { seed, isBlank = false, isFlattened = false, isRolledBack = false, onStep } = options;
    const world = new SimWorld(seed);
    this.#isRolledBack = isRolledBack;
    const size = byteCount(BLOCKS * BLOCK_BYTES);
    this.#base = isFlattened ? MemoryBase.of(world.fork('base'), size) : undefined;
    this.#model = new VolumeModel(size, this.#base?.bytes);
    this.#isBlank = isBlank;
    this.#onStep = onStep;
    this.#random = world.fork('stale-sums');
    this.#power = new PowerSupply(world);
    this.#sim = new SimVolume(this.#power, {
      size,
      base: this.#base,
      segmentBytes: kibibytes(32),
      slots: isRolledBack ? 24 : 14,
      requestBytesMax: byteCount(WRITE_BLOCKS_MAX * BLOCK_BYTES),
      ringBytes: kibibytes(96),
      undoBytes: byteCount(kibibytes(64) + 400 * kibibytes(32)),
    });
  }

  async run(): Promise<StaleSumsReport> {
    const { world } = this.#power;
    await world.run(() => this.#sim.format(this.#power.life));
    const lost = await useVolume(this.#sim, (volume) => this.#lose(volume));
    lost();
    const foreign = await this.#later();
    return { read: this.#read, refused: this.#refused, foreign };
  }

  async #write(volume: Volume, from: number): Promise<void> {
    this.#onStep?.();
    const random = this.#random;
    const first = random.between(from, BLOCKS - WRITE_BLOCKS_MAX);
    const offset = byteOffset(first * BLOCK_BYTES);
    const length = byteCount(random.between(1, WRITE_BLOCKS_MAX) * BLOCK_BYTES);
    // Over a base zeros at home and a page that says "never written" agree.
    if (this.#base === undefined && random.chance(0.2)) {
      this.#model.trim(offset, length);
      await volume.live().trim(offset, length, { fua: false });
      return;
    }
    const content = random.bytes(length);
    this.#model.write(offset, content);
    await volume.live().write(offset, content, { fua: false });
  }

  async #trimFar(volume: Volume): Promise<void> {
    this.#onStep?.();
    const first = this.#random.below(LAST_PAGE - 1);
    const count = this.#random.between(1, LAST_PAGE - first);
    const [offset, length] = [byteOffset(first * BLOCK_BYTES), byteCount(count * BLOCK_BYTES)];
    this.#model.trim(offset, length);
    await volume.live().trim(offset, length, { fua: false });
  }

  /** Until all that is written now has gone home. */
  async #goHome(volume: Volume, from: number): Promise<void> {
    const { head } = volume.core;
    while (volume.core.settled < head) await this.#write(volume, from);
    await this.#power.world.sleep(1_000_000);
  }

  /** Some blocks of the first two pages go home, in rounds whose writes of one page are lost. */
  async #lose(volume: Volume): Promise<() => void> {
    const random = this.#random;
    const { sums } = this.#sim;
    for (let i = random.below(60); i > 0; i--) await this.#write(volume, 0);
    await this.#goHome(volume, LAST_PAGE);
    const at = random.below(2) * BLOCK_BYTES;
    const isSector = this.#base !== undefined && random.chance(0.5);
    const before = new Uint8Array(isSector ? SUMS_SECTOR_BYTES : BLOCK_BYTES);
    if (isSector) await this.#flatten(volume, random.below(BLOCKS));
    else if (!this.#isBlank) sums.platter.read(at, before);
    else if (this.#base === undefined) {
      this.#oldest = (await volume.createSnapshot('oldest')).generation;
      // More of it is trimmed than in other lives, and lies there as the blank page says.
      for (let i = random.between(4, 16); i > 0; i--) await this.#trimFar(volume);
    }
    for (let i = random.between(4, 16); i > 0; i--) await this.#write(volume, 0);
    await this.#goHome(volume, LAST_PAGE);
    // What the last round wrote is compared at the next opening: that is another round's.
    await this.#goHome(volume, LAST_PAGE);
    return () => {
      sums.corrupt(at, before);
    };
  }

  /**
   * As an operator does it, who may stop it; or it refuses what it can't tell from damage.
   * @param stopsAt - a block
   */
  async #flatten(volume: Volume, stopsAt = Infinity): Promise<void> {
    this.#sim.baseState = 'copying';
    const progress = (bytes: number): void => {
      if (bytes >= stopsAt * BLOCK_BYTES) throw new VarveError('CLOSED', 'stopped');
    };
    try {
      await copyBase(volume.core, progress, this.#random.between(1, BLOCKS));
    } catch (error) {
      if (!isVarveError(error, 'CLOSED') && !isVarveError(error, 'BLOCK_CORRUPT')) throw error;
      return;
    }
    this.#sim.baseState = 'copied';
    await volume.core.final.dropBase();
  }

  /** Some requests and back again: all of it is as it was, or the rollback is refused. */
  async #rollBack(volume: Volume): Promise<void> {
    const { head } = this.#model;
    await volume.createSnapshot('before');
    for (let i = this.#random.between(1, 8); i > 0; i--) await this.#write(volume, 0);
    const request = { to: 'before', force: true, dryRun: false };
    try {
      const { after } = await volume.rollback(request, () => undefined);
      this.#model.restore(after.generation, head);
    } catch (error) {
      if (!isVarveError(error, 'BLOCK_CORRUPT')) throw error;
      // What was refused is in the way, and nothing was changed.
      assert(volume.core.head === this.#model.head, 'a rollback that is refused changes nothing');
    }
  }

  /** @returns whether the volume was refused */
  async #later(): Promise<boolean> {
    try {
      await useVolume(this.#sim, async (volume) => {
        const { head } = this.#model;
        await this.#compare(volume.live(), head);
        if (this.#base !== undefined) {
          await this.#flatten(volume);
          await this.#compare(volume.live(), head);
          return;
        }
        if (this.#isRolledBack) {
          await this.#rollBack(volume);
          await this.#compare(volume.live(), this.#model.head);
          return;
        }
        await volume.createSnapshot('before');
        await this.#goHome(volume, 0);
        for (let i = this.#random.between(100, 300); i > 0; i--) await this.#write(volume, 0);
        await this.#goHome(volume, 0);
        const moment = volume.openMoment(await volume.resolve('before'));
        await this.#compare(moment, head);
        await moment.close();
        await this.#compare(volume.live(), this.#model.head);
        if (this.#oldest === undefined) return;
        const oldest = volume.openMoment(await volume.resolve('oldest'));
        await this.#compare(oldest, this.#oldest);
        await oldest.close();
      });
      return false;
    } catch (error) {
      if (isVarveError(error, 'VOLUME_FOREIGN')) return true;
      throw error;
    }
  }

  async #compare(device: BlockDevice, generation: number): Promise<void> {
    const content = new Uint8Array(BLOCK_BYTES);
    for (let block = 0; block < BLOCKS; block++) {
      try {
        await device.read(byteOffset(block * BLOCK_BYTES), content);
      } catch (error) {
        if (!isVarveError(error, 'BLOCK_CORRUPT')) throw error;
        this.#refused += 1;
        continue;
      }
      this.#read += 1;
      const isRight = Buffer.compare(content, this.#model.blockAt(block, generation)) === 0;
      assert(isRight, `block ${block} is as it was at generation ${generation}, or an error`);
    }
  }
}

export async function runStaleSums(options: StaleSumsOptions): Promise<StaleSumsReport> {
  return await new StaleSums(options).run();
}
