/** What a volume tells of itself: plain values, ready for JSON. Times are microseconds since 1970. */
import type { Uuid } from '../base/identity.ts';
import type {
  Block,
  BlockCount,
  ByteCount,
  ByteOffset,
  Generation,
  Lsn,
  Micros,
} from '../base/units.ts';
import type { RetentionPolicy, Rule } from './retention-policy.ts';

/** `back`: acknowledged from RAM; `written`: after write(2); `through`: after the sync. */
export type WriteMode = 'back' | 'written' | 'through';
export const WRITE_MODES: readonly WriteMode[] = ['back', 'written', 'through'];

export interface PointInTime {
  readonly generation: Generation;
  readonly wallUs: Micros;
}

export interface SnapshotInfo {
  readonly label: string;
  readonly generation: Generation;
  readonly lineage: Uuid;
  /** When the state was that of the snapshot. */
  readonly momentWallUs: Micros;
  /** When the snapshot was made, which may be much later. */
  readonly createdWallUs: Micros;
  /** Made by retention, which deletes it when no rule needs it, or when space is short. */
  readonly isAutomatic: boolean;
  /** The rules that keep it; none: it goes with the next round. */
  readonly keptFor: readonly Rule[];
  /** What only this snapshot holds: deleting it gives back so much, exactly. */
  readonly exclusiveBytes: ByteCount;
  /** What it holds together with others. */
  readonly sharedBytes: ByteCount;
}

/** How long the log keeps every write, as far as the present rate tells. */
export interface Forecast {
  /** Written to the log, mean of so long a time up to now. */
  readonly bytesPerSecond: number;
  readonly overUs: Micros;
  /** The window right after a round, and right before one; undefined: nothing is being written. */
  readonly windowUs: { readonly min: Micros; readonly max: Micros } | undefined;
  /** A log that keeps every write as long as it was asked for, with that rate. */
  readonly logBytesNeeded: ByteCount;
}

export interface RetentionInfo {
  readonly policy: RetentionPolicy;
  /** How long ago the oldest moment was that opens without a snapshot. */
  readonly windowUs: Micros;
  /** Every write is there for as long as was asked for, or no write was let go yet. */
  readonly isEveryWriteKept: boolean;
  readonly forecast: Forecast;
  /** Automatic snapshots, */
  readonly automatic: number;
  /** and for how many the catalogue has room: where the rules keep more, the newest of them stay. */
  readonly automaticMax: number;
  /** Held for all snapshots and open moments; counted against `maxBytes`; */
  readonly heldBytes: ByteCount;
  /** and what would be held without the automatic ones. */
  readonly namedBytes: ByteCount;
  /** Automatic snapshots that went since the opening because space was short. */
  readonly droppedEarly: number;
}

/** What a change of the policy did at once. */
export interface RetentionReport {
  readonly policy: RetentionPolicy;
  /** Automatic snapshots that no rule needs any more, or that were over the limit. */
  readonly deleted: readonly string[];
  /** What that gave back. */
  readonly freedBytes: ByteCount;
}

export interface MarkInfo {
  readonly label: string;
  readonly generation: Generation;
  readonly wallUs: Micros;
}

export interface RollbackReport {
  /** The moment that came back; */
  readonly target: PointInTime;
  /** what the disk was before; */
  readonly before: PointInTime;
  /** and the newest moment now. The same as `before`: nothing differed, or nothing was to be done. */
  readonly after: PointInTime;
  /** A mark of what the disk was before: rolling back to it undoes this. Undefined: nothing to undo. */
  readonly undo: string | undefined;
  /** What was written again, in whole blocks; */
  readonly dataBytes: ByteCount;
  /** and what became zeros again. */
  readonly zeroBytes: ByteCount;
  /** At most so much of the log was needed; */
  readonly logBytes: ByteCount;
  /** so much of it is free while the moment is read. */
  readonly freeBytes: ByteCount;
  /** Sessions of clients that were ended. */
  readonly sessionsEnded: number;
  readonly tookMs: number;
}

