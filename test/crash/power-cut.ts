/**
 * Lives of one volume, each ended by a power cut or a kill at a seeded moment: inside commits,
 * rounds, snapshots, closing, and inside the recovery from the cut before. Some lives write
 * nothing: they open, look and close.
 *
 * What is checked after each (laws 1 to 5):
 *   - The volume opens, and its content is exactly the state after some generation g.
 *   - g is at or after every generation that a completed flush or FUA covered.
 *   - Each client's own bytes are a prefix of its own requests.
 *   - Random moments of the window, and every snapshot, read as they were.
 *   - Index, counts and segments agree with themselves.
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError, type ErrorCode } from '../../src/base/errors.ts';
import { block as blockOf, BLOCK_BYTES, byteCount, byteOffset } from '../../src/base/units.ts';
import type { World } from '../../src/base/world.ts';
import type { BlockDevice } from '../../src/device/block-device.ts';
import type { SyncPoint } from '../../src/device/lower-device.ts';
import { WRITE_MODES, type WriteMode } from '../../src/volume/report.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { VolumeModel } from '../model/volume-model.ts';
import { PowerSupply, type Loss } from '../sim/power-supply.ts';
import type { SeededRandom } from '../sim/random.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';
import { DiskTrouble } from './disk-trouble.ts';
import { followStream } from './follow-stream.ts';
import type { OneSeed } from './one-seed.ts';
import { blankReport, type PowerCutReport } from './power-cut-report.ts';
import { shapeOf, type Shape } from './shapes.ts';

export interface PowerCutOptions extends OneSeed {
  readonly lives: number;
  readonly skipSyncs?: ReadonlySet<SyncPoint>;
  /** Moments looked at after each loss. */
  readonly moments?: number;
  /** Many small requests in every life; else the seed decides. */
  readonly plain?: boolean;
  /** Syncs and writes fail as well. */
  readonly trouble?: boolean;
}

/** Bytes of the volume that one client alone writes; lanes meet inside blocks, on purpose. */
interface Lane {
  readonly from: number;
  readonly length: number;
  /** Content after its k-th request, from 0 (zeros or what the last life left). */
  states: Uint8Array[];
  /** Requests that a crash must not take. */
  durable: number;
  /** Requests that a kill must not take: the kernel has them. */
  written: number;
}

export class PowerCutRun {
  readonly #options: PowerCutOptions;
  readonly #world: SimWorld;
  readonly #power: PowerSupply;
  readonly #sim: SimVolume;
  readonly #random: SeededRandom;
  /** Decides on shapes and idle lives. Apart, so that plain runs stay what they were. */
  readonly #choice: SeededRandom | undefined;
  readonly #shape: Shape;
  readonly #trouble: DiskTrouble | undefined;
  readonly #model: VolumeModel;
  readonly #lanes: Lane[] = [];
  readonly #snapshots = new Map<string, number>();
  /** Labels whose creation or deletion had no answer. */
  readonly #unsure = new Set<string>();
  #durable = 0;
  #labels = 0;
  /** Nobody flushes in this life: syncs come from pressure alone, and can't hide each other. */
  #quiet = false;
  /** The last life ended with a close that was answered. */
  #closed = false;
  readonly report = blankReport();

