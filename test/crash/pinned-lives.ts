/**
 * Lives of a volume whose log wraps while snapshots of any moment of the window come and go: every
 * snapshot reads as the model, always; what its end gives back is what was promised, exactly; and
 * nothing is left when the last one has gone.
 */
import { isDeepStrictEqual } from 'node:util';
import { assert } from '../../src/base/assert.ts';
import { isVarveError, VarveError } from '../../src/base/errors.ts';
import {
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  kibibytes,
  type ByteCount,
} from '../../src/base/units.ts';
import { STATE_ZERO } from '../../src/device/block-device.ts';
import type { SyncPoint } from '../../src/device/lower-device.ts';
import { isZero } from '../../src/device/zeros.ts';
import { copyBase } from '../../src/volume/flatten.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { needSame } from '../model/same-blocks.ts';
import { VolumeModel } from '../model/volume-model.ts';
import { MemoryBase } from '../support/memory-base.ts';
import { allocationOf } from './allocation-of.ts';
import { needFactsOnce } from './facts-once.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import type { SeededRandom } from '../sim/random.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';
import type { OneSeed } from './one-seed.ts';

const SNAPSHOTS_MAX = 6;
const WRITE_BLOCKS_MAX = 5;
/** Two whole pages of sums, and a part of one. */
const BASED_BYTES: ByteCount = byteCount(600 * BLOCK_BYTES);

export interface PinnedLivesOptions extends OneSeed {
  readonly lives: number;
  readonly steps: number;
  readonly skipSyncs?: ReadonlySet<SyncPoint>;
  /** The volume is based on another disk, and larger than a page of sums is for. */
  readonly isBased?: boolean;
  /** Syncs of marks that end joins fail, and the page cache hides it from the next process. */
  readonly forgets?: boolean;
}

export interface PinnedLivesReport {
  /** How often as much was written to the log as it holds. */
  readonly wraps: number;
  readonly snapshots: number;
  readonly rounds: number;
  readonly images: number;
  readonly freedBytes: number;
  /** How often a base was copied to its end. */
  readonly flattened: number;
}

class PinnedLives {
  readonly #options: PinnedLivesOptions;
  readonly #random: SeededRandom;
  readonly #model: VolumeModel;
  readonly #sim: SimVolume;
  readonly #base: MemoryBase | undefined;
  /** Generation of each, by label. */
  readonly #snapshots = new Map<string, number>();
  /** Asked for when the power went: there, or not. */
  #doubtful: { readonly label: string; readonly generation: number | undefined } | undefined;
  #flushed = 0;
  #made = 0;
  rounds = 0;
  images = 0;
  freedBytes = 0;
  flattened = 0;

  constructor(
    options: PinnedLivesOptions,
    random: SeededRandom,
    { model, sim, base }: { model: VolumeModel; sim: SimVolume; base: MemoryBase | undefined },
  ) {
    this.#options = options;
    this.#sim = sim;
    this.#base = base;
    this.#random = random;
    this.#model = model;
  }

  get made(): number {
    return this.#made;
  }

