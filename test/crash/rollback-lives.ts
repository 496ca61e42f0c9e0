/**
 * Lives of a small volume that is rolled back again and again, to any moment of its window and back,
 * with power cuts and kills anywhere in it: before the beginning is durable, between its writes, at
 * its end, and inside the opening that goes on with it.
 *
 * What is checked: after each loss the disk is what it was before the rollback, or what was asked
 * for, bytes and allocation; nobody who has the live disk open sees anything else; no moment inside
 * a rollback opens; all others, and every snapshot, read as they were; what had an answer lasts.
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount, byteOffset, kibibytes } from '../../src/base/units.ts';
import type { BlockDevice } from '../../src/device/block-device.ts';
import type { WriteMode } from '../../src/volume/report.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { VolumeModel } from '../model/volume-model.ts';
import { MemoryBase } from '../support/memory-base.ts';
import { PowerSupply, type Loss } from '../sim/power-supply.ts';
import type { SeededRandom } from '../sim/random.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';
import { allocationOf } from './allocation-of.ts';
import type { OneSeed } from './one-seed.ts';

export interface RollbackLivesOptions extends OneSeed {
  readonly lives?: number;
  /** The volume is based on another disk. */
  readonly isBased?: boolean;
}

export interface RollbackCounts {
  rollbacks: number;
  undone: number;
  /** Ended by an opening, after a loss. */
  resumed: number;
  /** A loss came before the beginning was durable. */
  neverBegun: number;
  /** Began, and could not go on at once. */
  failed: number;
  tooBig: number;
  refusedMoments: number;
  sessionsEnded: number;
}

interface Asked {
  readonly before: number;
  /** One of them comes back; the last one was asked for last. */
  readonly targets: readonly number[];
}

const BLOCKS = 40;
const SIZE = BLOCKS * BLOCK_BYTES - 700;
const WRITE_BYTES_MAX = 5 * BLOCK_BYTES;
const SNAPSHOTS_MAX = 2;
const LIVES = 10;
const NO = { fua: false };

class RollbackLives {
  readonly counts: RollbackCounts = {
    rollbacks: 0,
    undone: 0,
    resumed: 0,
    neverBegun: 0,
    failed: 0,
    tooBig: 0,
    refusedMoments: 0,
    sessionsEnded: 0,
  };
  readonly #options: RollbackLivesOptions;
  readonly #world: SimWorld;
  readonly #power: PowerSupply;
  readonly #random: SeededRandom;
  readonly #sim: SimVolume;
  readonly #model: VolumeModel;
  readonly #snapshots = new Map<string, number>();
  readonly #unsure = new Set<string>();
  #labels = 0;
  #durable = 0;
  /** Asked for, and not answered. */
  #asked: Asked | undefined;
  #ended: { readonly before: number; readonly after: number }[] = [];
  #loss: Loss = 'cut';
  /** Ends what fails on purpose. */
  #mend: () => void = () => undefined;

  constructor(options: RollbackLivesOptions) {
    this.#options = options;
    this.#world = new SimWorld(options.seed);
    this.#power = new PowerSupply(this.#world);
    this.#random = this.#world.random.fork('rollbacks');
    const isBased = options.isBased === true;
    const base = isBased ? MemoryBase.of(this.#world.random.fork('base'), SIZE) : undefined;
    this.#model = new VolumeModel(SIZE, base?.bytes);
    this.#sim = new SimVolume(this.#power, {
      base,
      size: byteCount(SIZE),
      segmentBytes: kibibytes(32),
      slots: this.#random.pick([14, 24, 48]),
      requestBytesMax: kibibytes(32),
      ringBytes: kibibytes(this.#random.pick([64, 256])),
    });
  }

