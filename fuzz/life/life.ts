/**
 * A run: one volume, many lives, each ended by a power cut, a kill or a close, with faults of disks
 * and clock on the way. After each end the volume is opened again and everything is compared.
 */
import { isVarveError, type VarveError } from '../../src/base/errors.ts';
import type { Volume } from '../../src/volume/volume.ts';
import type { Life } from '../../test/sim/power-supply.ts';
import { checkAll, settleSnapshots } from './checks.ts';
import { law } from './law.ts';
import { Session } from './session.ts';
import { never, RunState } from './state.ts';
import type { Script, Step } from './steps.ts';

/** Steps after VOLUME_FAILED until the operator restarts the server. */
const STEPS_FAILED = 6;
const MOMENTS = 5;
/** Of each run. */
const CRASHES_MIN = 10;
const REFUSALS = [
  'VOLUME_CORRUPT',
  'VOLUME_FOREIGN',
  'DEVICE_IO',
  'DISK_FULL',
  'BLOCK_CORRUPT',
] as const;

export interface LifeOptions {
  /** Told of each step before it runs. */
  readonly trace?: (at: number, step: Step, state: RunState) => void;
}

export type LifeCounts = Readonly<Record<string, number>>;

/** The volume is refused for good, because a fault came between its image and its sums. */
class GivenUp extends Error {
  constructor(cause: VarveError) {
    super(cause.message, { cause });
    this.name = 'GivenUp';
  }
}

class LifeRun {
  readonly state: RunState;
  readonly #steps: readonly Step[];
  readonly #trace: LifeOptions['trace'];
  #at = 0;

  constructor(script: Script, { trace }: LifeOptions) {
    this.state = new RunState(script);
    this.#steps = script.steps;
    this.#trace = trace;
  }

  async run(): Promise<LifeCounts> {
    const { state } = this;
    const { power, world, faults } = state;
    await world.run(() => state.sim.format(power.life));
    try {
      await this.#liveOn();
    } catch (error) {
      if (!(error instanceof GivenUp)) throw error;
      state.count('given up, with a reason');
    }
    state.count('steps', this.#at);
    for (const [fault, times] of Object.entries(faults.counts)) {
      state.count(`fault ${fault}`, times);
    }
    return { ...state.counts, digest: world.digest };
  }

  async #liveOn(): Promise<void> {
    const { state } = this;
    const { power, world, faults } = state;
    while (this.#at < this.#steps.length) {
      await power.runLife((life) => this.#live(life));
      this.#end();
    }
    // Where one crash came before another that was planned.
    while ((state.counts['crashes'] ?? 0) < CRASHES_MIN) {
      await power.runLife((life) => this.#crashOnce(life));
      this.#end();
    }
    faults.heal();
    await world.run(async () => {
      const volume = await this.#open(power.life);
      await checkAll(state, volume, MOMENTS);
      await volume.close();
    });
    state.count('lives');
  }

  async #crashOnce(life: Life): Promise<void> {
    const { state } = this;
    const volume = await this.#open(life);
    await checkAll(state, volume, MOMENTS);
    const session = new Session(state, life, volume);
    await session.step({ do: 'burst', at: state.random.below(10_000), count: 8 });
    await session.step({ do: 'crash', loss: 'cut', operations: 0 });
  }

  #end(): void {
    const { power, requests, faults } = this.state;
    requests.clear();
    faults.volume = undefined;
    if (power.alive) power.cut();
    this.state.count('crashes');
    power.restore();
  }

  async #live(life: Life): Promise<void> {
    while (this.#at < this.#steps.length) {
      const volume = await this.#open(life);
      await checkAll(this.state, volume, MOMENTS);
      await this.#use(volume, life);
    }
  }

  async #use(volume: Volume, life: Life): Promise<void> {
    const { state } = this;
    const session = new Session(state, life, volume);
    let failedSteps = 0;
    while (this.#at < this.#steps.length) {
      const step = this.#steps[this.#at++];
      if (step === undefined) return;
      this.#trace?.(this.#at - 1, step, state);
      if (!(await session.step(step))) return;
      if (!life.alive) await never();
      session.afterStep();
      if (session.isFailed) failedSteps += 1;
      if (failedSteps > STEPS_FAILED) {
        state.faults.endTroubles();
        state.power.kill();
        await never();
      }
    }
  }

  /** Opens; a refusal must have a reason, and ends when the reason is mended. */
  async #open(life: Life): Promise<Volume> {
    const { state } = this;
    state.faults.volume = undefined;
    let wasClosed = state.closed;
    // An opening that is refused or cut may have got as far as saying that the volume is open.
    state.closed = false;
    let volume: Volume;
    try {
      volume = await state.sim.open(life);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      const { mayRefuse, logFailures, undoFailures, isHomeTouched } = state.oracle;
      const isNeeded = isVarveError(error, 'DEVICE_IO') && state.oracle.mayNeedUnread(wasClosed);
      const excused = mayRefuse || logFailures + undoFailures > 0 || isHomeTouched || isNeeded;
      law(5, excused, () => `a sound volume opens: ${error.message}`);
      state.count(`refused opening ${error.code}`);
      wasClosed = false;
      state.faults.heal();
      volume = await this.#openMended(life);
    }
    state.faults.volume = volume;
    state.faults.opened(volume);
    this.#recovered(volume, wasClosed);
    return volume;
  }

  async #openMended(life: Life): Promise<Volume> {
    try {
      return await this.state.sim.open(life);
    } catch (error) {
      const { mayRefuse, isHomeTouched } = this.state.oracle;
      // What healing could not tell apart from what was written since stays as it is.
      const known = mayRefuse || (isHomeTouched && isVarveError(error, 'VOLUME_FOREIGN'));
      throw known && isRefusal(error) ? new GivenUp(error) : error;
    }
  }

  /** What was recovered becomes the truth, after it was compared with what may be. */
  #recovered(volume: Volume, wasClosed: boolean): void {
    const { state } = this;
    const { model, oracle } = state;
    const { head, recovery } = volume.core;
    const least = oracle.isLogTouched ? Math.min(oracle.proven, state.durable) : state.durable;
    law(
      1,
      head >= least && head <= model.head,
      () => `recovered generation ${head} lies in [${least}, ${model.head}]`,
    );
    if (wasClosed && !oracle.isLogTouched && !oracle.isCopyUnread)
      law(1, recovery.clean, 'what was closed opens clean');
    if (recovery.cut !== undefined) state.count('tails cut');
    const isExact = head >= state.durable && !oracle.isLogTouched;
    if (head < state.durable) state.count('doubt cut');
    model.cut(head);
    settleSnapshots(state, volume, isExact);
    state.durable = head;
    oracle.opened(volume);
    state.count('openings');
  }
}

function isRefusal(error: unknown): error is VarveError {
  return REFUSALS.some((code) => isVarveError(error, code));
}

export async function runLife(script: Script, options: LifeOptions = {}): Promise<LifeCounts> {
  return await new LifeRun(script, options).run();
}
