/** How long work of one client leaves room for that of others. */
import { assert } from '../base/assert.ts';
import type { Socket } from './socket.ts';

/**
 * Lets others run: what is in memory needs no wait, and long work of one client would be one step.
 */
export async function letOthersRun(socket: Socket): Promise<void> {
  await new Promise<void>((resume) => {
    socket.defer(resume);
  });
}

/** A few at a time: the others wait in order of arrival, holding nothing. */
export class Turns {
  readonly #most: number;
  #taken = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(most: number) {
    assert(most > 0, 'somebody has a turn');
    this.#most = most;
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#taken < this.#most) this.#taken += 1;
    else {
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
      });
    }
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#taken -= 1;
      else next();
    }
  }
}
