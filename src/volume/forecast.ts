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
  const [low, high] = everyWriteUs > 0 ? [HIGH_WATER, CRITICAL_WATER] : [LOW_WATER, HIGH_WATER];
  const needed = (bytesPerSecond * everyWriteUs) / 1e6 / low;
  const lasts = (share: number): Micros => {
    const us = (sizeBytes * share * 1e6) / bytesPerSecond;
    return micros(Math.min(Math.floor(us), Number.MAX_SAFE_INTEGER));
  };
  return {
    bytesPerSecond: Math.round(bytesPerSecond),
    overUs,
    windowUs: bytesPerSecond < 1 ? undefined : { min: lasts(low), max: lasts(high) },
    logBytesNeeded: byteCount(Math.min(Math.ceil(needed), Number.MAX_SAFE_INTEGER)),
  };
}

/** Of the stream, which holds headers too, over what clients wrote. */
function headersShare({ log, timeline }: Core): number {
  const payload = timeline.writtenSince(micros(0)).payloadBytes;
  const stream = log.stream.nextLsn - log.superblock.tailLsn;
  return payload === 0 ? 1 : Math.max(1, stream / payload);
}
