/**
 * What an operator can do, whoever asks: the command line by itself, or through a running server.
 * There are two operators: `LocalOperator`, which has the volumes, and `RemoteOperator`, which
 * asks a server's local one.
 */
import type { ByteCount, Generation, Micros } from '../base/units.ts';
import type { BlockDevice, OpenExport } from '../device/block-device.ts';
import type { RequestPage } from '../device/request-record.ts';
import type {
  CheckReport,
  HistoryInterval,
  MarkInfo,
  Progress,
  RetentionReport,
  RollbackReport,
  ReceiveReport,
  ScrubReport,
  SnapshotInfo,
  Vacated,
  VolumeInfo,
  WriteMode,
} from '../volume/report.ts';
import type { RetentionChange } from '../volume/retention-policy.ts';
import type { Past } from './past.ts';
import type { Access, CreateOptions } from './volume-directory.ts';

/** What is known of a volume without opening it; only `name` and `failure` where its record is bad. */
export interface VolumeSummary {
  readonly name: string;
  readonly uuid: string;
  readonly size: ByteCount;
  readonly logSize: ByteCount;
  readonly ringSize: ByteCount;
  readonly writeMode: WriteMode;
  readonly createdAt: string;
  /** Absolute paths. */
  readonly log: string;
  readonly final: string;
  /** What it is based on, for people; undefined: nothing. */
  readonly base: string | undefined;
  /** Why it can't be used, for people; undefined: the server serves it, or nothing is known to be wrong. */
  readonly failure: string | undefined;
}

export interface HistoryRange {
  readonly intervals: number;
  /** Default: the window's ends. */
  readonly fromWallUs?: Micros | undefined;
  readonly toWallUs?: Micros | undefined;
}

export interface ScrubRequest {
  /** Bytes read a second; 0: no limit. */
  readonly bytesPerSecond: ByteCount;
}

/** A writable volume that begins as another one was at a moment. */
export interface CloneAsked {
  /** `VOLUME@MOMENT`, or `VOLUME` for now. */
  readonly of: string;
  readonly logSize?: ByteCount | undefined;
}

/** What became of a clone's origin. */
export interface FlattenReport {
  readonly copiedBytes: ByteCount;
  /** What is not needed any more, for people. */
  readonly base: string;
}

export interface RollbackAsked {
  /** A moment, as people write them behind an @. */
  readonly to: string;
  /** Sessions of clients that have the live disk open are ended. */
  readonly force: boolean;
  /** Only says what would be done. */
  readonly dryRun: boolean;
}

/** Requests of a volume: those after a generation, up to another. */
export interface RequestsAsked {
  readonly after: Generation;
  readonly to: Generation;
}

/** Moments, as people write them behind an @. */
export interface HistoryEnds {
  readonly from: string;
  readonly to: string;
}

/** A part of a volume's history whose ends are pinned while it is open. */
export interface PinnedHistory {
  readonly size: ByteCount;
  readonly from: Generation;
  readonly to: Generation;
  /** The first requests after this one, in order; ask again after the last of them. */
  requests(after: Generation): Promise<RequestPage>;
  /** The disk as it was right after a request, read-only; the caller closes it. */
  open(generation: Generation): Promise<BlockDevice>;
}

