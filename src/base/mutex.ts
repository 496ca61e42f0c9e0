/** A lock in arrival order: one holder at a time, nobody overtakes. */
export class Mutex {
  #tail: Promise<void> = Promise.resolve();

  /** Runs `work` alone; its result or error is passed on, and the next holder runs either way. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    const before = this.#tail;
    let release: () => void = () => undefined;
    this.#tail = new Promise((resolve) => {
      release = resolve;
    });
    await before;
    try {
      return await work();
    } finally {
      release();
    }
  }
}
