/**
 * Lives of a volume with retention, whose log wraps while hours and weeks go by: the clock jumps, to
 * and fro; the policy changes; snapshots that people named come and go; automatic ones are deleted;
 * the power goes anywhere.
 *
 * What is checked, by law:
 *   - the automatic snapshots are those of the model, after every loss again (4);
 *   - every snapshot, named or automatic, reads as the disk was (3, 4);
 *   - what a deletion or a policy gives back is what was promised, exactly, and nothing is left at
 *     the end (4);
 *   - what is held stays within the limit while an automatic snapshot could go; those that go for
 *     want of space are the oldest; a write is refused only when none is left, and named ones never
 *     go (6).
 */
import { isDeepStrictEqual } from 'node:util';
import { assert } from '../../src/base/assert.ts';
import { isVarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount, byteOffset, kibibytes, micros } from '../../src/base/units.ts';
import type { BlockDevice } from '../../src/device/block-device.ts';
import { NO_RETENTION, type RetentionPolicy } from '../../src/volume/retention-policy.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { RetentionModel } from '../model/retention-model.ts';
import { needSame } from '../model/same-blocks.ts';
import { VolumeModel } from '../model/volume-model.ts';
import { needFactsOnce } from './facts-once.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import type { SeededRandom } from '../sim/random.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';
import type { OneSeed } from './one-seed.ts';

const NAMED_MAX = 4;
const WRITE_BLOCKS_MAX = 5;
const SECOND_US = 1_000_000;
const HOUR_US = 3600 * SECOND_US;
const NO = { fua: false };

export interface RetentionLivesOptions extends OneSeed {
  readonly lives: number;
  readonly steps: number;
  /**
   * What is rare otherwise: cuts between the automatic snapshots of a round and its horizon, open
   * moments before which the next rounds end, and snapshots that come while a round finds no room.
   */
  readonly isAimed?: boolean;
}

export interface RetentionCounts {
  /** Automatic snapshots that were there at a comparison. */
  automatic: number;
  dropped: number;
  rounds: number;
  refused: number;
  losses: number;
  freedBytes: number;
}

class RetentionLives {
  readonly counts: RetentionCounts = {
    automatic: 0,
    dropped: 0,
    rounds: 0,
    refused: 0,
    losses: 0,
    freedBytes: 0,
  };
  readonly #options: RetentionLivesOptions;
  readonly #world: SimWorld;
  readonly #random: SeededRandom;
  readonly #model: VolumeModel;
  readonly #retention = new RetentionModel();
  /** As `volume.json` has it. */
  policy: RetentionPolicy = NO_RETENTION;
  /** Generation of each, by label: those that people named. */
  readonly #named = new Map<string, number>();
  readonly #everNamed = new Set<number>();
  #doubtful: { readonly label: string; readonly generation: number | undefined } | undefined;
  /** An automatic snapshot that was being deleted when the power went. */
  #doubtfulEnd: number | undefined;
  /** There is little room for what is replaced: any automatic snapshot may go. */
  readonly #isScarce: boolean;
  #opened: BlockDevice | undefined;
  #flushed = 0;
  #made = 0;

  constructor(
    options: RetentionLivesOptions,
    world: SimWorld,
    { model, isScarce }: { model: VolumeModel; isScarce: boolean },
  ) {
    this.#options = options;
    this.#world = world;
    this.#random = world.random.fork('retention');
    this.#model = model;
    this.#isScarce = isScarce;
  }

  async live(volume: Volume, isAlive: () => boolean): Promise<void> {
    const random = this.#random;
    this.#opened = undefined;
    this.#recovered(volume);
    // As a server does with what it has opened.
    await volume.setRetention(this.policy);
    await this.#compare(volume, true);
    const isSlow = this.#options.isAimed === true && random.chance(0.6);
    if (this.#options.isAimed === true) {
      await needFactsOnce(volume);
      // Before the first round, which went further before the cut.
      if (random.chance(0.7)) await this.#open(volume);
    }
    for (let step = 0; step < this.#options.steps; step++) {
      this.#options.onStep?.();
      if (!isAlive()) return;
      // Where an hour is longer than a segment, rounds end inside it.
      if (!isSlow || random.chance(0.1)) this.#timePasses();
      if (this.#options.isAimed === true) {
        await this.#openOrClose(volume);
        // Rounds that nobody waits for keep up.
        if (isSlow) await this.#world.sleep(random.below(20_000));
        if (!isAlive()) return;
      }
      const turn = random.below(100);
      if (turn < 3) await this.#name(volume);
      else if (turn < 6) await this.#deleteNamed(volume);
      else if (turn < 8) await this.#compare(volume, false);
      else if (turn < 10) await this.#changePolicy(volume);
      else if (turn < 11) await this.#deleteAutomatic(volume);
      else if (turn < 14) {
        const { head } = this.#model;
        await volume.live().flush();
        this.#flushed = Math.max(this.#flushed, head);
      } else await this.#change(volume);
    }
    await this.#compare(volume, false);
    await this.#close();
    this.counts.rounds += volume.core.counters.rounds;
  }

