/** Hours, days and weeks of UTC. A moment on the boundary belongs to what ends there. */
import { micros, type Micros } from './units.ts';

export const HOUR_US = 3_600_000_000;
export const DAY_US = 24 * HOUR_US;
export const WEEK_US = 7 * DAY_US;
/** The first Monday after the clock began. */
const MONDAY_US = 4 * DAY_US;

/** Number of the hour, day or week that a time lies in; hours lie whole in days, days in weeks. */
export function periodOf(wallUs: Micros, periodUs: number): number {
  return Math.ceil((wallUs - startUs(periodUs)) / periodUs);
}

/** When it ends. */
export function endOfPeriod(number: number, periodUs: number): Micros {
  // The last one that a number holds ends there.
  return micros(Math.min(startUs(periodUs) + number * periodUs, Number.MAX_SAFE_INTEGER));
}

function startUs(periodUs: number): number {
  return periodUs === WEEK_US ? MONDAY_US : 0;
}
