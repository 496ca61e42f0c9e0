/**
 * The log of one volume: ring, stream, writer and segments over one device, with its superblock.
 *
 * Invariants:
 *   - The superblock is written by `publish` alone, one at a time, and each states what is durable.
 *   - Where a position lies (ring or slot) is known here and nowhere else.
 */
import { assert } from '../src/base/assert.ts';
import type { Uuid } from '../src/base/identity.ts';
import { Mutex } from '../src/base/mutex.ts';
import {
  BLOCK_BYTES,
  byteOffset,
  checksum,
  generation,
  lsn,
  segmentSequence,
  type ByteCount,
  type Checksum,
  type Generation,
  type Lsn,
  type SegmentSequence,
} from '../src/base/units.ts';
import { isVarveError, VarveError, type ErrorCode } from '../src/base/errors.ts';
import type { Timers } from '../src/base/world.ts';
import type { LowerDevice, SyncPoint } from '../src/device/lower-device.ts';
import { SUPERBLOCK_BLOCKS } from '../src/format/layouts.ts';
import { readCheckpoint, writeCheckpoint, type Checkpoint } from './checkpoint.ts';
import type { LogGeometry } from './geometry.ts';
import { erase, writeAgain } from './erase.ts';
import { Replay, type Replayed, type ReplayHandler } from './replay.ts';
import type { Move } from './reslot.ts';
import { Ring } from './ring.ts';
import { SegmentTable, type Segment } from './segments.ts';
import { LogStream, type SealedBatch, type Times } from './stream.ts';
import { readSuperblock, writeSuperblock, type Superblock } from './superblock.ts';
import { LogWriter } from './writer.ts';

/** What replay found, before the log goes on from there. */
export interface OpenedLog {
  readonly device: LowerDevice;
  readonly superblock: Superblock;
  readonly checkpoint: Checkpoint;
  readonly replayed: Replayed;
  /** Why bytes of the cut, which were to be kept aside, are not. */
  readonly unkept?: string | undefined;
}

/** For these reasons bytes of a cut may be gone. */
const UNKEPT: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['DISK_FULL', 'PERMISSION', 'DEVICE_IO']);

/** Keeps bytes under a name, durably, beside the volume. */
export type KeepAside = (name: string, bytes: Uint8Array) => Promise<void>;

export type CheckpointContent = Pick<Checkpoint, 'streamLsn' | 'entries'>;

export interface LogOptions {
  readonly ringBytes: ByteCount;
  readonly timers: Timers;
  readonly now: () => Times;
  /** The newest request that is whole, and its lineage, after replay. */
  readonly generation: Generation;
  readonly lineage: Uuid;
  /** Random, of this opening. */
  readonly opening: number;
  readonly onSegment: (segment: Segment) => void;
  readonly onSeal: (sealed: SealedBatch) => void;
  readonly onDurable: () => void;
  /** The stream from `from` on lies in other segments now. */
  readonly onReslot: (from: Lsn, moves: readonly Move[]) => void;
  readonly onFail: (error: VarveError) => void;
}

type Patch = Partial<
  Pick<
    Superblock,
    | 'clean'
    | 'horizon'
    | 'undoSlots'
    | 'settled'
    | 'tailSequence'
    | 'tailLsn'
    | 'tailChain'
    | 'checkpointArea'
    | 'checkpointSequence'
  >
>;

export class Log {
  readonly geometry: LogGeometry;
  readonly device: LowerDevice;
  readonly ring: Ring;
  readonly segments: SegmentTable;
  readonly stream: LogStream;
  readonly writer: LogWriter;
  readonly #publishing = new Mutex();
  #superblock: Superblock;
  #tail: SegmentSequence;

  private constructor(opened: OpenedLog, options: LogOptions) {
    const { superblock, replayed, device } = opened;
    this.#tail = superblock.tailSequence;
    this.geometry = superblock.geometry;
    this.device = device;
    this.#superblock = superblock;
    for (const segment of replayed.segments) {
      // A request that was never finished does not count as begun: its number is given out again.
      if (segment.lastGeneration > options.generation) segment.lastGeneration = options.generation;
    }
    const { segments, nextSequence, endLsn } = replayed;
    this.segments = new SegmentTable(superblock.geometry, segments, nextSequence);
    this.ring = new Ring(options.ringBytes, endLsn);
    const durable = { generation: options.generation, lsn: endLsn };
    this.writer = new LogWriter({
      volume: superblock.volume,
      device,
      ring: this.ring,
      segments: this.segments,
      timers: options.timers,
      durable,
      chain: chainAtEnd(replayed),
      onDurable: options.onDurable,
      onReslot: options.onReslot,
      onFail: options.onFail,
      state: () => this.publish({}, 'settled'),
    });
    this.stream = new LogStream({
      volume: superblock.volume,
      ring: this.ring,
      segments: this.segments,
      generation: options.generation,
      lineage: options.lineage,
      chain: replayed.chain,
      opening: options.opening,
      now: options.now,
      durable: () => this.writer.durable,
      onSegment: options.onSegment,
      onSeal: (sealed) => {
        this.writer.onSeal(sealed);
        options.onSeal(sealed);
      },
    });
    this.writer.attach(this.stream);
  }

