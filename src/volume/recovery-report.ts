/** What an opening found, for people and for scripts. */
import type { OpenedLog } from '../../log/log.ts';
import type { Recovery } from './recover.ts';
import type { RecoveryReport } from './report.ts';

/** @param tookMs - how long the opening has taken so far */
export function reportOf(opened: OpenedLog, recovery: Recovery, tookMs: number): RecoveryReport {
  const { replayed, superblock, unkept } = opened;
  const { cut } = replayed;
  return {
    clean: superblock.clean && superblock.durableLsn === replayed.endLsn,
    segments: replayed.segments.length,
    batches: replayed.batches,
    requests: recovery.requests,
    verifiedBatches: replayed.verified,
    cut:
      cut === undefined
        ? undefined
        : { lsn: cut.lsn, generation: recovery.generation, flushMarks: cut.flushMarks, unkept },
    tookMs,
  };
}
