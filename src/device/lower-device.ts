/**
 * The port to what lies below: a file or raw block device that holds log, final storage or
 * checksums. Real ones are in this folder; the one that forgets unsynced writes is in test/sim.
 */
import type { ByteCount, ByteOffset } from '../base/units.ts';

/**
 * Why a sync is made. Each name is one sync of the data path; the simulated device can leave one
 * out, and the checks of power cuts then fail: that is the proof that it is needed.
 */
export type SyncPoint =
  | 'create-log' // the formatted log, before the volume is said to exist
  | 'create-final'
  | 'create-sums'
  | 'recovery' // what replay accepted, before the first reply
  | 'commit' // batches of the stream
  | 'reslot' // those that a failed write or sync left in doubt, in other slots
  | 'checkpoint' // the catalogue, before the superblock names it
  | 'horizon' // before the first overwrite of a round
  | 'undo' // before-images, before the horizon passes what they tell of
  | 'final' // blocks of a round, before settled moves
  | 'sums' // their checksums, before settled moves
  | 'settled' // before segments are recycled
  | 'export' // an image or a stream that is being written, before a note says how far, and at its end
  | 'repair' // what a scrub wrote again; the next one finds what a cut takes
  | 'close';

/** All without which a power cut may break a law. */
export const SYNC_POINTS: readonly SyncPoint[] = [
  'create-log',
  'create-final',
  'create-sums',
  'recovery',
  'commit',
  'reslot',
  'checkpoint',
  'horizon',
  'undo',
  'final',
  'sums',
  'settled',
  'close',
];

export interface LowerDevice {
  /** For messages: a path, or a name in a simulation. */
  readonly name: string;
  readonly size: ByteCount;
  /** Fills `target` whole, or fails with DEVICE_IO; `target` is borrowed until it settles. */
  read(offset: ByteOffset, target: Uint8Array): Promise<void>;
  /**
   * Writes `sources` one after the other from `offset` on, whole, or fails (DISK_FULL, DEVICE_IO);
   * they are borrowed until it settles. Durable only after a `sync` that began later.
   */
  write(offset: ByteOffset, sources: readonly Uint8Array[]): Promise<void>;
  /** Afterwards the range reads as zeros; gives the space back where the platform can. */
  punch(offset: ByteOffset, length: ByteCount): Promise<void>;
  /** Makes all writes and punches durable that had settled before. Never call it again to retry. */
  sync(point: SyncPoint): Promise<void>;
  /** Bytes that it really takes below, holes left out; `size` where that is not known. */
  allocated(): Promise<ByteCount>;
  /** Ends all use; idempotent; syncs nothing. */
  close(): Promise<void>;
}

export interface OpenDeviceOptions {
  /** What it must hold, in bytes; with `create` what it shall hold. A block device may be larger. */
  readonly size?: ByteCount;
  /** Of one that `grows`, and was there before: so much of it has to be there. */
  readonly sizeMin?: ByteCount;
  /** Makes a sparse file, durable in its directory; FILE_EXISTS if there is one. */
  readonly create?: boolean;
  /** Nothing is written by us: any write is a bug. */
  readonly readOnly?: boolean;
  /** With `create`: the file is as long as what is written to it, and `size` is all it may hold. */
  readonly grows?: boolean;
  /**
   * Locks the file until it is closed, against every other locked opening, or with `readOnly`
   * against those that write: FILE_IN_USE. A block device is kept from others in any case.
   */
  readonly locked?: boolean;
  /** Refuses a block device that is mounted or opened in this way by others. On if not given. */
  readonly exclusiveBlockDevice?: boolean;
}

/** How a device is had by its path: `FileDevice.open`, or that of a simulation. */
export type OpenDevice = (path: string, options?: OpenDeviceOptions) => Promise<LowerDevice>;
