/** Clock, timers and random of the machine. */
import { randomBytes } from 'node:crypto';
import { micros } from '../base/units.ts';
import type { World } from '../base/world.ts';

/** Node takes a longer delay for 1 ms. */
const DELAY_MS_MAX = 2 ** 31 - 1;

/** Unreferenced: a timer alone does not keep the process. */
function after(delayMs: number, call: () => void): () => void {
  let timer: NodeJS.Timeout;
  const arm = (leftMs: number): void => {
    const stepMs = Math.min(Math.max(0, leftMs), DELAY_MS_MAX);
    timer = setTimeout(() => {
      if (leftMs > stepMs) arm(leftMs - stepMs);
      else call();
    }, stepMs);
    timer.unref();
  };
  arm(delayMs);
  return () => {
    clearTimeout(timer);
  };
}

export const realWorld: World = {
  clock: {
    // Not performance.timeOrigin: that one does not follow when the wall clock is set.
    wallUs: () => micros(Date.now() * 1000),
    monotonicUs: () => micros(Math.floor(performance.now() * 1000)),
  },
  timers: { after },
  random: { bytes: (count) => randomBytes(count) },
};
