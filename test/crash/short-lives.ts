/**
 * Very many very short lives of a tiny volume, whose segments hold five blocks: ends of segments,
 * torn tails, recoveries that are cut again and recycled slots come with nearly every life. One
 * client asks for one thing at a time, so the model knows the order without looking inside.
 *
 * What is checked after each loss: the content of the newest state and of one more moment, what
 * was promised, lineages, flush boundaries, snapshots, and the volume against itself.
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount, byteOffset, kibibytes } from '../../src/base/units.ts';
import type { BlockDevice } from '../../src/device/block-device.ts';
import type { WriteMode } from '../../src/volume/report.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { VolumeModel } from '../model/volume-model.ts';
import { PowerSupply, type Loss } from '../sim/power-supply.ts';
import type { SeededRandom } from '../sim/random.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';
import type { OneSeed } from './one-seed.ts';

export interface ShortLivesOptions extends OneSeed {
  readonly lives: number;
}

const BLOCKS = 16;
const WRITE_BYTES_MAX = 2 * BLOCK_BYTES;
/** What is asked for, of twenty: the rest are flushes, snapshots and pauses. */
interface Mix {
  readonly writes: number;
  readonly partial: number;
  readonly trims: number;
}
const MIXES: readonly Mix[] = [
  { writes: 12, partial: 2, trims: 2 },
  // Batches of one life lie where those of another lay.
  { writes: 19, partial: 0, trims: 0 },
  // Batches without a payload: a header is all that a cut may take of them.
  { writes: 5, partial: 1, trims: 11 },
];
const OPERATIONS = [3, 8, 20, 60] as const;

class ShortLives {
  readonly #options: ShortLivesOptions;
  readonly #random: SeededRandom;
  readonly #power: PowerSupply;
  readonly #sim: SimVolume;
  readonly #world: SimWorld;
  readonly #model = new VolumeModel(BLOCKS * BLOCK_BYTES);
  /** No loss takes these; those of `#written` no kill. */
  #durable = 0;
  #written = 0;
  /** The lineage of each generation, from 1. */
  #lineages: string[] = [];
  readonly #lineagesKnown = new Set<string>();
  readonly #flushes = new Set<number>();
  readonly #flushesUnsure = new Set<number>();
  readonly #snapshots = new Map<string, number>();
  readonly #unsure = new Set<string>();
  #labels = 0;
  /** The newest generation when this life began. */
  #opened = 0;
  readonly #mix: Mix;