  /** Rounds that nobody waits for end before a moment that somebody reads. */
  async #openOrClose(volume: Volume): Promise<void> {
    const random = this.#random;
    if (this.#opened !== undefined) {
      if (random.chance(0.03)) await this.#close();
    } else if (random.chance(0.1)) await this.#open(volume);
  }

  async #open(volume: Volume): Promise<void> {
    const { horizon, head } = volume.core;
    // Where a cut has left an automatic one ahead of the horizon, the next round ends before it.
    const ahead = volume.snapshots().findLast(({ isAutomatic }) => isAutomatic)?.generation ?? 0;
    const last = ahead > horizon.generation ? ahead : Math.min(head, horizon.generation + 40);
    const at = this.#random.between(horizon.generation, last);
    try {
      this.#opened = volume.openMoment(await volume.resolve(`gen=${at}`));
    } catch (error) {
      // A round was faster.
      if (!isVarveError(error, 'MOMENT_OUTSIDE')) throw error;
    }
  }

  async #close(): Promise<void> {
    await this.#opened?.close();
    this.#opened = undefined;
  }

  /** Only by the wall clock: that is what hours and days go by. */
  #timePasses(): void {
    const random = this.#random;
    const turn = random.below(100);
    let us = 0;
    if (turn < 25) us = (1 + random.below(50)) * 60 * SECOND_US;
    else if (turn < 33) us = (1 + random.below(30)) * HOUR_US;
    else if (turn < 35) us = (1 + random.below(10)) * 24 * HOUR_US;
    else if (turn < 38) us = -(1 + random.below(180)) * 60 * SECOND_US;
    else if (turn === 38) us = -(1 + random.below(9)) * 24 * HOUR_US;
    if (us !== 0) this.#world.jumpWall(us);
  }

  #recovered(volume: Volume): void {
    const { head } = volume.core;
    const isPrefix = head >= this.#flushed && head <= this.#model.head;
    assert(isPrefix, 'a prefix, with all that was flushed');
    this.#model.cut(head);
    this.#retention.cut(head);
    this.#retention.looksAgain(volume.core.horizon.generation);
    this.#flushed = head;
    const all = volume.snapshots().filter(({ isAutomatic }) => !isAutomatic);
    const found = new Map(all.map((one) => [one.label, Number(one.generation)]));
    const doubtful = this.#doubtful;
    if (doubtful !== undefined) {
      const generation = found.get(doubtful.label);
      if (generation === undefined) this.#named.delete(doubtful.label);
      else this.#named.set(doubtful.label, generation);
      this.#doubtful = undefined;
    }
    assert(isDeepStrictEqual(found, this.#named), 'named snapshots are those that were answered');
    if (this.#doubtfulEnd !== undefined) {
      const at = this.#doubtfulEnd;
      this.#doubtfulEnd = undefined;
      if (!volume.snapshots().some((one) => one.isAutomatic && one.generation === at)) {
        this.#retention.deleted(at);
      }
    }
  }

  async #change(volume: Volume): Promise<void> {
    const random = this.#random;
    const model = this.#model;
    const device = volume.live();
    const first = random.below(model.blocks);
    const count = 1 + random.below(Math.min(WRITE_BLOCKS_MAX, model.blocks - first));
    const [offset, length] = [byteOffset(first * BLOCK_BYTES), byteCount(count * BLOCK_BYTES)];
    const kind = random.below(10);
    this.#retention.written(model.head + 1, this.#world.clock.wallUs());
    try {
      if (kind < 9) {
        const bytes = random.bytes(length);
        model.write(offset, bytes);
        await device.write(offset, bytes, NO);
      } else {
        model.trim(offset, length);
        await device.trim(offset, length, NO);
      }
    } catch (error) {
      if (!isVarveError(error, 'UNDO_FULL')) throw error;
      model.cut(model.head - 1);
      this.#retention.cut(model.head);
      await this.#refused(volume);
      return;
    }
    // Its time is that of its batch; it may have waited.
    volume.core.log.stream.seal();
    this.#retention.cut(model.head - 1);
    this.#retention.written(model.head, this.#world.clock.wallUs());
  }

  /** Only what somebody has to decide about stops writers. */
  async #refused(volume: Volume): Promise<void> {
    this.counts.refused += 1;
    const left = volume.snapshots().filter(({ isAutomatic }) => isAutomatic);
    const named = new Set(this.#named.values());
    assert(
      left.every(({ generation }) => named.has(generation)),
      'automatic snapshots go before writes are refused',
    );
    // The round that finds no room has put something already.
    if (this.#options.isAimed === true && this.#random.chance(0.7)) await this.#name(volume);
    await this.#deleteNamed(volume);
  }

  async #name(volume: Volume): Promise<void> {
    if (this.#named.size >= NAMED_MAX) return;
    const { horizon, head } = volume.core;
    const automatic = volume.snapshots().filter(({ isAutomatic }) => isAutomatic);
    const one = automatic[this.#random.below(automatic.length + 3)];
    const at = one?.generation ?? this.#random.between(horizon.generation, head);
    const label = `s${this.#made++}`;
    this.#doubtful = { label, generation: at };
    this.#everNamed.add(at);
    try {
      await volume.createSnapshot(label, `gen=${at}`);
      this.#named.set(label, at);
    } catch (error) {
      const isPassed = isVarveError(error, 'MOMENT_OUTSIDE') || isVarveError(error, 'UNDO_FULL');
      if (!isPassed) throw error;
    }
    this.#doubtful = undefined;
  }

  async #deleteNamed(volume: Volume): Promise<void> {
    const labels = [...this.#named.keys()];
    const label = labels[this.#random.below(Math.max(1, labels.length))];
    if (label === undefined) return;
    this.#doubtful = { label, generation: this.#named.get(label) };
    await volume.deleteSnapshot(label);
    this.#doubtful = undefined;
    this.#named.delete(label);
  }

  async #deleteAutomatic(volume: Volume): Promise<void> {
    const { core } = volume;
    await core.home.run(async () => {
      // No round lets others go, or makes some, behind the comparison.
      this.#compareSets(volume, false);
      const all = volume
        .snapshots()
        .filter((one) => one.isAutomatic && one.generation < core.horizon.generation);
      const one = all[this.#random.below(Math.max(1, all.length))];
      if (one === undefined) return;
      this.#doubtfulEnd = one.generation;
      await volume.deleteSnapshot(one.label).catch(unlessGone);
      this.#doubtfulEnd = undefined;
      this.#retention.deleted(one.generation);
    });
  }

  async #changePolicy(volume: Volume): Promise<void> {
    const { undo, home } = volume.core;
    await home.run(async () => {
      // No round keeps to the old policy behind the comparison.
      this.#compareSets(volume, false);
      this.policy = this.#anyPolicy();
      const before = undo.held.bytes;
      const { freedBytes } = await volume.setRetention(this.policy);
      // A round that finds no room lets some go by itself.
      const isAlone = volume.core.keeping === undefined;
      const isTold = freedBytes === before - undo.held.bytes;
      assert(isTold || !isAlone, 'a policy tells what it gave back');
      this.counts.freedBytes += freedBytes;
      this.#retention.looksAgain(volume.core.horizon.generation);
    });
    await this.#compare(volume, false);
  }

  #anyPolicy(): RetentionPolicy {
    const random = this.#random;
    return {
      everyWriteUs: micros(random.chance(0.3) ? random.below(5) * SECOND_US : 0),
      hourly: random.below(6),
      daily: random.chance(0.5) ? random.below(4) : 0,
      weekly: random.chance(0.5) ? random.below(3) : 0,
      maxBytes: byteCount(random.chance(0.3) ? (1 + random.below(100)) * BLOCK_BYTES : 0),
    };
  }

  /** @param isFirst - a round may have been interrupted behind its snapshots */
  async #compare(volume: Volume, isFirst: boolean): Promise<void> {
    // Between rounds.
    await volume.core.home.run(async () => {
      this.#compareSets(volume, isFirst);
    });
    for (const { label, generation } of volume.snapshots()) {
      await this.#read(volume, label, generation);
    }
    volume.core.check();
  }

  #compareSets(volume: Volume, isFirst: boolean): void {
    const { core } = volume;
    const snapshots = volume.snapshots();
    const found = snapshots
      .filter(({ isAutomatic }) => isAutomatic)
      .map(({ generation }) => Number(generation));
    this.counts.automatic += found.length;
    const isHeldUp = core.horizon.generation > core.settled || core.keeping !== undefined;
    this.counts.dropped += this.#retention.compare(found, {
      policy: this.policy,
      horizon: core.horizon.generation,
      mayBeAhead: isFirst || isHeldUp,
      mayBeFewer: this.#isScarce || this.policy.maxBytes > 0 ? this.#everNamed : undefined,
    });
    if (isFirst) this.#retention.looksAgain(core.horizon.generation);
    const named = new Set(this.#named.values());
    const mayGo = found.some((generation) => !named.has(generation));
    const { maxBytes } = this.policy;
    const isWithin = maxBytes === 0 || core.undo.held.bytes <= maxBytes;
    assert(isWithin || !mayGo, 'the limit is kept while an automatic snapshot can go');
    const seen = core.undo.seen();
    for (const { generation, exclusiveBytes, sharedBytes } of snapshots) {
      const all = seen.get(generation)?.bytes ?? 0;
      assert(exclusiveBytes + sharedBytes === all, 'what a snapshot holds is told whole');
    }
  }

  async #read(volume: Volume, label: string, generation: number): Promise<void> {
    const target = new Uint8Array(this.#model.size);
    try {
      const device = volume.openMoment(await volume.resolve(label));
      await device.read(byteOffset(0), target);
      await device.close();
    } catch (error) {
      // A round has let it go meanwhile.
      const isGone = !volume.snapshots().some((one) => one.label === label);
      if (isGone && isVarveError(error)) return;
      throw error;
    }
    needSame(target, this.#model, generation, label);
  }

  /** Everything goes, while nothing else happens: each gives back what was promised. */
  async end(volume: Volume): Promise<void> {
    const { core } = volume;
    const { undo, home } = core;
    // A round that found no room lets snapshots go between its attempts, also while this looks.
    await home.run(async () => {
      if (core.keeping === undefined) await undo.check();
    });
    for (const label of Array.from(this.#named.keys())) await volume.deleteSnapshot(label);
    for (const { label } of volume.snapshots().slice(0, 2)) {
      // No round keeps anything meanwhile; one that finds no room lets others go.
      await home.run(async () => {
        const [before, { count }] = [undo.held.bytes, core.pins];
        const promised = volume.snapshots().find((one) => one.label === label)?.exclusiveBytes;
        if (promised === undefined) return;
        await volume.deleteSnapshot(label).catch(unlessGone);
        if (core.pins.count !== count - 1) return;
        assert(before - undo.held.bytes === promised, 'a deletion gives back what was promised');
      });
    }
    await volume.setRetention(NO_RETENTION);
    await home.run(() => Promise.resolve());
    await core.collected();
    assert(volume.snapshots().length === 0, 'without a rule no automatic snapshot is left');
    assert(undo.held.images === 0 && undo.segments === 0, 'nothing is left');
    assert((await undo.allocated()) === 0, 'nothing is left on the device');
  }
}

/** A round that found no room may have let it go meanwhile. */
function unlessGone(error: unknown): void {
  if (!isVarveError(error, 'SNAPSHOT_UNKNOWN')) throw error;
}

/** The automatic snapshots of a round are durable, and its horizon is not. */
function cutBeforeHorizons(
  { core: { log } }: Volume,
  power: PowerSupply,
  random: SeededRandom,
): void {
  const publish = log.publish.bind(log);
  log.publish = async (patch, syncPoint) => {
    if (syncPoint === 'horizon' && power.alive && random.chance(0.1)) {
      power.plan({ loss: 'cut', afterOperations: 1 });
    }
    await publish(patch, syncPoint);
  };
}

export async function runRetentionLives(options: RetentionLivesOptions): Promise<RetentionCounts> {
  const world = new SimWorld(options.seed);
  const power = new PowerSupply(world);
  const random = world.random.fork('retention-lives');
  const isScarce = random.chance(options.isAimed === true ? 0.5 : 0.3);
  const slots = isScarce ? 6 + random.below(10) : 400;
  const sim = new SimVolume(power, {
    // Rounds of several segments, where the next one may end before the one that was cut.
    slots: options.isAimed === true ? 20 : 10,
    requestBytesMax: kibibytes(48),
    undoBytes: byteCount(kibibytes(64) + slots * kibibytes(64)),
  });
  const model = new VolumeModel(sim.geometry.size);
  const lives = new RetentionLives(options, world, { model, isScarce });
  await world.run(() => sim.format(power.life));
  for (let life = 0; life < options.lives; life++) {
    if (random.chance(0.7)) {
      power.plan({
        loss: random.chance(0.7) ? 'cut' : 'kill',
        afterOperations: 1 + random.below(options.steps * 3),
      });
    }
    const end = await power.runLife(async (machine) => {
      const volume = await sim.open(machine, { retention: lives.policy });
      if (options.isAimed === true) cutBeforeHorizons(volume, power, random);
      await lives.live(volume, () => machine.alive);
      await volume.close();
    });
    if (end.kind === 'lost') lives.counts.losses += 1;
    if (power.alive) power.cut();
    power.restore();
  }
  await world.run(async () => {
    const volume = await sim.open(power.life, { retention: lives.policy });
    await lives.live(volume, () => true);
    await lives.end(volume);
    await volume.close();
  });
  return lives.counts;
}