/** A disk that nobody has open any more. */
export interface Vacated {
  /** The newest moment: what it was before. */
  readonly before: Generation;
  /** Sessions of clients that were ended. */
  readonly sessionsEnded: number;
}

/** A rollback of the window, as the history shows it. */
export interface RollbackInfo {
  /** The moment that came back. */
  readonly target: Generation;
  /** The newest moment before it. Between it and `after` no moment opens. */
  readonly before: Generation;
  /** The first moment after it; undefined: it has not ended. */
  readonly after: Generation | undefined;
  /** When it ended, or began. */
  readonly wallUs: Micros;
  /** Why it got no further. */
  readonly failure: string | undefined;
}

export interface Fill {
  readonly usedBytes: ByteCount;
  readonly sizeBytes: ByteCount;
}

export interface VolumeCounters {
  readonly reads: number;
  readonly readBytes: number;
  readonly writes: number;
  readonly writeBytes: number;
  readonly trims: number;
  readonly zeroes: number;
  readonly flushes: number;
  readonly logBytes: number;
  readonly logSyncs: number;
  /** Writes and syncs of the log that failed; what they were for was written again elsewhere. */
  readonly logFaults: number;
  readonly rounds: number;
  readonly settledBlocks: number;
  /** Blocks of which a read met a damaged copy; */
  readonly readErrors: number;
  /** of those, answered from another copy. */
  readonly readRescues: number;
  /** Damaged copies that a scrub wrote again. */
  readonly repairs: number;
}

/** What was received last, and what is unfinished. */
export interface ReceiveInfo {
  readonly received:
    | {
        /** The sending volume, and its moment. */
        readonly volume: Uuid;
        readonly lineage: Uuid;
        readonly generation: Generation;
        readonly wallUs: Micros;
        /** The same moment here. */
        readonly here: Generation;
        /** Nothing was written since, so what comes next may build on it. */
        readonly isUnchanged: boolean;
      }
    | undefined;
  readonly unfinished:
    | {
        readonly volume: Uuid;
        readonly lineage: Uuid;
        readonly generation: Generation;
        /** Records of the stream that count. */
        readonly records: number;
        /** It is being given up. */
        readonly isAborted: boolean;
        /** For `varve send --resume`. */
        readonly token: string;
      }
    | undefined;
}

/** What a receive brought. */
export interface ReceiveReport {
  /** The sending volume, and its moment. */
  readonly volume: Uuid;
  readonly lineage: Uuid;
  readonly generation: Generation;
  readonly wallUs: Micros;
  /** The moments here before and after. */
  readonly base: Generation;
  readonly here: Generation;
  /** Label of the one after. */
  readonly snapshot: string;
}

export interface VolumeInfo {
  readonly uuid: Uuid;
  readonly size: ByteCount;
  /** What it is based on; undefined: nothing. */
  readonly base: string | undefined;
  readonly writeMode: WriteMode;
  readonly readOnly: boolean;
  /** Why the volume refuses writes, or undefined. */
  readonly failure: string | undefined;
  /** The last failure of the log device since the opening, which the volume survived. */
  readonly logFault: string | undefined;
  readonly lineage: Uuid;
  readonly head: PointInTime;
  readonly durable: PointInTime;
  readonly horizon: PointInTime;
  readonly settled: PointInTime;
  /** Accepted and not yet safe from a crash. */
  readonly uncommittedBytes: ByteCount;
  readonly ring: Fill;
  readonly log: Fill;
  /** Blocks that hold data in final storage, in bytes; undefined while not counted. */
  readonly final: Fill;
  /** What snapshots keep of what was replaced. */
  readonly undo: Fill;
  readonly versions: number;
  readonly indexBytes: ByteCount;
  readonly snapshots: readonly SnapshotInfo[];
  readonly retention: RetentionInfo;
  readonly marks: readonly MarkInfo[];
  /** Oldest first; one that has not ended comes last. */
  readonly rollbacks: readonly RollbackInfo[];
  /** Clients that have the live disk open. */
  readonly liveSessions: number;
  /** Moments open now without a snapshot. */
  readonly openMoments: number;
  readonly counters: VolumeCounters;
  readonly receive: ReceiveInfo;
  /** What recovery found at the last opening. */
  readonly recovery: RecoveryReport;
}