  constructor(options: ShortLivesOptions) {
    this.#options = options;
    this.#world = new SimWorld(options.seed);
    this.#power = new PowerSupply(this.#world);
    this.#random = this.#world.random.fork('short-lives');
    this.#mix = this.#random.pick(MIXES);
    this.#sim = new SimVolume(this.#power, {
      size: byteCount(BLOCKS * BLOCK_BYTES),
      segmentBytes: kibibytes(32),
      slots: this.#random.pick([6, 7, 9]),
      requestBytesMax: byteCount(WRITE_BYTES_MAX),
      ringBytes: kibibytes(this.#random.pick([64, 256])),
    });
  }

  async run(): Promise<void> {
    await this.#world.run(() => this.#sim.format(this.#power.life));
    for (let life = 0; life < this.#options.lives; life++) await this.#live();
  }

  async #live(): Promise<void> {
    const random = this.#random;
    const loss: Loss = random.chance(0.75) ? 'cut' : 'kill';
    const afterOperations = 1 + random.below(random.pick(OPERATIONS));
    const early = random.chance(0.25);
    const mode = random.pick<WriteMode>(['written', 'written', 'back', 'through']);
    if (early) this.#power.plan({ loss, afterOperations });
    await this.#power.runLife(async (life) => {
      const volume = await this.#sim.open(life, { writeMode: mode });
      await this.#check(volume);
      if (!early) this.#power.plan({ loss, afterOperations });
      await this.#work(volume);
      if (random.chance(0.2)) {
        await volume.close();
        this.#promised();
      }
    });
    const isKilled = loss === 'kill' && !this.#power.alive;
    if (this.#power.alive) this.#power.cut();
    if (!isKilled) this.#written = 0;
    this.#power.restore();
  }

  /** Ends with the life. */
  async #sleep(delayMs: number): Promise<void> {
    await new Promise<void>((done) => {
      this.#power.life.timers.after(delayMs, done);
    });
  }

  #promised(generation = this.#model.head): void {
    this.#durable = Math.max(this.#durable, generation);
  }

  async #work(volume: Volume): Promise<void> {
    const random = this.#random;
    for (let left = 1 + random.below(14); left > 0; left--) {
      this.#options.onStep?.();
      const { writes, partial, trims } = this.#mix;
      const kind = random.below(20);
      if (kind < writes) await this.#write(volume, BLOCK_BYTES * random.below(BLOCKS), BLOCK_BYTES);
      else if (kind < writes + partial) {
        const length = 1 + random.below(WRITE_BYTES_MAX);
        await this.#write(volume, random.below(BLOCKS * BLOCK_BYTES - length + 1), length);
      } else if (kind < writes + partial + trims) await this.#trim(volume);
      else if (kind === 17) await this.#flush(volume);
      else if (kind === 18) await this.#snapshot(volume);
      else await this.#sleep(random.pick([1, 4, 12, 1500]));
      // Who only meets RAM would go on after the end of its life.
      if (!this.#power.alive) return;
    }
  }

  /** Before each request: its generation, and the lineage that it has to be of. */
  #accepted(volume: Volume, isFirst: boolean): void {
    const { lineage, generation } = volume.core.log.stream;
    assert(generation === this.#model.head, 'a request has the next generation');
    if (isFirst) assert(!this.#lineagesKnown.has(lineage), 'an opening has a lineage of its own');
    this.#lineagesKnown.add(lineage);
    this.#lineages[generation] = lineage;
  }

  async #request(volume: Volume, fua: boolean, ask: () => unknown): Promise<void> {
    const generation = this.#model.head;
    const isFirst = volume.core.counters.writes + volume.core.counters.trims === 0;
    try {
      const done = ask();
      // Whoever has to wait for room, or for a block to be merged with, is put later.
      if (volume.core.head === generation) this.#accepted(volume, isFirst);
      await done;
    } catch (error) {
      // A snapshot may stop recycling: refused before acceptance, so nothing happened.
      if (!isVarveError(error, 'LOG_FULL')) throw error;
      this.#model.cut(generation - 1);
      await this.#deleteSnapshot(volume);
      return;
    }
    this.#accepted(volume, false);
    if (fua || volume.writeMode === 'through') this.#promised(generation);
    if (volume.writeMode === 'written') this.#written = Math.max(this.#written, generation);
  }

  async #write(volume: Volume, offset: number, length: number): Promise<void> {
    const content = this.#random.bytes(length);
    const fua = this.#random.chance(0.1);
    this.#model.write(offset, content);
    await this.#request(volume, fua, () =>
      volume.live().write(byteOffset(offset), content, { fua }),
    );
  }

  async #trim(volume: Volume): Promise<void> {
    const offset = this.#random.below(BLOCKS) * BLOCK_BYTES;
    const length = Math.min(3 * BLOCK_BYTES, this.#model.size - offset);
    this.#model.trim(offset, length);
    await this.#request(volume, false, () =>
      volume.live().trim(byteOffset(offset), byteCount(length), { fua: false }),
    );
  }

  async #flush(volume: Volume): Promise<void> {
    const { head } = this.#model;
    const { core } = volume;
    // A flush with nothing new before it is no boundary of its own; where a mark finds no room, the
    // next request brings it.
    const isNew = head > this.#opened;
    const isNoted = isNew && core.log.stream.room(0, 1, false) === 'yes';
    this.#flushesUnsure.add(head);
    await volume.live().flush();
    this.#promised(head);
    if (isNoted || !isNew) this.#flushesUnsure.delete(head);
    if (!isNoted || head <= core.horizon.generation) return;
    this.#flushes.add(head);
    const { generation } = await volume.resolve('flush-1');
    assert(generation === head, `flush-1 is the newest flush, generation ${head}`);
  }

  async #snapshot(volume: Volume): Promise<void> {
    if (this.#snapshots.size > 0 && this.#random.chance(0.6)) {
      await this.#deleteSnapshot(volume);
      return;
    }
    const label = `s${this.#labels++}`;
    const { head } = this.#model;
    this.#unsure.add(label);
    this.#snapshots.set(label, head);
    try {
      await volume.createSnapshot(label, `gen=${head}`);
      this.#promised(head);
    } catch (error) {
      if (!isVarveError(error, 'LOG_FULL')) throw error;
      this.#snapshots.delete(label);
    }
    this.#unsure.delete(label);
  }

  async #deleteSnapshot(volume: Volume): Promise<void> {
    const label = [...this.#snapshots.keys()].find((one) => !this.#unsure.has(one));
    if (label === undefined) return;
    this.#unsure.add(label);
    await volume.deleteSnapshot(label);
    this.#snapshots.delete(label);
    this.#unsure.delete(label);
  }

  async #check(volume: Volume): Promise<void> {
    const { core } = volume;
    const { head } = core;
    core.check();
    const least = Math.max(this.#durable, this.#written);
    const isInside = head >= least && head <= this.#model.head;
    assert(isInside, `generation ${head} lies in [${least}, ${this.#model.head}]`);
    this.#model.cut(head);
    this.#durable = head;
    this.#written = 0;
    this.#opened = head;
    this.#lineages.length = Math.min(this.#lineages.length, head + 1);
    await this.#compare(volume.live(), head);
    const { generation: horizon } = core.horizon;
    const moment = horizon + this.#random.below(head - horizon + 1);
    await this.#checkMoment(volume, `gen=${moment}`, moment);
    await this.#checkSnapshots(volume);
    await this.#checkFlushes(volume);
  }

  async #checkMoment(volume: Volume, text: string, generation: number): Promise<void> {
    // A round that goes on from the last life may pass it by at once.
    if (generation < volume.core.horizon.generation) return;
    const resolved = await volume.resolve(text);
    assert(resolved.generation === generation, `${text} is generation ${generation}`);
    const lineage = this.#lineages[generation];
    assert(lineage === undefined || resolved.lineage === lineage, `${text} has its lineage`);
    const device = volume.openMoment(resolved);
    try {
      await this.#compare(device, generation);
    } catch (error) {
      const isPassed = isVarveError(error, 'MOMENT_GONE');
      if (!isPassed || volume.core.horizon.generation <= generation) throw error;
    } finally {
      await device.close();
    }
  }

  async #checkSnapshots(volume: Volume): Promise<void> {
    const found = new Map(volume.snapshots().map((one) => [one.label, Number(one.generation)]));
    for (const [label, generation] of this.#snapshots) {
      if (this.#unsure.delete(label) && !found.has(label)) {
        this.#snapshots.delete(label);
        continue;
      }
      assert(found.get(label) === generation, `snapshot ${label} is kept`);
      await this.#checkMoment(volume, label, generation);
    }
    for (const label of found.keys()) {
      assert(this.#snapshots.has(label), `snapshot ${label} was made and not deleted`);
    }
  }

  async #checkFlushes(volume: Volume): Promise<void> {
    const { horizon, head } = volume.core;
    // One below the horizon still opens where a snapshot keeps its moment.
    for (const one of this.#flushes) if (one > head) this.#flushes.delete(one);
    // The mark of a flush at the horizon itself may have gone with its segment.
    const later = [...this.#flushes].filter((one) => one > horizon.generation);
    const newest = Math.max(-1, ...later);
    try {
      const { generation } = await volume.resolve('flush-1');
      const isKnown = this.#flushes.has(generation) || this.#flushesUnsure.has(generation);
      assert(generation >= newest && isKnown, 'flush-1 is a flush, and the newest one');
      this.#flushes.add(generation);
    } catch (error) {
      if (!isVarveError(error, 'MOMENT_OUTSIDE') || newest >= 0) throw error;
    }
    this.#flushesUnsure.clear();
  }

  async #compare(device: BlockDevice, generation: number): Promise<void> {
    const target = new Uint8Array(this.#model.size);
    await device.read(byteOffset(0), target);
    const expected = this.#model.bytesAt(0, target.length, generation);
    const at = target.findIndex((byte, i) => byte !== expected[i]);
    assert(at < 0, `block ${Math.floor(at / BLOCK_BYTES)} is that of generation ${generation}`);
  }
}

export async function runShortLives(options: ShortLivesOptions): Promise<void> {
  await new ShortLives(options).run();
}