  constructor(options: PowerCutOptions) {
    this.#options = options;
    this.#world = new SimWorld(options.seed);
    this.#power = new PowerSupply(this.#world);
    this.#random = this.#world.random.fork('power-cut');
    this.#choice = options.plain === true ? undefined : this.#world.random.fork('shape');
    this.#shape = shapeOf(this.#random, this.#choice);
    const skipSyncs = options.skipSyncs ?? new Set();
    this.#sim = new SimVolume(this.#power, { skipSyncs, ...this.#shape.volume });
    if (options.trouble === true) {
      this.#trouble = new DiskTrouble(this.#sim, this.#world.random.fork('trouble'));
    }
    const { size } = this.#sim.geometry;
    this.#model = new VolumeModel(size);
    const length = Math.floor(size / this.#shape.lanes) - 1000;
    for (let i = 0; i < this.#shape.lanes; i++) {
      const states = [new Uint8Array(length)];
      this.#lanes.push({ from: i * length, length, states, durable: 0, written: 0 });
    }
  }

  async run(): Promise<PowerCutReport> {
    this.#soil();
    await this.#world.run(() => this.#sim.format(this.#power.life));
    // Formatting answered: the volume exists from here on, whatever happens.
    for (let life = 0; life < this.#options.lives; life++) await this.#live();
    this.#trouble?.calm();
    await this.#openAndCheck();
    const { failedSyncs, failedWrites } = this.#trouble ?? { failedSyncs: 0, failedWrites: 0 };
    this.report.faults = failedSyncs + failedWrites;
    this.report.reslots = this.#sim.log.counters.syncsBy.get('reslot') ?? 0;
    this.report.digest = this.#world.digest;
    return this.report;
  }

  /** Devices that held something else before. */
  #soil(): void {
    for (const disk of [this.#sim.final, this.#sim.sums, this.#sim.log]) {
      const junk = this.#random.bytes(512);
      for (let i = 0; i < 4; i++) disk.corrupt(this.#random.below(disk.size - 511), junk);
    }
  }

  async #live(): Promise<void> {
    const random = this.#random;
    const loss: Loss = random.chance(1 - this.#shape.killShare) ? 'cut' : 'kill';
    const early = random.chance(0.25);
    this.#trouble?.change();
    const idle = this.#choice?.chance(0.3) === true;
    // Works to its end, and is closed in order.
    const gentle = !early && (random.chance(0.15) || idle);
    if (early) this.#power.plan({ loss, afterOperations: 1 + random.below(40) });
    let opened: Volume | undefined;
    this.#quiet = random.chance(0.3);
    const mode: WriteMode = this.#quiet || random.chance(0.7) ? 'back' : random.pick(WRITE_MODES);
    await this.#power.runLife(async (life) => {
      const volume = await this.#tryOpen(life, mode);
      if (volume === undefined) return;
      opened = volume;
      // Soon after an opening, so that nothing else made lasting what recovery accepted.
      if (!gentle && random.chance(0.2))
        this.#power.plan({ loss, afterOperations: 1 + random.below(60) });
      await this.#checkAll(volume);
      // Checks read a lot; the loss is to fall into the work.
      if (!early && !gentle) {
        this.#power.plan({ loss, afterOperations: 1 + random.below(this.#shape.operations) });
      }
      if (!gentle) this.#aimAtRounds(volume, loss);
      if (idle) await this.#close(volume);
      else await this.#work(volume, gentle, loss);
    });
    if (opened === undefined) this.report.inRecovery += 1;
    else {
      this.report.rounds += opened.core.counters.rounds;
      if (opened.core.failure !== undefined) this.report.readOnly += 1;
    }
    const isKilled = loss === 'kill' && !this.#power.alive;
    if (!isKilled) for (const lane of this.#lanes) lane.written = 0;
    // A kill leaves the page cache, which may show what a failed sync has forgotten.
    if (this.#power.alive && this.#trouble !== undefined && loss === 'kill') this.#power.kill();
    if (this.#power.alive) this.#power.cut();
    if (loss === 'cut') this.report.cuts += 1;
    else this.report.kills += 1;
    this.#power.restore();
  }

  /** Cuts just after the turning points of a round: later syncs would hide that one is missing. */
  #aimAtRounds(volume: Volume, loss: Loss): void {
    const { log } = volume.core;
    const random = this.#random;
    const lives = (): boolean => this.#power.alive && volume.core.world === this.#power.life;
    const publish = log.publish.bind(log);
    log.publish = async (patch, point) => {
      await publish(patch, point);
      if (!this.#quiet && random.chance(0.2) && lives()) {
        this.#power.plan({ loss, afterOperations: 1 + random.below(8) });
      }
    };
    const publishCheckpoint = log.publishCheckpoint.bind(log);
    log.publishCheckpoint = async (make, patch) => {
      await publishCheckpoint(make, patch);
      if (this.#quiet && random.chance(0.4) && lives()) {
        // Late enough that a slot of the recycled ones is in use again.
        this.#power.plan({ loss, afterOperations: 5 + random.below(40) });
      }
    };
  }

  async #openAndCheck(): Promise<void> {
    await this.#world.run(async () => {
      const volume = await this.#open(this.#power.life, 'back');
      await this.#checkAll(volume);
      await volume.close();
    });
  }