  /** Reads superblock and catalogue, then every batch since; writes nothing. */
  static async replay(
    device: LowerDevice,
    makeHandler: (superblock: Superblock, checkpoint: Checkpoint) => ReplayHandler,
  ): Promise<OpenedLog> {
    const superblock = await readSuperblock(device);
    const place = {
      volume: superblock.volume,
      geometry: superblock.geometry,
      area: superblock.checkpointArea,
    };
    const checkpoint = await readCheckpoint(device, place, superblock.checkpointSequence);
    const handler = makeHandler(superblock, checkpoint);
    const replayed = await Replay.run(device, superblock, handler);
    return { device, superblock, checkpoint, replayed };
  }

  /**
   * What replay accepted becomes lasting before anybody is told of it. Where nothing states that
   * it was durable it is written again: an earlier life's sync may have failed, and then the page
   * cache shows what the device does not hold, and the next sync finds nothing to do. The superblock
   * states that it is durable before anything is erased, which may have been all that stated it.
   * @param head - the newest request that is whole
   * @param keepAside - given the bytes of a cut that reached flush marks, before they are erased
   * @returns the same, with the superblock that was written last, and why something was not kept
   */
  static async settleRecovery(
    opened: OpenedLog,
    head: { readonly generation: Generation; readonly lineage: Uuid },
    keepAside?: KeepAside,
  ): Promise<OpenedLog> {
    const unkept = keepAside && (await keptCut(opened, keepAside));
    const { device, superblock, replayed } = opened;
    const { geometry, volume } = superblock;
    const sync = (): Promise<void> => device.sync('recovery');
    await writeAgain({ device, geometry, volume }, replayed);
    await writeSuperblock(device, superblock);
    await sync();
    // Into both copies. A crash may have come between the two of a horizon, whose round is made again
    // now, or of a tail, before which slots are used again; and neither says any more that the end
    // was in order.
    let last = superblock;
    for (let copy = 0; copy < 2; copy++) {
      last = {
        ...last,
        clean: false,
        sequence: last.sequence + 1,
        durable: head.generation,
        durableLsn: replayed.endLsn,
        headLineage: head.lineage,
        chain: chainAtEnd(replayed),
      };
      await writeSuperblock(device, last);
      await sync();
    }
    await erase(device, geometry, replayed);
    await sync();
    return { ...opened, superblock: last, unkept };
  }

  /**
   * The same for who writes nothing: what was taken, though nothing states that it was durable, is
   * synced before anybody is told of it.
   * @returns the same
   * @throws VarveError DEVICE_IO, PERMISSION when the device refuses: a cut may take what it shows
   */
  static async confirm(opened: OpenedLog): Promise<OpenedLog> {
    if (opened.replayed.doubtful.length === 0) return opened;
    try {
      await opened.device.sync('recovery');
      return opened;
    } catch (error) {
      if (!isVarveError(error)) throw error;
      const why = `${error.detail}: a power cut may take what it shows since the last crash`;
      throw new VarveError(error.code, why, { cause: error });
    }
  }

  static start(opened: OpenedLog, options: LogOptions): Log {
    return new Log(opened, options);
  }

  get superblock(): Superblock {
    return this.#superblock;
  }

  /** Runs `work` while neither superblock nor checkpoint is written by others. */
  async undisturbed<T>(work: (superblock: Superblock) => Promise<T>): Promise<T> {
    return await this.#publishing.run(() => work(this.#superblock));
  }