export interface RecoveryReport {
  readonly clean: boolean;
  readonly segments: number;
  readonly batches: number;
  readonly requests: number;
  readonly verifiedBatches: number;
  /** A torn tail that was cut: where, and what lay behind it. */
  readonly cut: CutReport | undefined;
  readonly tookMs: number;
}

export interface CutReport {
  readonly lsn: Lsn;
  readonly generation: Generation;
  /** Of flushes that were never answered: the bytes behind the cut are kept in the volume's folder. */
  readonly flushMarks: number;
  /** Why they are not, or not all of them. */
  readonly unkept: string | undefined;
}

export interface HistoryInterval {
  readonly fromWallUs: Micros;
  readonly toWallUs: Micros;
  /** Newest generation at the end of the interval: `disk@gen=N` opens it. */
  readonly generation: Generation;
  readonly writes: number;
  readonly bytes: number;
  /** Requests that made whole blocks zeros: trims and zeroes. */
  readonly trims: number;
  readonly trimmedBytes: number;
  readonly flushes: number;
  /** Those that ended in the interval, whose own writes are counted in it. */
  readonly rollbacks: readonly RollbackInfo[];
}

export interface CheckReport {
  readonly ok: boolean;
  readonly batches: number;
  readonly versions: number;
  readonly logBytes: number;
  readonly finalBlocks: BlockCount;
  readonly sumsSectors: number;
  /** One line for each thing found wrong, with block, generation and place. */
  readonly problems: readonly string[];
  /** One line for each thing that was checked, with counts. */
  readonly checked: readonly string[];
}

/** What a scrub looks at. */
export const DAMAGE_PLACES = [
  'superblock',
  'checkpoint',
  'segment header',
  'batch header',
  'payload',
  'record',
  'summary',
  'final storage',
  'checksums',
  'before-image',
] as const;

export type DamagePlace = (typeof DAMAGE_PLACES)[number];

/** Whose reads meet a damaged version: the moments [from, to], and the live disk. */
export interface SeenBy {
  readonly live: boolean;
  readonly from: number;
  readonly to: number;
  /** Labels of some snapshots in between, and how many more there are. */
  readonly snapshots: readonly string[];
  readonly snapshotsMore: number;
}

export interface Damage {
  readonly place: DamagePlace;
  /** Where exactly, got and expected. */
  readonly what: string;
  readonly outcome: 'repaired' | 'left';
  /** Of what was repaired: where the good copy came from. */
  readonly repairedFrom: string | undefined;
  readonly block: Block | undefined;
  /** Of the block on the disk. */
  readonly offset: ByteOffset | undefined;
  readonly generation: Generation | undefined;
  /** When that generation was the newest; undefined: before the window, or not known. */
  readonly wallUs: Micros | undefined;
  readonly seenBy: SeenBy | undefined;
}

export interface ScrubReport {
  /** Nothing that was found is left damaged. */
  readonly ok: boolean;
  readonly repaired: number;
  readonly left: number;
  /** The first ones, those that are left damaged before others. */
  readonly damages: readonly Damage[];
  /** One line for each thing that was verified, with counts. */
  readonly checked: readonly string[];
  readonly bytesRead: ByteCount;
  readonly tookMs: number;
}

/** Progress of something slow; `total` may grow. */
export type Progress = (done: number, total: number) => void;
