/** So many bytes a second: work that nobody waits for leaves the devices to those who do. */
import type { World } from '../base/world.ts';

/** What may be spent at once after a pause. */
const BURST_US = 50_000;
/** Waits are cut into parts of this, between which it is asked whether to go on. */
const WAIT_MS_MAX = 100;
/** Others have a turn after so much: a timer is a millisecond at least, too long for each 4 KiB. */
const TURN_BYTES = 2 ** 20;

export class Pace {
  readonly #world: World;
  readonly #bytesPerSecond: number;
  /** When all that was spent is paid for. */
  #paidUs: number;
  /** Spent since others had a turn. */
  #turnBytes = 0;

  /** @param bytesPerSecond - 0: no limit */
  constructor(world: World, bytesPerSecond: number) {
    this.#world = world;
    this.#bytesPerSecond = bytesPerSecond;
    this.#paidUs = world.clock.monotonicUs();
  }

  /**
   * Settles when so many bytes more are due; others have a turn after each mebibyte in any case.
   * @param goOn - throws when there is no reason to wait any longer
   * @param isHurried - somebody waits for us: what is due stays so, for the next time
   */
  async spend(bytes: number, goOn: () => void, isHurried = (): boolean => false): Promise<void> {
    if (this.#bytesPerSecond > 0) {
      const nowUs = this.#world.clock.monotonicUs();
      this.#paidUs = Math.max(this.#paidUs, nowUs - BURST_US);
      this.#paidUs += (bytes / this.#bytesPerSecond) * 1e6;
    }
    this.#turnBytes += bytes;
    if (this.#turnBytes < TURN_BYTES && this.#paidUs <= this.#world.clock.monotonicUs()) {
      goOn();
      return;
    }
    this.#turnBytes = 0;
    do {
      goOn();
      const aheadMs = (this.#paidUs - this.#world.clock.monotonicUs()) / 1000;
      await this.wait(Math.max(0, Math.min(WAIT_MS_MAX, aheadMs)));
    } while (this.#paidUs > this.#world.clock.monotonicUs() && !isHurried());
    goOn();
  }

  async wait(delayMs: number): Promise<void> {
    await new Promise<void>((resume) => {
      this.#world.timers.after(delayMs, resume);
    });
  }
}
