/**
 * The power of one simulated machine, shared by its disks: all of them lose it at one instant.
 *
 * A machine has lives. A life ends by a power cut (caches are lost) or by a kill of the process
 * (caches stay). What the ended life started goes on running as promises, so it is cut off:
 * its timers never fire, its handles change nothing and either hang or reject.
 *
 * Invariants:
 *   - Operations are counted over all disks, so that a cut can be planned at the N-th, inside a
 *     round or inside recovery.
 *   - A part hears of each loss exactly once.
 */
import { assert } from '../../src/base/assert.ts';
import type { Clock, Random, Timers, World } from '../../src/base/world.ts';
import type { SeededRandom } from './random.ts';
import type { SimWorld } from './sim-world.ts';

/** `cut`: unsynced writes are lost in part. `kill`: the process is gone, the page cache stays. */
export type Loss = 'cut' | 'kill';

export interface PoweredPart {
  /** The life has just ended. */
  lose(loss: Loss): void;
}

export interface LossPlan {
  readonly loss: Loss;
  /** At the n-th device operation from now on (1: the next one), which is then in flight. */
  readonly afterOperations?: number;
  /** At this virtual time from now on. */
  readonly afterUs?: number;
}

export interface PowerSupplyOptions {
  readonly name?: string;
  /** What operations of an ended life do: never settle (default), or reject with DEVICE_IO. */
  readonly afterLoss?: 'hang' | 'reject';
}

export type LifeEnd<T> =
  { readonly kind: 'done'; readonly value: T } | { readonly kind: 'lost'; readonly loss: Loss };

/** One life of the machine, as a world: its timers end with it. */
export class Life implements World {
  readonly clock: Clock;
  readonly random: Random;
  readonly timers: Timers;
  #alive = true;

  constructor(world: SimWorld) {
    this.clock = world.clock;
    this.random = world.random;
    this.timers = {
      after: (delayMs, call) => {
        if (!this.#alive) return () => undefined;
        return world.timer(delayMs, () => {
          if (this.#alive) call();
        });
      },
    };
  }

  get alive(): boolean {
    return this.#alive;
  }

  end(): void {
    this.#alive = false;
  }
}

export class PowerSupply {
  readonly world: SimWorld;
  readonly afterLoss: 'hang' | 'reject';
  readonly #random: SeededRandom;
  readonly #parts = new Set<PoweredPart>();
  #life: Life;
  #lost: Promise<Loss> = Promise.resolve('cut');
  #tellLost: (loss: Loss) => void = () => undefined;
  #operations = 0;
  #plannedAt: number | undefined;
  #plannedLoss: Loss = 'cut';
  #cancelPlan: () => void = () => undefined;

  constructor(world: SimWorld, options: PowerSupplyOptions = {}) {
    this.world = world;
    this.afterLoss = options.afterLoss ?? 'hang';
    this.#random = world.fork(`power ${options.name ?? ''}`);
    this.#life = this.#begin();
  }

  get alive(): boolean {
    return this.#life.alive;
  }

  /** The current life; give it to the program under test as its world. */
  get life(): Life {
    return this.#life;
  }

  /** Resolves when the current life ends. */
  get lost(): Promise<Loss> {
    return this.#lost;
  }

  /** Device operations of all lives. */
  get operations(): number {
    return this.#operations;
  }

  /** Registers a disk; done by the disk. */
  add(part: PoweredPart): void {
    this.#parts.add(part);
  }

  /** Counts an operation that is already in flight; done by the disk. May end the life. */
  count(): void {
    this.#operations += 1;
    if (this.#plannedAt !== this.#operations) return;
    const loss = this.#plannedLoss;
    this.cancelPlan();
    // At once, or while the operation is on its way.
    if (this.#random.chance(0.5)) this.#end(loss);
    else this.#endLater(this.#random.below(100), loss);
  }

  /** Plans the end of the current life; a new plan replaces the one before. */
  plan({ loss, afterOperations, afterUs }: LossPlan): void {
    assert(this.alive, 'a plan needs a life to end');
    this.cancelPlan();
    if (afterOperations !== undefined) {
      assert(afterOperations >= 1, 'a plan lies in the future');
      this.#plannedAt = this.#operations + afterOperations;
      this.#plannedLoss = loss;
    }
    if (afterUs !== undefined) this.#endLater(afterUs, loss);
  }

  cancelPlan(): void {
    this.#plannedAt = undefined;
    this.#cancelPlan();
    this.#cancelPlan = () => undefined;
  }

  cut(): void {
    this.#end('cut');
  }

  kill(): void {
    this.#end('kill');
  }

  /** Begins the next life; handles are opened anew with `disk.reopen()`. */
  restore(): Life {
    assert(!this.alive, 'power comes back after it went');
    this.#life = this.#begin();
    return this.#life;
  }

  /**
   * Runs the world until `work` ends or the life does. The promise of a lost `work` is left
   * alone: its rejection, if any, is swallowed, as nobody is left to hear it.
   */
  async runLife<T>(work: (life: Life) => Promise<T>): Promise<LifeEnd<T>> {
    const life = this.#life;
    return this.world.run(async () => {
      const lost = this.#lost.then((loss): LifeEnd<T> => ({ kind: 'lost', loss }));
      const done = work(life).then(
        (value): LifeEnd<T> | Promise<LifeEnd<T>> => (life.alive ? { kind: 'done', value } : lost),
        (error: unknown): Promise<LifeEnd<T>> => {
          if (life.alive) throw error;
          return lost;
        },
      );
      return Promise.race([done, lost]);
    });
  }

  #begin(): Life {
    this.#lost = new Promise((resolve) => {
      this.#tellLost = resolve;
    });
    return new Life(this.world);
  }

  #endLater(delayUs: number, loss: Loss): void {
    const life = this.#life;
    this.#cancelPlan = this.world.schedule(delayUs, () => {
      if (life.alive) this.#end(loss);
    });
  }

  #end(loss: Loss): void {
    if (!this.alive) return;
    this.cancelPlan();
    this.#life.end();
    for (const part of this.#parts) part.lose(loss);
    this.#tellLost(loss);
  }
}