  /** @returns undefined when recovery could not make lasting what it found */
  async #tryOpen(life: World, mode: WriteMode): Promise<Volume | undefined> {
    try {
      return await this.#open(life, mode);
    } catch (error) {
      this.#needTrouble(error, 'DEVICE_IO');
      // It may have said on the log that the volume is open before it failed.
      this.#closed = false;
      return undefined;
    }
  }

  /** Failures of the disks are passed on, and nothing else is. */
  #needTrouble(error: unknown, ...codes: readonly ErrorCode[]): void {
    const known = codes.some((code) => isVarveError(error, code));
    if (this.#trouble === undefined || !known) throw error;
    this.report.refused += 1;
  }

  /** Opens; what was recovered becomes the truth, after it was compared with what may be. */
  async #open(life: World, writeMode: WriteMode): Promise<Volume> {
    const volume = await this.#sim.open(life, { writeMode });
    const { generation } = (await volume.info()).head;
    assert(!this.#closed || volume.core.recovery.clean, 'what was closed in order opens clean');
    this.#closed = false;
    assert(
      generation >= this.#durable && generation <= this.#model.head,
      `recovered generation ${generation} lies in [${this.#durable}, ${this.#model.head}]`,
    );
    if (volume.core.recovery.cut !== undefined) this.report.tails += 1;
    this.#model.cut(generation);
    // It has been told to somebody now.
    this.#durable = generation;
    await this.#checkLanes(volume);
    followStream(volume, this.#model, () => {
      this.report.requests += 1;
      this.#options.onStep?.();
    });
    return volume;
  }

  async #work(volume: Volume, gentle: boolean, loss: Loss): Promise<void> {
    const clients = this.#lanes.map((lane) =>
      this.#client(volume, lane, gentle ? undefined : loss),
    );
    clients.push(this.#operator(volume));
    await Promise.all(
      clients.map((client) =>
        client.catch((error: unknown) => {
          this.#needTrouble(error, 'VOLUME_FAILED');
        }),
      ),
    );
    // What is read goes on, also where writing does not.
    if (this.#trouble !== undefined && this.#power.alive) await this.#checkAll(volume);
    if (gentle || this.#random.chance(0.5)) await this.#close(volume);
  }

  async #close(volume: Volume): Promise<void> {
    const head = this.#model.head;
    try {
      await volume.close();
    } catch (error) {
      this.#needTrouble(error, 'VOLUME_FAILED');
      return;
    }
    if (volume.core.failure !== undefined) return;
    this.#closed = true;
    this.#durable = Math.max(this.#durable, head);
    for (const lane of this.#lanes) lane.durable = lane.states.length - 1;
  }

  async #client(volume: Volume, lane: Lane, loss: Loss | undefined): Promise<void> {
    const random = this.#random;
    const { requests, requestsMore } = this.#shape;
    const count = requests + random.below(requestsMore);
    for (let i = 0; i < count; i++) {
      if (!this.#quiet && random.chance(0.15)) await this.#flush(volume, lane);
      else await this.#request(volume, lane, loss);
    }
  }

  async #flush(volume: Volume, lane: Lane): Promise<void> {
    const head = this.#model.head;
    const mine = lane.states.length - 1;
    await volume.live().flush();
    this.report.flushes += 1;
    this.#options.onStep?.();
    this.#durable = Math.max(this.#durable, head);
    lane.durable = Math.max(lane.durable, mine);
  }

  async #request(volume: Volume, lane: Lane, loss: Loss | undefined): Promise<void> {
    const random = this.#random;
    const live = volume.live();
    const { shortBytes, longBytes, longShare, aimShare } = this.#shape;
    const long = random.chance(longShare);
    const length = 1 + random.below(long ? longBytes : shortBytes);
    // Who only meets RAM goes on for a while after the end of its life.
    const alive = this.#power.alive && volume.core.world === this.#power.life;
    if (long && alive && loss !== undefined && this.#choice?.chance(aimShare) === true) {
      this.#power.plan({ loss, afterOperations: 1 + random.below(25) });
    }
    const offset = random.below(Math.max(1, lane.length - length));
    const at = byteOffset(lane.from + offset);
    const take = Math.min(length, lane.length - offset);
    const fua = !this.#quiet && random.chance(0.1);
    const next = lane.states.at(-1)?.slice() ?? new Uint8Array(lane.length);
    lane.states.push(next);
    const k = lane.states.length - 1;
    // A trim that covers no whole block does nothing, so there is nothing for FUA to make durable.
    let nothing = false;
    try {
      const kind = random.below(10);
      if (kind === 0) {
        next.fill(0, offset, offset + take);
        await live.zero(at, byteCount(take), { fua, allocate: random.chance(0.3) });
      } else if (kind === 1) {
        const first = Math.ceil(at / BLOCK_BYTES) * BLOCK_BYTES;
        const end = Math.floor((at + take) / BLOCK_BYTES) * BLOCK_BYTES;
        nothing = end <= first;
        if (!nothing) next.fill(0, first - lane.from, end - lane.from);
        await live.trim(at, byteCount(take), { fua });
      } else {
        const bytes = random.bytes(take);
        next.set(bytes, offset);
        await live.write(at, bytes, { fua });
      }
    } catch (error) {
      // A snapshot may stop recycling: refused before acceptance, so nothing happened.
      const full = isVarveError(error, 'LOG_FULL');
      if (!full) this.#needTrouble(error, 'DEVICE_IO', 'DISK_FULL');
      assert(lane.states.length - 1 === k, 'a client has one request under way');
      lane.states.pop();
      await this.#dropSnapshot(volume);
      return;
    }
    const promised = fua || volume.writeMode === 'through';
    if (promised && !nothing) lane.durable = Math.max(lane.durable, k);
    const isWritten = volume.writeMode === 'written' && this.#trouble === undefined;
    if (isWritten && !nothing) lane.written = Math.max(lane.written, k);
  }

  async #operator(volume: Volume): Promise<void> {
    const random = this.#random;
    for (let i = 0; i < (this.#quiet ? 2 : 6); i++) {
      await new Promise<void>((done) => {
        this.#power.life.timers.after(random.below(20), done);
      });
      const { horizon, head } = volume.core;
      const generation = horizon.generation + random.below(head - horizon.generation + 1);
      if (random.chance(0.4)) await this.#checkMoment(volume, generation);
      else if (random.chance(0.5) && this.#snapshots.size < 3) {
        await this.#createSnapshot(volume, generation);
      } else await this.#dropSnapshot(volume);
    }
  }

  async #createSnapshot(volume: Volume, generation: number): Promise<void> {
    const label = `s${this.#labels++}`;
    this.#snapshots.set(label, generation);
    this.#unsure.add(label);
    try {
      await volume.createSnapshot(label, `gen=${generation}`);
    } catch (error) {
      const known = isVarveError(error, 'LOG_FULL') || isVarveError(error, 'MOMENT_OUTSIDE');
      // A round that fails frees no room: refused as a write is.
      if (!known) this.#needTrouble(error, 'DEVICE_IO', 'DISK_FULL');
      this.#snapshots.delete(label);
    }
    this.#unsure.delete(label);
    this.#durable = Math.max(this.#durable, this.#snapshots.get(label) ?? 0);
  }

  async #dropSnapshot(volume: Volume): Promise<void> {
    const label = [...this.#snapshots.keys()].find((one) => !this.#unsure.has(one));
    if (label === undefined) return;
    this.#unsure.add(label);
    await volume.deleteSnapshot(label);
    this.#unsure.delete(label);
    this.#snapshots.delete(label);
  }

  async #checkAll(volume: Volume): Promise<void> {
    const { core } = volume;
    core.check();
    const isSound = this.#trouble !== undefined || core.counters.readErrors === 0;
    assert(isSound, 'what nothing has damaged is read as it was');
    await this.#checkState(volume.live(), this.#model.head);
    await this.#checkSnapshots(volume);
    const moments = this.#options.moments ?? 50;
    for (let i = 0; i < moments; i++) {
      const span = this.#model.head - core.horizon.generation + 1;
      await this.#checkMoment(volume, core.horizon.generation + this.#random.below(span));
    }
  }

  async #checkSnapshots(volume: Volume): Promise<void> {
    const found = new Map(volume.snapshots().map((one) => [one.label, Number(one.generation)]));
    for (const [label, generation] of this.#snapshots) {
      const got = found.get(label);
      if (this.#unsure.has(label)) {
        // What had no answer because the volume failed is known at the next opening.
        if (volume.core.failure !== undefined) continue;
        this.#unsure.delete(label);
        if (got === undefined) {
          this.#snapshots.delete(label);
          continue;
        }
      }
      assert(got === generation, `snapshot ${label} is kept, at generation ${generation}`);
      const device = volume.openMoment(await volume.resolve(label));
      await this.#checkState(device, generation);
      await device.close();
      this.report.snapshots += 1;
    }
    for (const label of found.keys()) {
      assert(this.#snapshots.has(label), `snapshot ${label} was made`);
    }
  }

  async #checkMoment(volume: Volume, generation: number): Promise<void> {
    let device: BlockDevice | undefined;
    this.#options.onStep?.();
    try {
      device = volume.openMoment(await volume.resolve(`gen=${generation}`));
      await this.#checkState(device, generation);
      this.report.moments += 1;
    } catch (error) {
      // While clients write, the window may pass it by.
      const passed = isVarveError(error, 'MOMENT_GONE') || isVarveError(error, 'MOMENT_OUTSIDE');
      if (!passed || volume.core.horizon.generation <= generation) throw error;
    } finally {
      await device?.close();
    }
  }

  async #checkState(device: BlockDevice, generation: number): Promise<void> {
    const target = new Uint8Array(device.size);
    // What a live read may see changes while it runs: it is compared only where nobody writes.
    await device.read(byteOffset(0), target);
    for (let block = 0; block < this.#model.blocks; block++) {
      const at = block * BLOCK_BYTES;
      const got = target.subarray(at, at + BLOCK_BYTES);
      const same = Buffer.compare(got, this.#model.blockAt(block, generation)) === 0;
      assert(same, `block ${blockOf(block)} is as it was after generation ${generation}`);
    }
    // A buffer is its owner's again: whoever kept a view of it now holds garbage.
    target.fill(0xa5);
  }

  async #checkLanes(volume: Volume): Promise<void> {
    for (const lane of this.#lanes) {
      const got = new Uint8Array(lane.length);
      await volume.live().read(byteOffset(lane.from), got);
      const k = lane.states.findLastIndex((state) => Buffer.compare(state, got) === 0);
      const least = Math.max(lane.durable, lane.written);
      assert(k >= least, `a client finds a prefix of its requests, from ${least} on`);
      lane.states = [got];
      lane.durable = 0;
      lane.written = 0;
    }
  }
}

export async function runPowerCuts(options: PowerCutOptions): Promise<PowerCutReport> {
  return await new PowerCutRun(options).run();
}