  async live(volume: Volume, isAlive: () => boolean): Promise<void> {
    const random = this.#random;
    this.#recovered(volume);
    await needFactsOnce(volume);
    await this.#compare(volume);
    for (let step = 0; step < this.#options.steps; step++) {
      this.#options.onStep?.();
      if (!isAlive()) return;
      const turn = random.below(100);
      if (turn < 6) await this.#create(volume);
      else if (turn < 11) await this.#delete(volume);
      else if (turn < 14) await this.#compareOne(volume);
      else if (turn === 99 && this.#base !== undefined) await this.#flatten(volume);
      else if (turn < 18) {
        const { head } = this.#model;
        await volume.live().flush();
        this.#flushed = Math.max(this.#flushed, head);
      } else await this.#change(volume);
    }
    await this.#compare(volume);
    this.rounds += volume.core.counters.rounds;
    this.images += volume.core.undo.held.images;
  }

  /** As an operator does it; stopped somewhere now and then. */
  async #flatten(volume: Volume): Promise<void> {
    const sim = this.#sim;
    if (sim.baseState === 'copied') return;
    sim.baseState = 'copying';
    const stop = this.#random.chance(0.3);
    try {
      const progress = (done: number): void => {
        if (stop && done > 0) throw new VarveError('CLOSED', 'stopped');
      };
      await copyBase(volume.core, progress, 1 + this.#random.below(300));
    } catch (error) {
      if (!isVarveError(error, 'CLOSED')) throw error;
      return;
    }
    sim.baseState = 'copied';
    await volume.core.final.dropBase();
    this.#base?.bytes.fill(0xee);
    this.flattened += 1;
  }

  #recovered(volume: Volume): void {
    const { head } = volume.core;
    assert(
      head >= this.#flushed && head <= this.#model.head,
      'a prefix, with all that was flushed',
    );
    this.#model.cut(head);
    this.#flushed = head;
    const found = new Map(volume.snapshots().map((one) => [one.label, Number(one.generation)]));
    const doubtful = this.#doubtful;
    if (doubtful !== undefined) {
      const generation = found.get(doubtful.label);
      if (generation === undefined) this.#snapshots.delete(doubtful.label);
      else this.#snapshots.set(doubtful.label, generation);
      this.#doubtful = undefined;
    }
    assert(isDeepStrictEqual(found, this.#snapshots), 'the snapshots are those that were answered');
  }

  async #change(volume: Volume): Promise<void> {
    const random = this.#random;
    const model = this.#model;
    const device = volume.live();
    const kind = random.below(10);
    if (kind < 8) {
      const first = random.below(model.blocks);
      const count = 1 + random.below(Math.min(WRITE_BLOCKS_MAX, model.blocks - first));
      const bytes = random.bytes(count * BLOCK_BYTES);
      model.write(first * BLOCK_BYTES, bytes);
      await device.write(byteOffset(first * BLOCK_BYTES), bytes, { fua: false });
      return;
    }
    const first = random.below(model.blocks);
    const isLong = random.chance(0.3);
    const count =
      1 + random.below(isLong ? model.blocks - first : Math.min(4, model.blocks - first));
    const [offset, length] = [byteOffset(first * BLOCK_BYTES), byteCount(count * BLOCK_BYTES)];
    model.trim(offset, length);
    if (kind === 8) await device.trim(offset, length, { fua: false });
    else await device.zero(offset, length, { fua: false, allocate: random.chance(0.5) });
  }

  async #create(volume: Volume): Promise<void> {
    if (this.#snapshots.size >= SNAPSHOTS_MAX) return;
    const { horizon, head } = volume.core;
    const at = this.#random.between(horizon.generation, head);
    const label = `s${this.#made++}`;
    this.#doubtful = { label, generation: at };
    try {
      const made = await volume.createSnapshot(label, `gen=${at}`);
      assert(made.generation === at, 'a snapshot is of the moment that was asked for');
      this.#snapshots.set(label, at);
    } catch (error) {
      if (!isVarveError(error, 'MOMENT_OUTSIDE')) throw error;
    }
    this.#doubtful = undefined;
  }

  async #delete(volume: Volume): Promise<void> {
    const labels = [...this.#snapshots.keys()];
    if (labels.length === 0) return;
    const label = labels[this.#random.below(labels.length)];
    if (label === undefined) return;
    this.#doubtful = { label, generation: this.#snapshots.get(label) };
    await volume.deleteSnapshot(label);
    this.#doubtful = undefined;
    this.#snapshots.delete(label);
  }

  async #compareOne(volume: Volume): Promise<void> {
    const all = [...this.#snapshots];
    if (all.length === 0) return;
    const one = all[this.#random.below(all.length)];
    if (one !== undefined) await this.#read(volume, one[0], one[1]);
  }

  async #compare(volume: Volume): Promise<void> {
    for (const [label, generation] of this.#snapshots) await this.#read(volume, label, generation);
    const target = new Uint8Array(this.#model.size);
    await volume.live().read(byteOffset(0), target);
    const expected = this.#model.bytesAt(0, target.length, this.#model.head);
    assert(Buffer.compare(target, expected) === 0, 'the head is that of the model');
    const flags = await allocationOf(volume, undefined);
    for (let block = 0; block < this.#model.blocks; block++) {
      const isToldZero = ((flags[block] ?? 0) & STATE_ZERO) !== 0;
      const content = this.#model.blockAt(block, this.#model.head);
      assert(!isToldZero || isZero(content), `block ${block} is zeros, as it is told`);
    }
    volume.core.check();
  }

  async #read(volume: Volume, label: string, generation: number): Promise<void> {
    const device = volume.openMoment(await volume.resolve(label));
    const target = new Uint8Array(this.#model.size);
    await device.read(byteOffset(0), target);
    await device.close();
    needSame(target, this.#model, generation, label);
  }

  /** The last snapshots go, one by one, while nothing else happens. */
  async end(volume: Volume, wait: () => Promise<void>): Promise<void> {
    const { undo, home } = volume.core;
    // A round that is under way comes to its end, unless it found no room.
    for (let i = 0; i < 100 && volume.core.settled < volume.core.horizon.generation; i++) {
      await wait();
    }
    // No round puts anything meanwhile.
    const check = (): Promise<void> => home.run(() => undo.check());
    await check();
    for (const label of Array.from(this.#snapshots.keys())) {
      const promised = volume.snapshots().find((one) => one.label === label)?.exclusiveBytes ?? 0;
      const before = undo.held.bytes;
      const { core } = volume;
      const { rounds } = core.counters;
      const wasQuiet = core.settled === core.horizon.generation;
      await volume.deleteSnapshot(label);
      await core.collected();
      const freed = before - undo.held.bytes;
      const isQuiet = core.settled === core.horizon.generation && rounds === core.counters.rounds;
      // A round beside it keeps more for the others.
      if (!wasQuiet || !isQuiet) continue;
      assert(
        freed === promised,
        `${label} gives back what was promised: ${promised}, not ${freed}`,
      );
      this.freedBytes += freed;
      await check();
    }
    // A round that was under way gives back what it put in vain, and that in the background.
    await home.run(() => Promise.resolve());
    await volume.core.collected();
    assert(undo.held.images === 0 && undo.segments === 0, 'nothing is left');
    assert((await undo.allocated()) === 0, 'nothing is left on the device');
  }
}

/** Joins are short, and rare: cuts are aimed at them, and at the mark that ends them. */
function cutInJoins({ core: { undo } }: Volume, power: PowerSupply, random: SeededRandom): void {
  const { life } = power;
  const aim = (chance: number, operations: number): void => {
    if (!life.alive || !random.chance(chance)) return;
    power.plan({ loss: 'cut', afterOperations: 1 + random.below(operations) });
  };
  const join = undo.join.bind(undo);
  undo.join = async (record) => {
    // Where there are fewer, hardly any join has something to do.
    if (undo.segments >= 4) aim(0.25, 12);
    await join(async () => {
      await record();
      aim(0.7, 2);
    });
  };
}

/**
 * The sync of a mark that ends a join fails, and the process is killed; what the next one does first to
 * the undo device, which rests on that mark, ends in a cut.
 */
function forgetMarks({ core: { undo } }: Volume, sim: SimVolume, random: SeededRandom): void {
  const { power } = sim;
  const { life } = power;
  const join = undo.join.bind(undo);
  undo.join = async (record) => {
    await join(async () => {
      await record();
      if (!life.alive || random.chance(0.3)) return;
      sim.undo.failNextSync({ point: 'undo', dropDirty: true });
      power.plan({ loss: 'kill', afterOperations: 3 + random.below(40) });
      let left = random.below(4);
      sim.undo.faults.watch = () => {
        if (power.life === life || !power.alive || left-- > 0) return;
        sim.undo.faults.watch = undefined;
        power.plan({ loss: 'cut', afterOperations: 1 + random.below(3) });
      };
    });
  };
}

export async function runPinnedLives(options: PinnedLivesOptions): Promise<PinnedLivesReport> {
  const world = new SimWorld(options.seed);
  const power = new PowerSupply(world);
  const random = world.random.fork('pinned');
  const size = options.isBased === true ? BASED_BYTES : byteCount(kibibytes(384));
  const base = options.isBased === true ? MemoryBase.of(random, size) : undefined;
  const sim = new SimVolume(power, {
    size,
    slots: 10,
    requestBytesMax: kibibytes(48),
    undoBytes: byteCount(kibibytes(64) + (base === undefined ? 400 : 4000) * kibibytes(64)),
    skipSyncs: options.skipSyncs ?? new Set(),
    base,
  });
  const model = new VolumeModel(sim.geometry.size, base?.bytes.slice());
  const lives = new PinnedLives(options, random, { model, sim, base });
  await world.run(() => sim.format(power.life));
  for (let life = 0; life < options.lives; life++) {
    if (random.chance(0.7)) {
      power.plan({
        loss: random.chance(0.7) ? 'cut' : 'kill',
        afterOperations: 1 + random.below(options.steps * 3),
      });
    }
    await power.runLife(async (machine) => {
      const volume = await sim.open(machine);
      if (options.forgets === true) forgetMarks(volume, sim, random);
      else cutInJoins(volume, power, random);
      await lives.live(volume, () => machine.alive);
      await volume.close();
    });
    if (power.alive) power.cut();
    power.restore();
  }
  sim.undo.faults.watch = undefined;
  const written = await world.run(async () => {
    const volume = await sim.open(power.life);
    await lives.live(volume, () => true);
    await lives.end(volume, () => world.sleep(100_000));
    await volume.close();
    return volume.core.log.writer.durable.lsn;
  });
  const { made, rounds, images, freedBytes, flattened } = lives;
  const wraps = Math.floor(written / (sim.geometry.slotCount * sim.geometry.segmentBytes));
  return { wraps, snapshots: made, rounds, images, freedBytes, flattened };
}
