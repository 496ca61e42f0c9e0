/** A lock in arrival order: one holder at a time, nobody overtakes. */
export class Mutex {
  #tail: Promise<void> = Promise.resolve();
  #holders = 0;

  /** Whether somebody holds it or waits for it. */
  get busy(): boolean {
    return this.#holders > 0;
  }

  /** Runs `work` alone; its result or error is passed on, and the next holder runs either way. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    this.#holders += 1;
    const before = this.#tail;
    let release: () => void = () => undefined;
    this.#tail = new Promise((resolve) => {
      release = resolve;
    });
    await before;
    try {
      return await work();
    } finally {
      this.#holders -= 1;
      release();
    }
  }
}
