/** One opening of the volume: runs steps against it until the script, or the machine, ends it. */
import { unreachable } from '../../src/base/assert.ts';
import { isVarveError, type ErrorCode } from '../../src/base/errors.ts';
import { byteCount, byteOffset, BLOCK_BYTES } from '../../src/base/units.ts';
import type { BlockDevice, Done } from '../../src/device/block-device.ts';
import type { DamagePlace } from '../../src/volume/report.ts';
import type { Volume } from '../../src/volume/volume.ts';
import type { Life } from '../../test/sim/power-supply.ts';
import {
  checkAll,
  checkCounts,
  isUnreadable,
  liveView,
  momentView,
  readRange,
  mayGo,
} from './checks.ts';
import { law } from './law.ts';
import { blocksOf, type Request } from './requests.ts';
import { never, type RunState } from './state.ts';
import type { Step } from './steps.ts';

/** Why there is no room, until a snapshot goes. */
const FULL: readonly ErrorCode[] = ['LOG_FULL', 'UNDO_FULL'];
const IN_FLIGHT_MAX = 8;
const MOMENTS_MAX = 3;
const SNAPSHOTS_MAX = 3;
const MOMENTS_CHECKED = 3;
/** What a cut may leave half written, and a scrub makes again from its other copy. */
const TORN_BY_CUTS: ReadonlySet<DamagePlace> = new Set(['summary', 'superblock', 'checkpoint']);

type BesideStep =
  | { readonly do: 'flush' | 'scrub' | 'mark' | 'delete-snapshot' }
  | { readonly do: 'snapshot'; readonly at: number };

interface OpenMoment {
  readonly generation: number;
  readonly device: BlockDevice;
}

export class Session {
  readonly #state: RunState;
  readonly #life: Life;
  readonly #volume: Volume;
  readonly #inFlight = new Set<Promise<void>>();
  readonly #moments: OpenMoment[] = [];
  #isCrashPlanned = false;
  #modeChanges = 0;
  /** Snapshots that were deleted, or not made. */
  #deletions = 0;
  /** Refused with VOLUME_FAILED; the operator restarts the server soon. */
  isFailed = false;

  constructor(state: RunState, life: Life, volume: Volume) {
    this.#state = state;
    this.#life = life;
    this.#volume = volume;
    const isAlive = (): boolean => life.alive;
    state.requests.listen(volume.core.log.stream, isAlive, (lsn, block, generation) => {
      state.oracle.put(lsn, block, generation);
    });
    state.oracle.listen(volume, isAlive);
  }

  /** @returns whether the volume stays open */
  async step(step: Step): Promise<boolean> {
    const state = this.#state;
    switch (step.do) {
      case 'write':
      case 'trim':
      case 'zero':
        await this.#submit(step);
        break;
      case 'burst':
        await this.#burst(step.at, step.count);
        break;
      case 'read':
        await this.#read(step.at, step.length);
        break;
      case 'drain':
        await this.#drain();
        break;
      case 'pause':
        await this.#sleep(step.us);
        break;
      case 'check':
        await this.#drain();
        await checkAll(state, this.#volume, MOMENTS_CHECKED);
        break;
      case 'look':
        await this.#drain();
        await this.#look();
        break;
      case 'reopen':
        await this.#close();
        return false;
      case 'crash':
        await this.#crash(step.loss, step.operations);
        break;
      case 'mode':
        this.#volume.setWriteMode(step.mode);
        this.#modeChanges += 1;
        break;
      case 'heal':
        state.faults.heal();
        break;
      case 'fault':
        if (state.script.faults.includes(step.fault)) state.faults.plant(step);
        break;
      case 'open-moment':
        await this.#openMoment(step.at);
        break;
      case 'read-moment':
        await this.#readMoment(step.at);
        break;
      case 'close-moment':
        await this.#closeMoment(step.at);
        break;
      case 'flush':
      case 'scrub':
      case 'mark':
      case 'delete-snapshot':
        this.#spawn(this.#beside({ do: step.do }));
        break;
      case 'snapshot':
        this.#spawn(this.#beside({ do: step.do, at: step.at }));
        break;
      default:
        return unreachable(step);
    }
    return true;
  }

  /** What nobody waits for before the next step. */
  #beside(step: BesideStep): Promise<void> {
    switch (step.do) {
      case 'flush':
        return this.#flush();
      case 'scrub':
        return this.#scrub();
      case 'mark':
        return this.#mark();
      case 'snapshot':
        return this.#snapshot(step.at);
      case 'delete-snapshot':
        return this.#deleteSnapshot();
      default:
        return unreachable(step);
    }
  }

