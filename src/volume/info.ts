/** What a volume tells of itself: numbers gathered from its parts. Changes nothing. */
import type { VarveError } from '../base/errors.ts';
import { BLOCK_BYTES, byteCount, micros, type Generation, type Micros } from '../base/units.ts';
import type { Core } from './core.ts';
import type { Moments } from './moments.ts';
import type {
  HistoryInterval,
  PointInTime,
  ReceiveInfo,
  RetentionInfo,
  VolumeCounters,
  VolumeInfo,
} from './report.ts';

/** What the core does not know. */
export interface BesideCore {
  readonly roundFailure: VarveError | undefined;
  readonly rollbackFailure: VarveError | undefined;
  readonly liveSessions: number;
  readonly receive: ReceiveInfo;
  readonly retention: RetentionInfo;
}

export async function describe(
  core: Core,
  moments: Moments,
  { roundFailure, rollbackFailure, liveSessions, receive, retention }: BesideCore,
): Promise<VolumeInfo> {
  const { log } = core;
  const { geometry, segments, ring, writer, stream } = log;
  const at = (generation: Generation): PointInTime => ({
    generation,
    wallUs: core.timeline.wallAt(generation),
  });
  return {
    uuid: core.uuid,
    size: core.size,
    base: core.final.baseText,
    writeMode: core.writeMode,
    readOnly: core.readOnly || core.failure !== undefined,
    failure: core.failure?.message ?? roundFailure?.message,
    logFault: writer.lastFault,
    lineage: core.lineage,
    head: at(core.head),
    durable: at(writer.durable.generation),
    horizon: core.oldestMoment,
    settled: at(core.settled),
    uncommittedBytes: byteCount(stream.nextLsn - writer.durable.lsn),
    ring: { usedBytes: byteCount(ring.head - ring.tail), sizeBytes: ring.size },
    log: {
      usedBytes: byteCount(segments.live.length * geometry.segmentBytes),
      sizeBytes: byteCount(geometry.slotCount * geometry.segmentBytes),
    },
    final: {
      usedBytes: await core.final.allocated(),
      sizeBytes: byteCount(core.blocks * BLOCK_BYTES),
    },
    undo: {
      usedBytes: await core.undo.allocated(),
      sizeBytes: core.undo.size,
    },
    versions: core.index.versions,
    indexBytes: core.index.bytes,
    snapshots: moments.snapshots(),
    retention,
    marks: moments.marks(),
    rollbacks: moments.rollbacks(rollbackFailure?.message),
    liveSessions,
    openMoments: openMoments(core),
    counters: countersOf(core),
    receive,
    recovery: core.recovery,
  };
}

/** No generation inside a rollback is a moment to go to. */
function momentAt(core: Core, generation: Generation): Generation {
  // A round has just passed it.
  if (generation < core.horizon.generation) return core.oldestMoment.generation;
  const around = core.catalogue.rollbackAround(generation);
  if (around === undefined) return generation;
  return around.before >= core.horizon.generation ? around.before : around.bound;
}

function openMoments({ pins }: Core): number {
  let count = 0;
  for (const { reasons } of pins.list()) {
    count += reasons.filter(({ kind }) => kind === 'open').length;
  }
  return count;
}

function countersOf(core: Core): VolumeCounters {
  const { reads, readBytes, writes, writeBytes, trims, zeroes, flushes } = core.counters;
  const { rounds, settledBlocks, readErrors, readRescues, repairs } = core.counters;
  return {
    reads,
    readBytes,
    writes,
    writeBytes,
    trims,
    zeroes,
    flushes,
    logBytes: core.log.writer.bytesWritten,
    logSyncs: core.log.writer.syncs,
    logFaults: core.log.writer.faults,
    rounds,
    settledBlocks,
    readErrors,
    readRescues,
    repairs,
  };
}

export interface HistoryQuery {
  readonly intervals: number;
  /** Default: the window's ends. */
  readonly fromWallUs?: Micros | undefined;
  readonly toWallUs?: Micros | undefined;
}

export function historyOf(
  core: Core,
  moments: Moments,
  query: HistoryQuery,
): readonly HistoryInterval[] {
  core.log.stream.seal();
  const { wallUs: first } = core.horizon;
  const fromWallUs = micros(Math.max(first, query.fromWallUs ?? first));
  const head = core.timeline.wallAt(core.head);
  const toWallUs = query.toWallUs ?? micros(Math.max(head + 1, fromWallUs + 1));
  // All of it lies before the window.
  if (toWallUs < fromWallUs) return [];
  const intervals = core.timeline.intervals({ fromWallUs, toWallUs, count: query.intervals });
  const rollbacks = moments.rollbacks();
  return intervals.map((interval) => ({
    ...interval,
    generation: momentAt(core, interval.generation),
    rollbacks: rollbacks.filter(
      ({ wallUs }) => wallUs >= interval.fromWallUs && wallUs < interval.toWallUs,
    ),
  }));
}
