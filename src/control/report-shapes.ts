/** Shapes of what a server answers: what a volume tells of itself, as it comes out of JSON. */
import {
  block,
  blockCount,
  byteCount,
  byteOffset,
  generation,
  lsn,
  micros,
  type BlockCount,
  type ByteCount,
  type Generation,
  type Lsn,
  type Micros,
} from '../base/units.ts';
import type { RequestPage } from '../device/request-record.ts';
import {
  DAMAGE_PLACES,
  WRITE_MODES,
  type CheckReport,
  type Damage,
  type HistoryInterval,
  type MarkInfo,
  type RollbackInfo,
  type RollbackReport,
  type ReceiveInfo,
  type ReceiveReport,
  type ScrubReport,
  type SnapshotInfo,
  type Vacated,
  type VolumeInfo,
} from '../volume/report.ts';
import type { FlattenReport, VolumeSummary } from './operations.ts';
import { RULES } from '../volume/retention-policy.ts';
import { retentionInfoShape } from './retention-shapes.ts';
import { amount, fields, flag, list, oneOf, optional, text, unit, type Shape } from './shape.ts';

const bytes: Shape<ByteCount> = unit(byteCount);
const count: Shape<number> = unit(Number);
const generationShape: Shape<Generation> = unit(generation);
const microsShape: Shape<Micros> = unit(micros);
const lsnShape: Shape<Lsn> = unit(lsn);
const blocks: Shape<BlockCount> = unit(blockCount);
const point = fields({ generation: generationShape, wallUs: microsShape });
const fill = fields({ usedBytes: bytes, sizeBytes: bytes });

export const summaryShape: Shape<VolumeSummary> = fields({
  name: text,
  uuid: text,
  size: bytes,
  logSize: bytes,
  ringSize: bytes,
  writeMode: oneOf(WRITE_MODES),
  createdAt: text,
  log: text,
  final: text,
  base: optional(text),
  failure: optional(text),
});

export const flattenShape: Shape<FlattenReport> = fields({ copiedBytes: bytes, base: text });
export const snapshotShape: Shape<SnapshotInfo> = fields({
  label: text,
  generation: generationShape,
  lineage: text,
  momentWallUs: microsShape,
  createdWallUs: microsShape,
  isAutomatic: flag,
  keptFor: list(oneOf(RULES)),
  exclusiveBytes: bytes,
  sharedBytes: bytes,
});

export const markShape: Shape<MarkInfo> = fields({
  label: text,
  generation: generationShape,
  wallUs: microsShape,
});

export const vacatedShape: Shape<Vacated> = fields({
  before: generationShape,
  sessionsEnded: count,
});

const rollbackInfoShape: Shape<RollbackInfo> = fields({
  target: generationShape,
  before: generationShape,
  after: optional(generationShape),
  wallUs: microsShape,
  failure: optional(text),
});

export const rollbackShape: Shape<RollbackReport> = fields({
  target: point,
  before: point,
  after: point,
  undo: optional(text),
  dataBytes: bytes,
  zeroBytes: bytes,
  logBytes: bytes,
  freeBytes: bytes,
  sessionsEnded: count,
  tookMs: amount,
});

export const historyShape: Shape<HistoryInterval> = fields({
  fromWallUs: microsShape,
  toWallUs: microsShape,
  generation: generationShape,
  writes: count,
  bytes: count,
  trims: count,
  trimmedBytes: count,
  flushes: count,
  rollbacks: list(rollbackInfoShape),
});

export const requestsShape: Shape<RequestPage> = fields({
  requests: list(
    fields({
      generation: generationShape,
      wallUs: microsShape,
      fua: flag,
      parts: list(fields({ start: unit(block), count: blocks, crcs: optional(list(count)) })),
    }),
  ),
  flushes: list(generationShape),
  isEnd: flag,
});

const countersShape = fields({
  reads: count,
  readBytes: count,
  writes: count,
  writeBytes: count,
  trims: count,
  zeroes: count,
  flushes: count,
  logBytes: count,
  logSyncs: count,
  logFaults: count,
  rounds: count,
  settledBlocks: count,
  readErrors: count,
  readRescues: count,
  repairs: count,
});

const recoveryShape = fields({
  clean: flag,
  segments: count,
  batches: count,
  requests: count,
  verifiedBatches: count,
  cut: optional(
    fields({
      lsn: lsnShape,
      generation: generationShape,
      flushMarks: count,
      unkept: optional(text),
    }),
  ),
  tookMs: amount,
});

const receiveInfoShape: Shape<ReceiveInfo> = fields({
  received: optional(
    fields({
      volume: text,
      lineage: text,
      generation: generationShape,
      wallUs: microsShape,
      here: generationShape,
      isUnchanged: flag,
    }),
  ),
  unfinished: optional(
    fields({
      volume: text,
      lineage: text,
      generation: generationShape,
      records: count,
      isAborted: flag,
      token: text,
    }),
  ),
});

export const receiveReportShape: Shape<ReceiveReport> = fields({
  volume: text,
  lineage: text,
  generation: generationShape,
  wallUs: microsShape,
  base: generationShape,
  here: generationShape,
  snapshot: text,
});

export const infoShape: Shape<VolumeInfo> = fields({
  uuid: text,
  size: bytes,
  base: optional(text),
  writeMode: oneOf(WRITE_MODES),
  readOnly: flag,
  failure: optional(text),
  logFault: optional(text),
  lineage: text,
  head: point,
  durable: point,
  horizon: point,
  settled: point,
  uncommittedBytes: bytes,
  ring: fill,
  log: fill,
  final: fill,
  undo: fill,
  versions: count,
  indexBytes: bytes,
  snapshots: list(snapshotShape),
  retention: retentionInfoShape,
  marks: list(markShape),
  rollbacks: list(rollbackInfoShape),
  liveSessions: count,
  openMoments: count,
  counters: countersShape,
  receive: receiveInfoShape,
  recovery: recoveryShape,
});

export const seenByShape = fields({
  live: flag,
  from: count,
  to: count,
  snapshots: list(text),
  snapshotsMore: count,
});

const damageShape: Shape<Damage> = fields({
  place: oneOf(DAMAGE_PLACES),
  what: text,
  outcome: oneOf(['repaired', 'left'] as const),
  repairedFrom: optional(text),
  block: optional(unit(block)),
  offset: optional(unit(byteOffset)),
  generation: optional(generationShape),
  wallUs: optional(microsShape),
  seenBy: optional(seenByShape),
});

export const scrubShape: Shape<ScrubReport> = fields({
  ok: flag,
  repaired: count,
  left: count,
  damages: list(damageShape),
  checked: list(text),
  bytesRead: bytes,
  tookMs: amount,
});

export const checkShape: Shape<CheckReport> = fields({
  ok: flag,
  batches: count,
  versions: count,
  logBytes: bytes,
  finalBlocks: blocks,
  sumsSectors: count,
  problems: list(text),
  checked: list(text),
});
