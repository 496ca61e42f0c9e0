/** How long the log keeps every write: from what was written lately. Changes nothing. */
import { HOUR_US } from '../base/periods.ts';
import { byteCount, micros, type Micros } from '../base/units.ts';
import type { Core } from './core.ts';
import type { Forecast } from './report.ts';
import { CRITICAL_WATER, HIGH_WATER, LOW_WATER } from './water.ts';

/** What was written in this time tells the rate. */
const LOOK_BACK_US = HOUR_US;
/** A rate that a shorter time tells is noise. */
const OVER_US_MIN = 1e6;

/** @param nowUs - elapsed time of the volume */
export function forecast(core: Core, nowUs: Micros): Forecast {
  const { timeline, log } = core;
  const back = micros(Math.max(0, nowUs - LOOK_BACK_US));
  const lately = timeline.writtenSince(back);
  const overUs = micros(Math.max(nowUs - lately.elapsedUs, OVER_US_MIN));
  const bytesPerSecond = (lately.payloadBytes * headersShare(core) * 1e6) / overUs;
  const sizeBytes = log.geometry.slotCount * log.geometry.segmentBytes;
  const { everyWriteUs } = core.retention;
  const lasts = (share: number): Micros => {
    const us = (sizeBytes * share * 1e6) / bytesPerSecond;
    return micros(Math.min(Math.floor(us), Number.MAX_SAFE_INTEGER));
  };
  const isWriting = bytesPerSecond >= 1;
  // A log in which that fits before rounds have to pass it.
  const needed = (bytesPerSecond * everyWriteUs) / 1e6 / HIGH_WATER;
  return {
    bytesPerSecond: Math.round(bytesPerSecond),
    overUs,
    windowUs: isWriting ? windowOf(everyWriteUs, lasts) : undefined,
    logBytesNeeded: byteCount(Math.min(Math.ceil(needed), Number.MAX_SAFE_INTEGER)),
  };
}

/** Right after a round, and right before one. @param lasts - for how long so much of the log does */
function windowOf(
  everyWriteUs: Micros,
  lasts: (share: number) => Micros,
): { readonly min: Micros; readonly max: Micros } {
  const [low, high] = [lasts(LOW_WATER), lasts(HIGH_WATER)];
  // What is younger stays until the log is critical, and then down to the high mark.
  if (everyWriteUs > high) return { min: high, max: lasts(CRITICAL_WATER) };
  return { min: micros(Math.max(low, everyWriteUs)), max: high };
}

/** Of the stream, which holds headers too, over what clients wrote. */
function headersShare({ log, timeline }: Core): number {
  const payload = timeline.writtenSince(micros(0)).payloadBytes;
  const stream = log.stream.nextLsn - log.superblock.tailLsn;
  return payload === 0 ? 1 : Math.max(1, stream / payload);
}
