/** Shapes of what a policy of retention is and does, in volume.json and in answers of a server. */
import { byteCount, micros } from '../base/units.ts';
import type { RetentionInfo, RetentionReport } from '../volume/report.ts';
import type { RetentionPolicy } from '../volume/retention-policy.ts';
import { fields, flag, list, optional, text, unit, type Shape } from './shape.ts';

const bytes = unit(byteCount);
const count = unit(Number);
const microsShape = unit(micros);

export const retentionPolicyShape: Shape<RetentionPolicy> = fields({
  everyWriteUs: microsShape,
  hourly: count,
  daily: count,
  weekly: count,
  maxBytes: bytes,
});

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
  heldBytes: bytes,
  namedBytes: bytes,
  droppedEarly: count,
});
