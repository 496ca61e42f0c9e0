/**
 * Snapshots made and deleted beside writers and rounds, in segments of five blocks: their records
 * are on their way to the device while rounds take the tail past them and write checkpoints. Then
 * the power goes. What was answered is there, what was deleted is not.
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount, byteOffset, kibibytes, slot } from '../../src/base/units.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { slotOffset } from '../../log/geometry.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import type { SeededRandom } from '../sim/random.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';
import { withWriteHook } from './bench.ts';
import type { OneSeed } from './one-seed.ts';

export interface PendingRecordsOptions extends OneSeed {
  readonly lives: number;
}

const BLOCKS = 16;
const WRITERS = 2;

class PendingRecords {
  readonly #options: PendingRecordsOptions;
  readonly #random: SeededRandom;
  readonly #world: SimWorld;
  readonly #power: PowerSupply;
  readonly #sim: SimVolume;
  readonly #snapshots = new Map<string, number>();
  /** Creation or deletion had no answer. */
  readonly #unsure = new Set<string>();
  /** How often a writer waits: where nobody does, the log fills behind a slow write. */
  readonly #fua: number;
  readonly #snapshotsMax: number;
  #labels = 0;

  constructor(options: PendingRecordsOptions) {
    this.#options = options;
    this.#world = new SimWorld(options.seed);
    this.#power = new PowerSupply(this.#world);
    this.#random = this.#world.random.fork('pending-records');
    this.#fua = this.#random.pick([0.3, 0.01]);
    this.#snapshotsMax = this.#random.pick([1, 1, 6]);
    this.#sim = new SimVolume(this.#power, {
      size: byteCount(BLOCKS * BLOCK_BYTES),
      segmentBytes: kibibytes(32),
      slots: this.#random.pick([7, 9, 12]),
      requestBytesMax: byteCount(2 * BLOCK_BYTES),
      ringBytes: kibibytes(128),
    });
  }

  async run(): Promise<void> {
    await this.#world.run(() => this.#sim.format(this.#power.life));
    this.#slow();
    for (let life = 0; life < this.#options.lives; life++) {
      await this.#power.runLife(async (world) => {
        const volume = await this.#sim.open(world);
        this.#check(volume);
        const afterOperations = 1 + this.#random.below(400);
        this.#power.plan({ loss: 'cut', afterOperations });
        const writers = Array.from({ length: WRITERS }, () => this.#write(volume));
        await Promise.all([...writers, this.#operate(volume)]);
      });
      if (this.#power.alive) this.#power.cut();
      this.#power.restore();
    }
  }

  /** Some writes of batches take long, while superblocks and checkpoints go past them. */
  #slow(): void {
    const random = this.#random.fork('slow');
    const devices = this.#sim.devices.bind(this.#sim);
    const first = slotOffset(this.#sim.geometry, slot(0));
    this.#sim.devices = () => {
      const plain = devices();
      const log = withWriteHook(plain.log, async (offset) => {
        const delayMs = random.pick([20, 50, 500]);
        if (offset >= first && random.chance(0.08)) await this.#pause(random.below(delayMs));
      });
      return { ...plain, log };
    };
  }

  async #write(volume: Volume): Promise<void> {
    const random = this.#random;
    for (let i = 0; i < 150 && this.#power.alive; i++) {
      this.#options.onStep?.();
      const offset = byteOffset(random.below(BLOCKS) * BLOCK_BYTES);
      try {
        await volume
          .live()
          .write(offset, random.bytes(BLOCK_BYTES), { fua: random.chance(this.#fua) });
      } catch (error) {
        // A snapshot may stop recycling; it is deleted soon.
        if (!isVarveError(error, 'LOG_FULL')) throw error;
        await this.#pause(5);
      }
    }
  }

  async #operate(volume: Volume): Promise<void> {
    for (let i = 0; i < 40 && this.#power.alive; i++) {
      this.#options.onStep?.();
      const known = [...this.#snapshots.keys()].filter((label) => !this.#unsure.has(label));
      const isMore = known.length < this.#snapshotsMax && this.#random.chance(0.6);
      // The newest first: the oldest one keeps the log full, down to the slot for deletions.
      const label = known.at(this.#random.chance(0.8) ? -1 : 0);
      if (label === undefined || isMore) await this.#create(volume);
      else await this.#delete(volume, label);
      if (this.#random.chance(0.3)) await this.#pause(this.#random.below(5));
    }
  }

  async #create(volume: Volume): Promise<void> {
    const label = `s${this.#labels++}`;
    const generation = volume.core.head;
    this.#unsure.add(label);
    this.#snapshots.set(label, generation);
    try {
      await volume.createSnapshot(label, `gen=${generation}`);
    } catch (error) {
      const isRefused = isVarveError(error, 'LOG_FULL') || isVarveError(error, 'MOMENT_OUTSIDE');
      if (!isRefused) throw error;
      this.#snapshots.delete(label);
    }
    this.#unsure.delete(label);
  }

  async #delete(volume: Volume, label: string): Promise<void> {
    this.#unsure.add(label);
    await volume.deleteSnapshot(label);
    this.#snapshots.delete(label);
    this.#unsure.delete(label);
  }

  /** Ends with the life. */
  async #pause(delayMs: number): Promise<void> {
    await new Promise<void>((done) => {
      this.#power.life.timers.after(delayMs, done);
    });
  }

  #check(volume: Volume): void {
    volume.core.check();
    const found = new Map(volume.snapshots().map((one) => [one.label, Number(one.generation)]));
    for (const [label, generation] of this.#snapshots) {
      if (this.#unsure.delete(label) && !found.has(label)) {
        this.#snapshots.delete(label);
        continue;
      }
      assert(found.get(label) === generation, `snapshot ${label} is kept`);
    }
    for (const label of found.keys()) {
      assert(this.#snapshots.has(label), `snapshot ${label} was made and not deleted`);
    }
  }
}

export async function runPendingRecords(options: PendingRecordsOptions): Promise<void> {
  await new PendingRecords(options).run();
}
