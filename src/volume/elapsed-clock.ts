/** The time that the volume has been there, by no wall clock that people set. */
import { micros, type Micros } from '../base/units.ts';
import type { World } from '../base/world.ts';
import type { Recovery } from './recover.ts';

/** Elapsed time goes on over restarts by the wall clock, and never back. */
export class ElapsedClock {
  readonly #world: World;
  readonly #base: number;

  constructor(world: World, recovery: Recovery) {
    this.#world = world;
    const away = Math.max(0, world.clock.wallUs() - recovery.lastWallUs);
    this.#base = recovery.lastElapsedUs + away - world.clock.monotonicUs();
  }

  elapsedUs(): Micros {
    return micros(Math.max(0, Math.floor(this.#base + this.#world.clock.monotonicUs())));
  }

  wallUs(): Micros {
    return this.#world.clock.wallUs();
  }
}