  async #read(at: number, wanted: number): Promise<void> {
    const { offset, length } = this.#state.place(at, wanted);
    await this.#room();
    this.#spawn(readRange(this.#state, liveView(this.#state, this.#volume), offset, length));
  }

  async #closeMoment(at: number): Promise<void> {
    const [gone] = this.#moments.splice(at % Math.max(1, this.#moments.length), 1);
    await gone?.device.close();
  }

  /** What a step leaves behind it. */
  afterStep(): void {
    checkCounts(this.#state, this.#volume);
  }

  #spawn(work: Promise<void>): void {
    const guarded = work.catch((error: unknown) => {
      if (this.#life.alive) this.#state.world.fail(asError(error));
    });
    this.#inFlight.add(guarded);
    void guarded.then(() => this.#inFlight.delete(guarded));
  }

  async #room(): Promise<void> {
    while (this.#inFlight.size >= IN_FLIGHT_MAX) await Promise.race(this.#inFlight);
    await this.#gate();
  }

  async #drain(): Promise<void> {
    while (this.#inFlight.size > 0) await Promise.all(this.#inFlight);
    await this.#gate();
  }

  /** Who outlives its machine does nothing more. */
  async #gate(): Promise<void> {
    if (this.#life.alive) return;
    await never();
  }

  async #sleep(us: number): Promise<void> {
    await new Promise<void>((resume) => {
      this.#life.timers.after(us / 1000, resume);
    });
  }

  async #submit(step: Step & { readonly do: 'write' | 'trim' | 'zero' }): Promise<void> {
    const { offset, length } = this.#state.place(step.at, step.length);
    await this.#room();
    this.#spawn(this.#request(step, offset, length));
  }

  async #burst(at: number, count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      const { offset, length } = this.#state.place((at + i * 37) % 10_000, BLOCK_BYTES);
      await this.#room();
      this.#spawn(this.#request({ do: 'write', at, length, fua: false }, offset, length));
    }
  }

  async #request(
    step: Step & { readonly do: 'write' | 'trim' | 'zero' },
    offset: number,
    length: number,
  ): Promise<void> {
    const state = this.#state;
    const { requests, random, model } = state;
    const bytes = step.do === 'write' ? random.bytes(length) : undefined;
    const { do: kind, fua } = step;
    const request: Request = { kind, offset, length, bytes, fua, generation: undefined };
    const isEmpty = requests.isEmpty(request);
    const changes = this.#modeChanges;
    const deletions = this.#deletions;
    const before = model.head;
    if (!isEmpty) requests.begin(request);
    state.count(step.do);
    try {
      await this.#send(step, request);
    } catch (error) {
      requests.refuse(request);
      if (this.#life.alive) this.#refused(request, error, { before, deletions });
      return;
    }
    requests.end(request);
    if (!this.#life.alive || isEmpty) return;
    const { generation } = request;
    law(1, generation !== undefined, () => `an answered ${step.do} at ${offset} has a generation`);
    const through = this.#volume.writeMode === 'through' && changes === this.#modeChanges;
    if (step.fua || through) state.promise(generation);
  }

  #send(step: Step & { readonly do: 'write' | 'trim' | 'zero' }, request: Request): Done {
    const live = this.#volume.live();
    const at = byteOffset(request.offset);
    const length = byteCount(request.length);
    const { fua } = step;
    if (step.do === 'trim') return live.trim(at, length, { fua });
    if (step.do === 'zero') return live.zero(at, length, { fua, allocate: step.allocate });
    return live.write(at, request.bytes ?? new Uint8Array(0), { fua });
  }

  /** A refusal comes before acceptance (law 6), or with the volume's failure (law 7). */
  #refused(
    request: Request,
    error: unknown,
    { before, deletions }: { readonly before: number; readonly deletions: number },
  ): void {
    const state = this.#state;
    const code = isVarveError(error) ? error.code : undefined;
    if (code === undefined) throw error;
    state.count(`refused ${code}`);
    if (this.#mayHaveFailed(code)) return;
    law(6, request.generation === undefined, `what was accepted is not refused: ${code}`);
    if (FULL.includes(code)) {
      const snapshots = state.snapshots.size > 0 || deletions < this.#deletions;
      const kept = snapshots || state.oracle.finalFailures > 0;
      law(6, kept, () => `only a snapshot or a failing disk fills it: ${String(error)}`);
      if (state.random.chance(0.3)) this.#spawn(this.#deleteSnapshot());
      return;
    }
    const isDown = code === 'DEVICE_IO' && state.oracle.finalFailures > 0;
    if (code === 'DISK_FULL' || isDown) {
      law(6, state.oracle.finalFailures > 0, 'a disk is full only when it is');
      return;
    }
    const [first, end] = blocksOf(request, state.model.size);
    const edges = [first, end - 1];
    const excused = edges.some((block) => {
      for (let at = before; at <= state.model.head; at++) {
        if (state.oracle.mayFail(block, at)) return true;
      }
      return false;
    });
    // As for reads: refused while the device failed, answered when it works again.
    const isLate = code === 'DEVICE_IO' && state.oracle.wasRefused;
    law(
      5,
      isUnreadable(error) && (excused || isLate),
      `a request is refused for a reason: ${String(error)}`,
    );
  }

  #mayHaveFailed(code: ErrorCode): boolean {
    if (code !== 'VOLUME_FAILED') return false;
    const { logFailures } = this.#state.oracle;
    law(7, logFailures > 0, 'a volume fails only when its log did');
    this.isFailed = true;
    return true;
  }

  async #flush(): Promise<void> {
    const { model } = this.#state;
    const { head } = model;
    try {
      await this.#volume.live().flush();
    } catch (error) {
      if (!this.#life.alive) return;
      if (isVarveError(error) && this.#mayHaveFailed(error.code)) return;
      throw error;
    }
    if (!this.#life.alive) return;
    this.#state.promise(head);
    this.#state.count('flushes');
  }

  async #look(): Promise<void> {
    const info = await this.#volume.info();
    law(3, info.head.generation === this.#state.model.head, 'info names the newest generation');
    law(1, info.durable.generation >= this.#state.durable, 'info names what is durable');
  }

  /** Beside whatever else goes on; what it reports as damaged was damaged. */
  async #scrub(): Promise<void> {
    const { oracle } = this.#state;
    try {
      const report = await this.#volume.scrub({ bytesPerSecond: 0, progress: () => undefined });
      if (!this.#life.alive) return;
      this.#state.count('scrubs');
      this.#state.count('repairs', report.repaired);
      for (const { place, block, generation = 0, what, outcome } of report.damages) {
        const isKnown = block === undefined || oracle.isSuspect(block, generation);
        const isTorn = TORN_BY_CUTS.has(place) && outcome === 'repaired';
        const isPassing = oracle.wasRefused && what.includes('EIO');
        const isMended = oracle.wasDamaged && outcome === 'repaired';
        const excused = isTorn || isPassing || isMended || (oracle.wasDamaged && isKnown);
        law(5, excused, () => `a scrub finds what a fault damaged, and nothing else: ${what}`);
      }
    } catch (error) {
      if (!this.#life.alive) return;
      if (isVarveError(error, 'SCRUB_RUNS') || isVarveError(error, 'CLOSED')) return;
      this.#knownRefusal(error, []);
    }
  }

  async #close(): Promise<void> {
    const state = this.#state;
    await this.#drain();
    for (const { device } of this.#moments.splice(0)) await device.close();
    const { head } = state.model;
    const failed = this.#volume.core.failure !== undefined;
    try {
      await this.#volume.close();
    } catch (error) {
      const known = isVarveError(error) && this.#mayHaveFailed(error.code);
      if (!known && !isUnreadable(error)) throw error;
      law(7, state.oracle.logFailures > 0, 'a close fails only when the log did');
      return;
    }
    if (failed || this.#volume.core.failure !== undefined) return;
    // Else the next opening looks for leftovers, as after a crash.
    state.closed = state.oracle.undoFailures === 0;
    state.promise(head);
    state.count('closes');
  }

  async #crash(loss: 'cut' | 'kill', operations: number): Promise<void> {
    const { power } = this.#state;
    if (operations > 0 && !this.#isCrashPlanned) {
      this.#isCrashPlanned = true;
      power.plan({ loss, afterOperations: operations });
      return;
    }
    if (loss === 'cut') power.cut();
    else power.kill();
    await this.#gate();
  }

  async #mark(): Promise<void> {
    try {
      const { generation } = await this.#volume.mark(`m${this.#state.labels++}`);
      this.#state.promise(generation);
    } catch (error) {
      this.#knownRefusal(error, [...FULL, 'CATALOGUE_FULL']);
    }
  }

  async #snapshot(at: number): Promise<void> {
    const state = this.#state;
    if (state.snapshots.size >= SNAPSHOTS_MAX) return;
    const { horizon } = this.#volume.core;
    const span = state.model.head - horizon.generation + 1;
    const generation = horizon.generation + Math.floor((at / 10_000) * span);
    const label = `s${state.labels++}`;
    state.snapshots.set(label, generation);
    state.unsure.add(label);
    try {
      await this.#volume.createSnapshot(label, `gen=${generation}`);
    } catch (error) {
      if (!this.#life.alive) return;
      // A record that was put and whose sync failed may stand all the same.
      if (this.#volume.core.failure === undefined) state.unsure.delete(label);
      state.snapshots.delete(label);
      this.#deletions += 1;
      if (isVarveError(error, 'VOLUME_FAILED')) {
        state.snapshots.set(label, generation);
        state.unsure.add(label);
      }
      this.#knownRefusal(error, [...FULL, 'MOMENT_OUTSIDE', 'CATALOGUE_FULL']);
      return;
    }
    if (!this.#life.alive) return;
    state.unsure.delete(label);
    state.promise(generation);
  }

  async #deleteSnapshot(): Promise<void> {
    const state = this.#state;
    const label = [...state.snapshots.keys()].find((one) => !state.unsure.has(one));
    if (label === undefined) return;
    state.unsure.add(label);
    try {
      await this.#volume.deleteSnapshot(label);
    } catch (error) {
      if (!this.#life.alive) return;
      this.#knownRefusal(error, []);
      return;
    }
    if (!this.#life.alive) return;
    this.#deletions += 1;
    state.unsure.delete(label);
    state.snapshots.delete(label);
  }

  #knownRefusal(error: unknown, codes: readonly ErrorCode[]): void {
    if (!this.#life.alive) return;
    if (!isVarveError(error)) throw error;
    if (this.#mayHaveFailed(error.code)) return;
    const { logFailures, finalFailures, wasRefused } = this.#state.oracle;
    if (isUnreadable(error) && (wasRefused || logFailures + finalFailures > 0)) return;
    if (error.code === 'DISK_FULL' && finalFailures > 0) return;
    law(6, codes.includes(error.code), `an operator is refused for a reason: ${error.message}`);
  }

  async #openMoment(at: number): Promise<void> {
    const state = this.#state;
    if (this.#moments.length >= MOMENTS_MAX) return;
    const { horizon } = this.#volume.core;
    const span = state.model.head - horizon.generation + 1;
    const generation = horizon.generation + Math.floor((at / 10_000) * span);
    try {
      const device = this.#volume.openMoment(await this.#volume.resolve(`gen=${generation}`));
      this.#moments.push({ generation, device });
    } catch (error) {
      if (!isVarveError(error, 'MOMENT_OUTSIDE')) throw error;
      const { generation: now } = this.#volume.core.horizon;
      law(3, now > generation, 'a moment of the window opens');
    }
  }

  async #readMoment(at: number): Promise<void> {
    const moment = this.#moments[at % Math.max(1, this.#moments.length)];
    if (moment === undefined) return;
    const { offset, length } = this.#state.place(at, 9000);
    await this.#room();
    this.#spawn(this.#readOpen(moment, offset, length));
  }

  async #readOpen(moment: OpenMoment, offset: number, length: number): Promise<void> {
    const state = this.#state;
    const { device, generation } = moment;
    try {
      await readRange(state, momentView(device, generation, 3), offset, length);
      state.count('moment reads');
    } catch (error) {
      if (isVarveError(error, 'CLOSED') && !this.#moments.includes(moment)) return;
      if (!isVarveError(error, 'MOMENT_GONE')) throw error;
      law(3, mayGo(state, this.#volume, generation), 'a moment goes only for writers');
    }
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
