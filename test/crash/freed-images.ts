/**
 * Snapshots come and go beside rounds, so that segments of the undo device are freed, joined, and
 * their slots used again, while readers of other snapshots look at them on slow disks. What is read
 * is what the snapshot had, always.
 */
import { isVarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount, byteOffset, kibibytes } from '../../src/base/units.ts';
import type { LowerDevice } from '../../src/device/lower-device.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { needSame } from '../model/same-blocks.ts';
import { VolumeModel } from '../model/volume-model.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import type { SeededRandom } from '../sim/random.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';
import type { OneSeed } from './one-seed.ts';

const BLOCKS = 48;
const READERS = 4;
const WRITES = 400;
const WRITE_BLOCKS_MAX = 3;
const PAUSE_US_MAX = 100_000;
/** Until room is asked for again. */
const FULL_US = 50_000;

class FreedImages {
  readonly #random: SeededRandom;
  readonly #world: SimWorld;
  readonly #power: PowerSupply;
  readonly #sim: SimVolume;
  readonly #model = new VolumeModel(BLOCKS * BLOCK_BYTES);
  readonly #onStep: (() => void) | undefined;
  readonly #snapshotsMax: number;
  /** Generation of each, by label. */
  readonly #snapshots = new Map<string, number>();
  #made = 0;
  #isOver = false;

  constructor({ seed, onStep }: OneSeed) {
    this.#onStep = onStep;
    this.#world = new SimWorld(seed);
    this.#power = new PowerSupply(this.#world);
    this.#random = this.#world.random.fork('freed-images');
    this.#snapshotsMax = this.#random.pick([2, 4]);
    this.#sim = new SimVolume(this.#power, {
      size: byteCount(this.#model.size),
      segmentBytes: kibibytes(32),
      slots: 10,
      requestBytesMax: kibibytes(16),
      // Where slots are short, what is half needed is joined.
      undoBytes: kibibytes(64 + 32 * this.#random.pick([24, 32, 64])),
    });
  }

  async run(): Promise<void> {
    await this.#world.run(async () => {
      await this.#sim.format(this.#power.life);
      this.#slow();
      const volume = await this.#sim.open(this.#power.life, { cacheBytes: kibibytes(256) });
      const readers = Array.from({ length: READERS }, (_, i) => this.#read(volume, i));
      const operators = [this.#createSome(volume), this.#deleteSome(volume)];
      const writer = this.#write(volume).finally(() => {
        this.#isOver = true;
      });
      await Promise.all([writer, ...readers, ...operators]);
      volume.core.check();
      await volume.close();
    });
  }

  /** What was read of the undo device takes long to arrive, now and then. */
  #slow(): void {
    const random = this.#random.fork('slow');
    const devices = this.#sim.devices.bind(this.#sim);
    this.#sim.devices = () => {
      const { undo, ...others } = devices();
      const slow: LowerDevice = {
        name: undo.name,
        size: undo.size,
        read: async (offset, target) => {
          await undo.read(offset, target);
          if (random.chance(0.2)) await this.#world.sleep(random.below(PAUSE_US_MAX));
        },
        write: (offset, sources) => undo.write(offset, sources),
        punch: (offset, length) => undo.punch(offset, length),
        sync: (point) => undo.sync(point),
        allocated: () => undo.allocated(),
        close: () => undo.close(),
      };
      return { ...others, undo: slow };
    };
  }

  async #write(volume: Volume): Promise<void> {
    const random = this.#random.fork('writer');
    for (let i = 0; i < WRITES; i++) {
      this.#onStep?.();
      const block = random.below(BLOCKS - WRITE_BLOCKS_MAX);
      const offset = byteOffset(block * BLOCK_BYTES);
      const bytes = random.bytes((1 + random.below(WRITE_BLOCKS_MAX)) * BLOCK_BYTES);
      const fua = random.chance(0.05);
      this.#model.write(offset, bytes);
      while (!(await isTaken(() => volume.live().write(offset, bytes, { fua })))) {
        await this.#world.sleep(FULL_US);
      }
      if (random.chance(0.3)) await this.#world.sleep(random.below(20_000));
    }
  }

  /** Who creates one waits where the log is full, and who deletes one does not. */
  async #createSome(volume: Volume): Promise<void> {
    const random = this.#random.fork('creator');
    while (!this.#isOver) {
      await this.#world.sleep(random.below(20_000));
      if (this.#snapshots.size < this.#snapshotsMax) await this.#create(volume);
    }
  }

  async #deleteSome(volume: Volume): Promise<void> {
    const random = this.#random.fork('deleter');
    while (!this.#isOver) {
      await this.#world.sleep(random.below(40_000));
      const labels = [...this.#snapshots.keys()];
      if (labels.length === 0) continue;
      if (labels.length < this.#snapshotsMax && random.chance(0.7)) continue;
      const label = random.pick(labels);
      this.#snapshots.delete(label);
      await volume.deleteSnapshot(label);
    }
  }

  async #create(volume: Volume): Promise<void> {
    const label = `s${this.#made++}`;
    const { head } = volume.core;
    try {
      await volume.createSnapshot(label, `gen=${head}`);
      this.#snapshots.set(label, head);
    } catch (error) {
      // A round was faster, or there is no room until another one goes.
      const isKnown = isVarveError(error, 'MOMENT_OUTSIDE') || isVarveError(error, 'UNDO_FULL');
      if (!isKnown) throw error;
    }
  }

  async #read(volume: Volume, number: number): Promise<void> {
    const random = this.#random.fork(`reader-${number}`);
    while (!this.#isOver) {
      await this.#world.sleep(random.below(3000));
      const snapshots = [...this.#snapshots];
      if (snapshots.length === 0) continue;
      const [label, generation] = random.pick(snapshots);
      this.#onStep?.();
      const got = new Uint8Array(this.#model.size);
      const device = volume.openMoment(await volume.resolve(label));
      try {
        await device.read(byteOffset(0), got);
        needSame(got, this.#model, generation, label);
      } catch (error) {
        // Its snapshot went, and writers needed the space.
        if (!isVarveError(error, 'MOMENT_GONE') || this.#snapshots.has(label)) throw error;
      } finally {
        await device.close();
      }
    }
  }
}

/** @returns false when it has to wait until a snapshot goes */
async function isTaken(write: () => PromiseLike<void> | undefined): Promise<boolean> {
  try {
    await write();
    return true;
  } catch (error) {
    if (!isVarveError(error, 'UNDO_FULL')) throw error;
    return false;
  }
}

export async function runFreedImages(options: OneSeed): Promise<void> {
  await new FreedImages(options).run();
}