  /**
   * Writes and syncs the next superblock with these changes. A horizon goes into one copy and then
   * into the other: should either rot, what is left still knows which moments final storage is
   * about to pass, and none of them is served from there.
   */
  async publish(patch: Patch, point: SyncPoint): Promise<void> {
    await this.#publishing.run(async () => {
      await this.#write(patch, point);
      if (point === 'horizon') await this.#write(patch, point);
    });
  }

  /**
   * A checkpoint into the free area, synced, and a superblock that names it, as one step: nobody
   * else chooses an area meanwhile. Both copies name it, and the tail: what they let go is freed, and
   * whichever of them is left, should one rot, must not lead there.
   * @param make - what the checkpoint holds, asked when its turn has come
   */
  async publishCheckpoint(make: () => CheckpointContent, patch: Patch): Promise<void> {
    await this.#publishing.run(async () => {
      const area = this.#superblock.checkpointArea === 0 ? 1 : 0;
      const sequence = this.#superblock.checkpointSequence + 1;
      const place = { volume: this.#superblock.volume, geometry: this.geometry, area } as const;
      const checkpoint = { sequence, ...make() };
      await this.writer.keep('checkpoint', () => writeCheckpoint(this.device, place, checkpoint));
      const named = { checkpointArea: area, checkpointSequence: sequence } as const;
      await this.#write({ ...patch, ...named }, 'settled');
      await this.#write({}, 'settled');
      this.#tail = this.#superblock.tailSequence;
    });
  }

  /** Where replay begins, whichever copy of the superblock it goes by: what lies before is free. */
  get tail(): SegmentSequence {
    return this.#tail;
  }

  async #write(patch: Patch, point: SyncPoint): Promise<void> {
    let next = this.#superblock;
    await this.writer.keep(point, async () => {
      // Made anew for each attempt: what is durable may have grown. The place stays the same, so
      // that the other copy, which was synced, is never touched.
      next = {
        ...this.#superblock,
        clean: false,
        ...patch,
        sequence: this.#superblock.sequence + 1,
        durable: this.writer.durable.generation,
        durableLsn: this.writer.durable.lsn,
        headLineage: this.stream.lineage,
        chain: this.writer.durableChain,
      };
      await writeSuperblock(this.device, next);
    });
    this.#superblock = next;
  }

  /** The patch that makes `segment` the oldest one of a replay. */
  tailAt(segment: Segment): Patch {
    return {
      tailSequence: segment.sequence,
      tailLsn: segment.firstLsn,
      tailChain: segment.chain,
    };
  }

  /** Whether its device reads anything at all: of two places one may be bad for good. */
  async isThere(): Promise<boolean> {
    for (const block of SUPERBLOCK_BLOCKS) {
      try {
        await this.device.read(byteOffset(block * BLOCK_BYTES), new Uint8Array(BLOCK_BYTES));
        return true;
      } catch (error) {
        if (!isVarveError(error, 'DEVICE_IO')) throw error;
      }
    }
    return false;
  }

  /**
   * Reads `target.length` bytes of the stream from the device; all in one segment.
   * The caller holds the segment as a reader.
   */
  async readSlot(position: Lsn, target: Uint8Array): Promise<void> {
    const segment = this.segments.find(position);
    const end = position + target.length;
    assert(segment.endLsn === undefined || end <= segment.endLsn, 'a read stays in its segment');
    await this.device.read(this.segments.place(segment, position), target);
  }

  /** @param clean - the next opening need not look for what a crash leaves */
  async close(clean: boolean): Promise<void> {
    await this.writer.close();
    if (this.writer.failure === undefined) await this.publish({ clean }, 'close');
  }
}

/**
 * Keeps the bytes of a cut that reached flush marks. No flush of them was answered: a folder that is
 * full, or a place that can't be read, is no reason to refuse what was promised.
 * @returns why some of them are not kept
 */
async function keptCut(
  { device, replayed: { cut } }: OpenedLog,
  keepAside: KeepAside,
): Promise<string | undefined> {
  if (cut === undefined || cut.flushMarks === 0) return undefined;
  let why: string | undefined;
  for (const { offset, length } of cut.regions) {
    try {
      const bytes = new Uint8Array(length);
      await device.read(offset, bytes);
      await keepAside(`cut-${cut.lsn}-at-${offset}.bin`, bytes);
    } catch (error) {
      if (!isVarveError(error) || !UNKEPT.has(error.code)) throw error;
      why ??= error.message;
    }
  }
  return why;
}

/** Of a segment that has nothing but its header, the header itself is in doubt with the rest. */
function chainAtEnd({ segments, endLsn, chain }: Replayed): Checksum {
  const newest = segments.at(-1);
  return newest?.firstLsn === endLsn ? newest.chain : chain;
}

export interface FormatOptions {
  readonly volume: Uuid;
  /** Of the first opening. Clients are told it, so it is not the volume's: that seals the log. */
  readonly lineage: Uuid;
  readonly geometry: LogGeometry;
  readonly times: Times;
}

/** A blank log: zeros, an empty checkpoint, both superblocks; synced. */
export async function formatLog(
  device: LowerDevice,
  { volume, lineage, geometry, times }: FormatOptions,
  progress?: (done: number, total: number) => void,
): Promise<void> {
  const zeros = new Uint8Array(Math.min(4 * 1024 * 1024, geometry.logBytes));
  for (let at = 0; at < geometry.logBytes; at += zeros.length) {
    const length = Math.min(zeros.length, geometry.logBytes - at);
    await device.write(byteOffset(at), [zeros.subarray(0, length)]);
    progress?.(at + length, geometry.logBytes);
  }
  const place = { volume, geometry, area: 0 } as const;
  await writeCheckpoint(device, place, { sequence: 1, streamLsn: lsn(0), entries: [] });
  await device.sync('checkpoint');
  const blank: Superblock = {
    volume,
    geometry,
    sequence: 1,
    clean: true,
    checkpointArea: 0,
    checkpointSequence: 1,
    tailSequence: FIRST_SEQUENCE,
    tailLsn: lsn(0),
    tailChain: checksum(0),
    horizon: { generation: generation(0), lineage, ...times },
    undoSlots: 0,
    settled: generation(0),
    durable: generation(0),
    durableLsn: lsn(0),
    headLineage: lineage,
    chain: checksum(0),
  };
  for (const sequence of [1, 2]) {
    await writeSuperblock(device, { ...blank, sequence });
    await device.sync('create-log');
  }
}

const FIRST_SEQUENCE: SegmentSequence = segmentSequence(1);
