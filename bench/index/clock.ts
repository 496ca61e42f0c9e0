/** Measuring: nanoseconds a call, and bytes of the heap after a collection. */
export interface Measured {
  readonly name: string;
  readonly nsPerCall: number;
}

/** @param work - makes `calls` calls; its result keeps them from being optimised away */
export function measure(name: string, calls: number, work: () => number): Measured {
  const began = performance.now();
  const result = work();
  const nsPerCall = ((performance.now() - began) * 1e6) / calls;
  if (Number.isNaN(result)) throw new Error('a measured result is a number');
  return { name, nsPerCall };
}

/** What stands on the heap and in typed arrays; run Node with --expose-gc for a settled figure. */
export function bytesInUse(): number {
  const collect: unknown = Reflect.get(globalThis, 'gc');
  // The memory behind typed arrays goes with the collection after the one that finds them dead.
  for (let turn = 0; turn < 3; turn++) if (typeof collect === 'function') collect();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

/** The same numbers on every run: xorshift, 32 bits, never 0. */
export class Shuffle {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 1;
  }

  below(bound: number): number {
    let state = this.#state;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    this.#state = state;
    return Math.floor(((state >>> 0) / 2 ** 32) * bound);
  }
}