export interface Operator {
  /** Whether a server answers. */
  readonly isServed: boolean;
  list(): Promise<readonly VolumeSummary[]>;
  create(name: string, options: CreateOptions, progress: Progress): Promise<VolumeSummary>;
  /**
   * Makes a volume at once that shares everything with its origin.
   * @throws VarveError VOLUME_EXISTS, BASE_DEEP, MOMENT_* and what making a volume throws
   */
  clone(name: string, asked: CloneAsked, progress: Progress): Promise<VolumeSummary>;
  /**
   * Makes a volume independent of what it is based on. It can be asked for again after any failure.
   * @throws VarveError BASE_NONE, SCRUB_RUNS, DISK_FULL; BLOCK_CORRUPT where the base can't be read
   */
  flatten(name: string, progress: Progress): Promise<FlattenReport>;
  info(name: string): Promise<VolumeInfo>;
  history(name: string, range: HistoryRange): Promise<readonly HistoryInterval[]>;
  snapshots(name: string): Promise<readonly SnapshotInfo[]>;
  createSnapshot(name: string, label: string, moment?: string): Promise<SnapshotInfo>;
  deleteSnapshot(name: string, label: string): Promise<void>;
  mark(name: string, label: string): Promise<MarkInfo>;
  setWriteMode(name: string, mode: WriteMode): Promise<VolumeSummary>;
  /**
   * What is kept of moments that leave the window, from now on; what is not, goes at once.
   * @throws VarveError RETENTION_BAD
   */
  setRetention(name: string, change: RetentionChange): Promise<RetentionReport>;
  /**
   * Verifies the whole volume and repairs what another copy still has, served or not.
   * @throws VarveError SCRUB_RUNS; what `progress` throws ends it
   */
  scrub(name: string, options: ScrubRequest, progress: Progress): Promise<ScrubReport>;
  /**
   * The disk becomes again what it was at a moment, in place. What has begun goes on to its end,
   * whatever `progress` throws.
   * @throws VarveError MOMENT_*, CLIENTS_CONNECTED, ROLLBACK_*; BLOCK_CORRUPT
   */
  rollback(name: string, asked: RollbackAsked, progress: Progress): Promise<RollbackReport>;
  /**
   * For whoever is going to write over a whole disk: from here on no client has it open, until the
   * next one comes.
   * @param force - sessions of clients are ended
   * @throws VarveError CLIENTS_CONNECTED, ROLLBACK_RUNS, ROLLBACK_UNFINISHED
   */
  vacate(name: string, force: boolean): Promise<Vacated>;
  /** @throws VarveError SERVER_RUNS */
  check(name: string, progress: Progress): Promise<CheckReport>;
  /**
   * The canonical name of an export: `disk`, or `disk@gen=N`, which stays the same from now on.
   * @throws VarveError VOLUME_UNKNOWN, MOMENT_*
   */
  resolve(exportName: string): Promise<string>;
  /**
   * Runs `work` with an export open, live or a moment; it is closed whatever happens.
   * @param name - `VOLUME` or `VOLUME@MOMENT`
   */
  withExport<T>(name: string, access: Access, work: (open: OpenExport) => Promise<T>): Promise<T>;
  /**
   * What was asked of the volume, a page at a time, from the log.
   * @throws VarveError MOMENT_OUTSIDE, VOLUME_CORRUPT
   */
  requests(name: string, asked: RequestsAsked): Promise<RequestPage>;
  /**
   * Runs `work` with a part of the history; its ends are pinned, as by open exports, meanwhile.
   * @throws VarveError MOMENT_*; HISTORY_EMPTY when the ends are not in order
   */
  withHistory<T>(
    name: string,
    ends: HistoryEnds,
    work: (history: PinnedHistory) => Promise<T>,
  ): Promise<T>;
  /**
   * Runs `work` with the past of a volume, which is open meanwhile.
   * @throws VarveError VOLUME_UNKNOWN and whatever opening throws
   */
  withPast<T>(name: string, work: (past: Past) => Promise<T>): Promise<T>;
  /**
   * Applies a stream of `withSending`, all of it or nothing that anybody sees.
   * @throws VarveError STREAM_*, RECEIVE_UNFINISHED, UNDO_FULL and others; what `chunks` and
   *   `progress` throw
   */
  receive(
    name: string,
    chunks: AsyncIterable<Uint8Array>,
    progress: Progress,
  ): Promise<ReceiveReport>;
  /** Puts back what an unfinished receive has changed. @throws VarveError RECEIVE_NONE */
  abortReceive(name: string, progress: Progress): Promise<void>;
  /** Ends the operator; idempotent. Volumes of a server stay open. */
  close(): Promise<void>;
}
