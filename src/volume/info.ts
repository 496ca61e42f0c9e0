/** What a volume tells of itself: numbers gathered from its parts. Changes nothing. */
import type { VarveError } from '../base/errors.ts';
import { BLOCK_BYTES, byteCount, micros, type Generation, type Micros } from '../base/units.ts';
import type { Core } from './core.ts';
import type { Moments } from './moments.ts';
import type {
  HistoryInterval,
  PointInTime,
  ReceiveInfo,
  VolumeCounters,
  VolumeInfo,
} from './report.ts';

export async function describe(
  core: Core,
  moments: Moments,
  { roundFailure, receive }: { roundFailure: VarveError | undefined; receive: ReceiveInfo },
): Promise<VolumeInfo> {
  const { log, catalogue } = core;
  const { geometry, segments, ring, writer, stream } = log;
  const at = (generation: Generation): PointInTime => ({
    generation,
    wallUs: core.timeline.wallAt(generation),
  });
  return {
    uuid: core.uuid,
    size: core.size,
    writeMode: core.writeMode,
    readOnly: core.readOnly || core.failure !== undefined,
    failure: core.failure?.message ?? roundFailure?.message,
    logFault: writer.lastFault,
    lineage: catalogue.lineageOf(core.head, core.horizon.lineage),
    head: at(core.head),
    durable: at(writer.durable.generation),
    horizon: { generation: core.horizon.generation, wallUs: core.horizon.wallUs },
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
    marks: moments.marks(),
    openMoments: core.pins.count - catalogue.snapshots.size,
    counters: countersOf(core),
    receive,
    recovery: core.recovery,
  };
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

export function historyOf(core: Core, query: HistoryQuery): readonly HistoryInterval[] {
  core.log.stream.seal();
  const { wallUs: first } = core.horizon;
  const fromWallUs = micros(Math.max(first, query.fromWallUs ?? first));
  const head = core.timeline.wallAt(core.head);
  const toWallUs = query.toWallUs ?? micros(Math.max(head + 1, fromWallUs + 1));
  // All of it lies before the window.
  if (toWallUs < fromWallUs) return [];
  return core.timeline.intervals({ fromWallUs, toWallUs, count: query.intervals });
}
