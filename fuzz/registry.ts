/**
 * Every fuzzer of the house. A fuzzer that stands in no list is never run, so
 * test/fuzz/registry.test.ts compares this one with the files of fuzz/.
 */
import { fuzzer as formatChecksums } from './format/checksums.fuzz.ts';
import { fuzzer as controlTexts } from './control/texts.fuzz.ts';
import { fuzzer as formatLayouts } from './format/layouts.fuzz.ts';
import { fuzzer as formatSendStreams } from './format/send-streams.fuzz.ts';
import { fuzzer as formatStructures } from './format/structures.fuzz.ts';
import { fuzzer as imageQcow2 } from './image/qcow2.fuzz.ts';
import { fuzzer as indexBlocks } from './index/blocks.fuzz.ts';
import { fuzzer as indexPins } from './index/pins.fuzz.ts';
import { fuzzer as indexTimeline } from './index/timeline.fuzz.ts';
import { fuzzer as logBytes } from './log/bytes.fuzz.ts';
import { fuzzer as nbdClientBytes } from './nbd/client-bytes.fuzz.ts';
import { fuzzer as nbdCodecs } from './nbd/codecs.fuzz.ts';
import { fuzzer as nbdRequests } from './nbd/requests.fuzz.ts';
import { fuzzer as nbdSessions } from './nbd/sessions.fuzz.ts';
import { fuzzer as nbdSim } from './nbd/sim.fuzz.ts';
import { fuzzer as volumeLives, hardFuzzer as volumeHardLives } from './life/lives.fuzz.ts';
import type { Fuzzer } from './options.ts';
import { fuzzer as volumeAstrayReads } from './volume/astray-reads.fuzz.ts';
import { fuzzer as volumeBadPlaces } from './volume/bad-places.fuzz.ts';
import { fuzzer as volumeBasedLives } from './volume/based-lives.fuzz.ts';
import { fuzzer as volumeBlankSums } from './volume/blank-sums.fuzz.ts';
import { fuzzer as volumeCloneLives } from './volume/clone-lives.fuzz.ts';
import { fuzzer as volumeClosedLogs } from './volume/closed-logs.fuzz.ts';
import { fuzzer as volumeDamage } from './volume/damage.fuzz.ts';
import { fuzzer as volumeFlattenLives } from './volume/flatten-lives.fuzz.ts';
import { fuzzer as volumeFlattenStaleSums } from './volume/flatten-stale-sums.fuzz.ts';
import { fuzzer as volumeForgottenJoins } from './volume/forgotten-joins.fuzz.ts';
import { fuzzer as volumeForgottenSyncs } from './volume/forgotten-syncs.fuzz.ts';
import { fuzzer as volumeForks } from './volume/forks.fuzz.ts';
import { fuzzer as volumeFreedImages } from './volume/freed-images.fuzz.ts';
import { fuzzer as volumeHoursAgain } from './volume/hours-again.fuzz.ts';
import { fuzzer as volumeOvertakenReads } from './volume/overtaken-reads.fuzz.ts';
import { fuzzer as volumePast } from './volume/past.fuzz.ts';
import { fuzzer as volumePendingRecords } from './volume/pending-records.fuzz.ts';
import { fuzzer as volumePinnedLives } from './volume/pinned-lives.fuzz.ts';
import { fuzzer as volumePowerCuts } from './volume/power-cuts.fuzz.ts';
import { fuzzer as volumeReaders } from './volume/readers.fuzz.ts';
import { fuzzer as volumeRefusedSums } from './volume/refused-sums.fuzz.ts';
import { fuzzer as volumeRetention } from './volume/retention.fuzz.ts';
import { fuzzer as volumeRetentionCuts } from './volume/retention-cuts.fuzz.ts';
import { fuzzer as volumeRollback } from './volume/rollback.fuzz.ts';
import { fuzzer as volumeRollbackStaleSums } from './volume/rollback-stale-sums.fuzz.ts';
import { fuzzer as volumeRottenHeaders } from './volume/rotten-headers.fuzz.ts';
import { fuzzer as volumeRottenLog } from './volume/rotten-log.fuzz.ts';
import { fuzzer as volumeRottenPayloads } from './volume/rotten-payloads.fuzz.ts';
import { fuzzer as volumeReceive } from './volume/receive.fuzz.ts';
import { fuzzer as volumeRoundCuts } from './volume/round-cuts.fuzz.ts';
import { fuzzer as volumeShortLives } from './volume/short-lives.fuzz.ts';
import { fuzzer as volumeStaleSums } from './volume/stale-sums.fuzz.ts';
import { fuzzer as volumeSparseRemains } from './volume/sparse-remains.fuzz.ts';
import { fuzzer as volumeTornRequests } from './volume/torn-requests.fuzz.ts';
import { fuzzer as volumeTrouble } from './volume/trouble.fuzz.ts';
import { fuzzer as volumeWrittenMode } from './volume/written-mode.fuzz.ts';

export const FUZZERS: readonly Fuzzer[] = [
  formatChecksums,
  controlTexts,
  formatLayouts,
  formatSendStreams,
  formatStructures,
  imageQcow2,
  indexBlocks,
  indexPins,
  indexTimeline,
  logBytes,
  nbdClientBytes,
  nbdCodecs,
  nbdRequests,
  nbdSessions,
  nbdSim,
  volumeAstrayReads,
  volumeBadPlaces,
  volumeBasedLives,
  volumeBlankSums,
  volumeCloneLives,
  volumeClosedLogs,
  volumeDamage,
  volumeLives,
  volumeHardLives,
  volumeFlattenLives,
  volumeFlattenStaleSums,
  volumeForgottenJoins,
  volumeForgottenSyncs,
  volumeForks,
  volumeFreedImages,
  volumeHoursAgain,
  volumeOvertakenReads,
  volumePast,
  volumePendingRecords,
  volumePinnedLives,
  volumePowerCuts,
  volumeReaders,
  volumeRefusedSums,
  volumeRetention,
  volumeRetentionCuts,
  volumeRollback,
  volumeRollbackStaleSums,
  volumeRottenHeaders,
  volumeRottenLog,
  volumeRottenPayloads,
  volumeReceive,
  volumeRoundCuts,
  volumeShortLives,
  volumeStaleSums,
  volumeSparseRemains,
  volumeTornRequests,
  volumeTrouble,
  volumeWrittenMode,
];