  async run(): Promise<void> {
    await this.#world.run(() => this.#sim.format(this.#power.life));
    const lives = this.#options.lives ?? LIVES;
    for (let life = 0; life < lives; life++) await this.#live();
    this.#mend();
    await this.#world.run(async () => {
      const volume = await this.#open('back');
      await this.#check(volume);
      await volume.close();
    });
  }

  async #live(): Promise<void> {
    const random = this.#random;
    this.#mend();
    this.#loss = random.chance(0.75) ? 'cut' : 'kill';
    const mode = random.pick<WriteMode>(['back', 'back', 'written', 'through']);
    // Into the opening, which may have a rollback to go on with.
    const isUnfinished = this.#asked !== undefined;
    if (random.chance(isUnfinished ? 0.5 : 0.1)) this.#planLoss(random.pick([30, 60, 120]));
    await this.#power.runLife(async () => {
      const volume = await this.#open(mode);
      await this.#check(volume);
      await this.#work(volume);
      if (random.chance(0.2)) {
        await volume.close();
        this.#durable = this.#model.head;
      }
    });
    if (this.#power.alive) this.#power.cut();
    this.#power.restore();
  }

  #planLoss(operationsMax: number): void {
    const afterOperations = 1 + this.#random.below(operationsMax);
    this.#power.plan({ loss: this.#loss, afterOperations });
  }

  /** Opens; what was recovered becomes the truth, after it was compared with what may be. */
  async #open(writeMode: WriteMode): Promise<Volume> {
    const volume = await this.#sim.open(this.#power.life, { writeMode });
    const { rollbacks, head } = await volume.info();
    assert(
      rollbacks.every(({ after }) => after !== undefined),
      'an opening ends every rollback',
    );
    const asked = this.#asked;
    const found = rollbacks.find(
      ({ before, target }) => before === asked?.before && asked.targets.includes(target),
    );
    if (asked !== undefined && found?.after !== undefined) {
      assert(head.generation === found.after, 'nothing comes behind a rollback by itself');
      this.#model.cut(asked.before);
      this.#rolledBack(found.target, asked.before, found.after);
      this.counts.resumed += 1;
    } else {
      if (asked !== undefined) this.counts.neverBegun += 1;
      const [from, to] = [this.#durable, this.#model.head];
      const isKnown = head.generation >= from && head.generation <= to;
      assert(isKnown, `recovered generation ${head.generation} lies in [${from}, ${to}]`);
      this.#model.cut(head.generation);
    }
    this.#asked = undefined;
    this.#durable = this.#model.head;
    return volume;
  }

  #rolledBack(target: number, before: number, after: number): void {
    this.#model.restore(after, target);
    if (after > before) this.#ended.push({ before, after });
    this.#durable = after;
  }

  async #work(volume: Volume): Promise<void> {
    const random = this.#random;
    for (let left = 10 + random.below(40); left > 0; left--) {
      this.#options.onStep?.();
      const kind = random.below(20);
      if (kind < 12) await this.#change(volume);
      else if (kind === 12) await this.#flush(volume);
      else if (kind === 13) await this.#snapshot(volume);
      else if (kind === 14) await this.#dropSnapshot(volume);
      else if (kind === 15) await this.#checkMoment(volume);
      else if (kind < 18) await this.#sleep(random.pick([1, 5, 40, 1500]));
      else await this.#rollBack(volume);
      if (!this.#lives(volume)) return;
    }
  }

  async #sleep(delayMs: number): Promise<void> {
    await new Promise<void>((done) => {
      this.#power.life.timers.after(delayMs, done);
    });
  }

  async #change(volume: Volume): Promise<void> {
    const random = this.#random;
    const live = volume.live();
    const length = byteCount(1 + random.below(WRITE_BYTES_MAX));
    const offset = byteOffset(random.below(SIZE - length + 1));
    try {
      switch (random.below(8)) {
        case 0:
          this.#model.trim(offset, length);
          await live.trim(offset, length, NO);
          break;
        case 1:
          this.#model.zero(offset, length);
          await live.zero(offset, length, { fua: false, allocate: random.chance(0.5) });
          break;
        case 2:
          if (random.chance(0.7)) return;
          this.#model.trim(0, SIZE);
          await live.trim(byteOffset(0), byteCount(SIZE), NO);
          break;
        default: {
          const bytes = random.bytes(length);
          this.#model.write(offset, bytes);
          await live.write(offset, bytes, NO);
        }
      }
    } catch (error) {
      if (!isVarveError(error, 'LOG_FULL')) throw error;
      // Refused before acceptance; a snapshot stops recycling.
      this.#model.cut(this.#model.head - 1);
      await this.#dropSnapshot(volume);
    }
  }

  /** Who only meets RAM would go on after the end of its life. */
  #lives(volume: Volume): boolean {
    return this.#power.alive && volume.core.world === this.#power.life;
  }

  async #flush(volume: Volume): Promise<void> {
    const { head } = this.#model;
    await volume.live().flush();
    this.#durable = head;
  }

  /** A generation of the window that is a moment. */
  #moment(volume: Volume): number {
    const { horizon, head } = volume.core;
    const at = horizon.generation + this.#random.below(head - horizon.generation + 1);
    const around = this.#around(at);
    if (around === undefined) return at;
    return around.before >= horizon.generation ? around.before : around.after;
  }

  #around(at: number): { readonly before: number; readonly after: number } | undefined {
    return this.#ended.find(({ before, after }) => at > before && at < after);
  }

  async #snapshot(volume: Volume): Promise<void> {
    if (this.#snapshots.size >= SNAPSHOTS_MAX) return;
    const label = `s${this.#labels++}`;
    const at = this.#moment(volume);
    this.#snapshots.set(label, at);
    this.#unsure.add(label);
    try {
      await volume.createSnapshot(label, `gen=${at}`);
      this.#durable = Math.max(this.#durable, at);
    } catch (error) {
      const isRefused = isVarveError(error, 'LOG_FULL') || isVarveError(error, 'MOMENT_OUTSIDE');
      if (!isRefused) throw error;
      this.#snapshots.delete(label);
    }
    this.#unsure.delete(label);
  }

  async #dropSnapshot(volume: Volume): Promise<void> {
    const [label] = this.#snapshots.keys();
    if (label === undefined) return;
    this.#unsure.add(label);
    await volume.deleteSnapshot(label);
    this.#unsure.delete(label);
    this.#snapshots.delete(label);
  }

  async #rollBack(volume: Volume): Promise<void> {
    const random = this.#random;
    const before = this.#model.head;
    const undo = volume.core.catalogue.rollbacks.at(-1);
    const isUndo = undo !== undefined && undo.before >= volume.core.horizon.generation;
    const target = isUndo && random.chance(0.4) ? undo.before : this.#moment(volume);
    this.#asked = { before, targets: [target] };
    if (random.chance(0.2) && this.#lives(volume)) this.#planLoss(60);
    const beside = [this.#client(volume, before), this.#lateClient(volume, target, before)];
    try {
      await this.#attempt(volume, target, random.chance(0.2));
      if (isUndo && target === undo.before) this.counts.undone += 1;
    } catch (error) {
      if (isVarveError(error, 'ROLLBACK_UNFINISHED')) await this.#goOn(volume, before, target);
      else if (isVarveError(error, 'ROLLBACK_TOO_BIG')) {
        if (!this.#lives(volume)) return;
        this.counts.tooBig += 1;
        this.#asked = undefined;
        await Promise.all(beside);
        await this.#checkState(volume.live(), before);
        await this.#dropSnapshot(volume);
      } else throw error;
    }
    await Promise.all(beside);
  }

  /** @param fails - the log can't be read from some time on, until it is all over */
  async #attempt(volume: Volume, target: number, fails: boolean): Promise<void> {
    const random = this.#random;
    const before = this.#asked?.before ?? 0;
    const allocation = await allocationOf(volume, target);
    // A loss, or a fault, from when it begins, or from some of its writes.
    let isArmed = fails || random.chance(0.6);
    const share = random.pick([0.5, 0.5, 0.6, 0.9]);
    const { log } = this.#sim;
    const progress = (done: number, all: number): void => {
      this.#options.onStep?.();
      const hasBegun = volume.core.catalogue.unfinished !== undefined;
      if (!isArmed || !hasBegun || done < all * share || !this.#lives(volume)) return;
      isArmed = false;
      if (fails) this.#mend = log.failRead({ offset: 0, length: log.size });
      else this.#planLoss(random.pick([2, 5, 12, 40]));
    };
    let after: number;
    try {
      const request = { to: `gen=${target}`, force: true, dryRun: false };
      const report = await volume.rollback(request, progress);
      after = report.after.generation;
      assert(after === volume.core.head, 'the report names the newest moment');
      this.counts.sessionsEnded += report.sessionsEnded;
      if (report.undo !== undefined) {
        const { generation } = await volume.resolve(report.undo);
        assert(generation === before, 'the mark names what the disk was');
      }
    } finally {
      this.#mend();
    }
    this.#asked = undefined;
    this.counts.rollbacks += 1;
    this.#rolledBack(target, before, after);
    await this.#checkState(volume.live(), after);
    const now = await allocationOf(volume, undefined);
    now.forEach((flags, block) => {
      assert(flags === allocation[block], `block ${block} is allocated as it was`);
    });
  }

  /** It began, and the device failed: nobody sees the disk until it goes on, there or elsewhere. */
  async #goOn(volume: Volume, before: number, target: number): Promise<void> {
    const random = this.#random;
    this.counts.failed += 1;
    let refused = false;
    try {
      volume.openLive();
    } catch (error) {
      refused = isVarveError(error, 'ROLLBACK_UNFINISHED');
    }
    assert(refused, 'nobody opens the mixture');
    // A round that failed is made again after a while; until then who needs its room is told why.
    await this.#sleep(5000);
    const others = [target, before, this.#moment(volume)].filter((at) => at <= before);
    const next = random.pick(others);
    this.#asked = { before, targets: [target, next] };
    try {
      await this.#attempt(volume, next, false);
    } catch (error) {
      // What is there already takes room as well: the first one still fits.
      if (!isVarveError(error, 'ROLLBACK_TOO_BIG')) throw error;
      this.counts.tooBig += 1;
      await this.#attempt(volume, target, false);
    }
  }

  /** Has the live disk open, reads, and is sent away; the disk does not change under it. */
  async #client(volume: Volume, before: number): Promise<void> {
    const session = volume.openLive();
    let isEnded = false;
    session.onRevoke(() => {
      isEnded = true;
    });
    for (let i = 0; i < 3 && !isEnded; i++) {
      await this.#checkState(session.device, before);
      await this.#sleep(this.#random.below(3));
    }
    await session.device.close();
  }

  /** Comes while it is under way: is refused, or finds one of the two states. */
  async #lateClient(volume: Volume, target: number, before: number): Promise<void> {
    for (let i = 0; i < 4; i++) {
      await this.#sleep(this.#random.below(6));
      try {
        const { device } = volume.openLive();
        const got = new Uint8Array(SIZE);
        try {
          await device.read(byteOffset(0), got);
        } finally {
          await device.close();
        }
        const targets = this.#asked?.targets ?? [];
        const states = [before, target, ...targets, this.#model.head].map((at) =>
          this.#model.bytesAt(0, SIZE, at),
        );
        const isKnown = states.some((state) => Buffer.compare(state, got) === 0);
        assert(isKnown, `a client finds generation ${before} or generation ${target}`);
      } catch (error) {
        const isRefused = isVarveError(error, 'ROLLBACK_RUNS') || isVarveError(error, 'DEVICE_IO');
        if (!isRefused && !isVarveError(error, 'ROLLBACK_UNFINISHED')) throw error;
      }
      // Moments of before can be opened all the time.
      const { horizon } = volume.core;
      if (before < horizon.generation) continue;
      const open = volume.openMoment(await volume.resolve(`gen=${before}`));
      try {
        await this.#checkState(open, before);
      } catch (error) {
        const isFault = isVarveError(error, 'DEVICE_IO');
        if (!isFault && !isVarveError(error, 'MOMENT_GONE')) throw error;
      } finally {
        await open.close();
      }
    }
  }

  async #check(volume: Volume): Promise<void> {
    volume.core.check();
    await this.#checkState(volume.live(), this.#model.head);
    for (let i = 0; i < 6; i++) await this.#checkMoment(volume);
    await this.#checkInside(volume);
    const found = new Map(volume.snapshots().map((one) => [one.label, Number(one.generation)]));
    for (const [label, generation] of this.#snapshots) {
      if (this.#unsure.delete(label) && !found.has(label)) {
        this.#snapshots.delete(label);
        continue;
      }
      assert(found.get(label) === generation, `snapshot ${label} is kept`);
      const device = volume.openMoment(await volume.resolve(label));
      await this.#checkState(device, generation);
      await device.close();
    }
  }

  /** No generation of a rollback's own is offered as a moment. */
  async #checkInside(volume: Volume): Promise<void> {
    const { horizon } = volume.core;
    this.#ended = this.#ended.filter(({ after }) => after > horizon.generation);
    for (const { before, after } of this.#ended) {
      for (let at = Math.max(before + 1, horizon.generation); at < after; at++) {
        const refused = await volume.resolve(`gen=${at}`).then(
          () => false,
          (error: unknown) => isVarveError(error, 'MOMENT_BETWEEN'),
        );
        assert(refused, `generation ${at} lies inside a rollback`);
        this.counts.refusedMoments += 1;
      }
    }
    const told = volume.history({ intervals: 7 }).map(({ generation }) => generation);
    const window = volume.past.window();
    told.push(window.horizon.generation, window.head.generation);
    // All at once: the next round may pass one by.
    const opened = told.map((generation) => volume.openMoment({ generation }));
    for (const device of opened) await device.close();
  }

  async #checkMoment(volume: Volume): Promise<void> {
    const at = this.#moment(volume);
    let device: BlockDevice | undefined;
    try {
      device = volume.openMoment(await volume.resolve(`gen=${at}`));
      await this.#checkState(device, at);
    } catch (error) {
      // While rounds go on, the window may pass it by.
      const passed = isVarveError(error, 'MOMENT_GONE') || isVarveError(error, 'MOMENT_OUTSIDE');
      if (!passed || volume.core.horizon.generation <= at) throw error;
    } finally {
      await device?.close();
    }
  }

  async #checkState(device: BlockDevice, generation: number): Promise<void> {
    const got = new Uint8Array(SIZE);
    await device.read(byteOffset(0), got);
    for (let block = 0; block < BLOCKS; block++) {
      const part = got.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
      const expected = this.#model.blockAt(block, generation).subarray(0, part.length);
      const isSame = Buffer.compare(part, expected) === 0;
      assert(isSame, `block ${block} is as it was after generation ${generation}`);
    }
  }
}

export async function runRollbackLives(options: RollbackLivesOptions): Promise<RollbackCounts> {
  const lives = new RollbackLives(options);
  await lives.run();
  return lives.counts;
}
