/** Shapes of what a policy of retention is and does, in volume.json and in answers of a server. */
import { byteCount, micros } from '../base/units.ts';
import type { RetentionInfo, RetentionReport } from '../volume/report.ts';
import {
  changedPolicy,
  EVERY_WRITE_US_MAX,
  NO_RETENTION,
  RULE_COUNT_MAX,
  type RetentionPolicy,
} from '../volume/retention-policy.ts';
import { fields, flag, list, optional, ShapeError, text, unit, type Shape } from './shape.ts';

const bytes = unit(byteCount);
const count = unit(Number);
const microsShape = unit(micros);

/** At most so much. */
function upTo<T extends number>(most: number, shape: Shape<T>): Shape<T> {
  return (value, place) => {
    const found = shape(value, place);
    if (found <= most) return found;
    throw new ShapeError(place, `a whole number from 0 to ${most}`);
  };
}

const rule = optional(upTo(RULE_COUNT_MAX, count));
const recordFields = fields({
  everyWriteUs: optional(upTo(EVERY_WRITE_US_MAX, microsShape)),
  hourly: rule,
  daily: rule,
  weekly: rule,
  maxBytes: optional(bytes),
});

export const retentionPolicyShape: Shape<RetentionPolicy> = fields({
  everyWriteUs: microsShape,
  hourly: count,
  daily: count,
  weekly: count,
  maxBytes: bytes,
});

/** In volume.json, which people may write: what is missing there is not asked for. */
export const retentionRecordShape: Shape<RetentionPolicy> = (value, place) => {
  const asked = optional(recordFields)(value, place);
  return changedPolicy(NO_RETENTION, asked ?? {});
};

export const retentionReportShape: Shape<RetentionReport> = fields({
  policy: retentionPolicyShape,
  deleted: list(text),
  freedBytes: bytes,
});

export const retentionInfoShape: Shape<RetentionInfo> = fields({
  policy: retentionPolicyShape,
  windowUs: microsShape,
  isEveryWriteKept: flag,
  forecast: fields({
    bytesPerSecond: count,
    overUs: microsShape,
    windowUs: optional(fields({ min: microsShape, max: microsShape })),
    logBytesNeeded: bytes,
  }),
  automatic: count,
  automaticMax: count,
  heldBytes: bytes,
  namedBytes: bytes,
  droppedEarly: count,
});
