/**
 * Superblock: two copies, written in turn, the newer valid one counts.
 *
 * Invariants:
 *   - Any one copy may be torn, or refused by the device; both bad is damage, and no magic at all is a
 *     foreign file. What neither copy shows is not judged where one was refused.
 *   - The sequence grows with each write, and the older copy is the one that is overwritten.
 */
import { assert } from '../src/base/assert.ts';
import { crc32c } from '../src/base/crc32c.ts';
import { isVarveError, VarveError } from '../src/base/errors.ts';
import type { Uuid } from '../src/base/identity.ts';
import {
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  checksum,
  generation,
  lsn,
  micros,
  segmentSequence,
  type Checksum,
  type Generation,
  type Lsn,
  type Micros,
  type SegmentSequence,
} from '../src/base/units.ts';
import type { LowerDevice } from '../src/device/lower-device.ts';
import {
  COUNT_END,
  FORMAT_VERSION,
  GENERATION_END,
  SUPERBLOCK_BLOCKS,
  SUPERBLOCK_MAGIC,
  superblock as shape,
} from '../src/format/layouts.ts';
import { decode, encode, numberOf, textOf, viewOf } from '../src/format/record.ts';
import { isGeometry, type LogGeometry } from './geometry.ts';

/** A generation with the times at which it was the newest. */
export interface StampedMoment {
  readonly generation: Generation;
  readonly lineage: Uuid;
  readonly wallUs: Micros;
  readonly elapsedUs: Micros;
}

export interface Superblock {
  readonly volume: Uuid;
  readonly geometry: LogGeometry;
  readonly sequence: number;
  readonly clean: boolean;
  readonly checkpointArea: 0 | 1;
  readonly checkpointSequence: number;
  readonly tailSequence: SegmentSequence;
  readonly tailLsn: Lsn;
  readonly tailChain: Checksum;
  readonly horizon: StampedMoment;
  /** Slots of the undo device that were ever used: the first so many. */
  readonly undoSlots: number;
  readonly settled: Generation;
  readonly durable: Generation;
  readonly durableLsn: Lsn;
  readonly headLineage: Uuid;
  readonly chain: Checksum;
}

export function encodeSuperblock(value: Superblock): Uint8Array {
  const bytes = new Uint8Array(BLOCK_BYTES);
  encode(
    shape,
    {
      magic: SUPERBLOCK_MAGIC,
      checksum: 0,
      version: FORMAT_VERSION,
      clean: value.clean ? 1 : 0,
      checkpoint_area: value.checkpointArea,
      volume: value.volume,
      sequence: value.sequence,
      size_bytes: value.geometry.size,
      log_bytes: value.geometry.logBytes,
      segment_bytes: value.geometry.segmentBytes,
      slot_count: value.geometry.slotCount,
      request_bytes_max: value.geometry.requestBytesMax,
      checkpoint_bytes: value.geometry.checkpointBytes,
      checkpoint_sequence: value.checkpointSequence,
      tail_sequence: value.tailSequence,
      tail_lsn: value.tailLsn,
      tail_chain: value.tailChain,
      horizon: value.horizon.generation,
      horizon_lineage: value.horizon.lineage,
      horizon_wall_us: value.horizon.wallUs,
      horizon_elapsed_us: value.horizon.elapsedUs,
      undo_slots: value.undoSlots,
      settled: value.settled,
      durable: value.durable,
      durable_lsn: value.durableLsn,
      head_lineage: value.headLineage,
      chain: value.chain,
    },
    bytes,
  );
  viewOf(bytes).setUint32(8, crc32c(bytes.subarray(12, shape.size)), true);
  return bytes;
}

const GENERATIONS = ['horizon', 'settled', 'durable'] as const;
const POSITIONS = ['tail_lsn', 'durable_lsn'] as const;
const COUNTS = [
  ...POSITIONS,
  'sequence',
  'checkpoint_sequence',
  'tail_sequence',
  'horizon_elapsed_us',
] as const;

/** @throws VarveError VERSION_UNKNOWN, with both numbers */
export function decodeSuperblock(bytes: Uint8Array): Superblock | undefined {
  if (!hasSuperblockMagic(bytes)) return undefined;
  const stored = viewOf(bytes).getUint32(8, true);
  if (crc32c(bytes.subarray(12, shape.size)) !== stored) return undefined;
  const version = viewOf(bytes).getUint16(12, true);
  if (version !== FORMAT_VERSION) {
    throw new VarveError('VERSION_UNKNOWN', `got ${version}, this build knows ${FORMAT_VERSION}`);
  }
  const values = decode(shape, bytes);
  if (values === undefined) return undefined;
  const number = (name: string): number => numberOf(values, name);
  if (!GENERATIONS.every((name) => number(name) < GENERATION_END)) return undefined;
  if (!COUNTS.every((name) => number(name) < COUNT_END)) return undefined;
  if (!POSITIONS.every((name) => number(name) % BLOCK_BYTES === 0)) return undefined;
  const order = [number('settled'), number('horizon'), number('durable')];
  if (order.some((at, i) => i > 0 && at < (order[i - 1] ?? 0))) return undefined;
  if (number('clean') > 1 || number('checkpoint_area') > 1) return undefined;
  const found: Superblock = {
    volume: textOf(values, 'volume'),
    geometry: {
      size: byteCount(number('size_bytes')),
      logBytes: byteCount(number('log_bytes')),
      segmentBytes: byteCount(number('segment_bytes')),
      slotCount: number('slot_count'),
      checkpointBytes: byteCount(number('checkpoint_bytes')),
      requestBytesMax: byteCount(number('request_bytes_max')),
    },
    sequence: number('sequence'),
    clean: number('clean') === 1,
    checkpointArea: number('checkpoint_area') === 1 ? 1 : 0,
    checkpointSequence: number('checkpoint_sequence'),
    tailSequence: segmentSequence(number('tail_sequence')),
    tailLsn: lsn(number('tail_lsn')),
    tailChain: checksum(number('tail_chain')),
    horizon: {
      generation: generation(number('horizon')),
      lineage: textOf(values, 'horizon_lineage'),
      wallUs: micros(number('horizon_wall_us')),
      elapsedUs: micros(number('horizon_elapsed_us')),
    },
    undoSlots: number('undo_slots'),
    settled: generation(number('settled')),
    durable: generation(number('durable')),
    durableLsn: lsn(number('durable_lsn')),
    headLineage: textOf(values, 'head_lineage'),
    chain: checksum(number('chain')),
  };
  return isGeometry(found.geometry) ? found : undefined;
}

export function hasSuperblockMagic(bytes: Uint8Array): boolean {
  return Buffer.from(bytes.subarray(0, 8)).toString('latin1') === SUPERBLOCK_MAGIC;
}

/**
 * The newer of the two copies. They are written in turns; where one is not the successor of the
 * other, both are read a second time, since a device may have answered with what lies elsewhere.
 * @throws VarveError VOLUME_FOREIGN, VOLUME_CORRUPT, VERSION_UNKNOWN, DEVICE_IO
 */
export async function readSuperblock(device: LowerDevice): Promise<Superblock> {
  if (device.size < (SUPERBLOCK_BLOCKS[1] + 1) * BLOCK_BYTES) {
    throw new VarveError('VOLUME_FOREIGN', `${device.name} is too short for a log`);
  }
  const first = await readCopies(device);
  const copies = areInTurn(first.found) ? first : await readCopies(device);
  let newest: Superblock | undefined;
  for (const found of [...first.found, ...copies.found]) {
    if (newest === undefined || found.sequence > newest.sequence) newest = found;
  }
  if (newest === undefined) {
    const refusal = first.refusal ?? copies.refusal;
    if (refusal !== undefined) throw refusal;
    if (!first.magicSeen && !copies.magicSeen) {
      throw new VarveError('VOLUME_FOREIGN', `${device.name} has no superblock`);
    }
    throw new VarveError('VOLUME_CORRUPT', `both superblocks of ${device.name} are damaged`);
  }
  if (device.size < newest.geometry.logBytes) {
    throw new VarveError(
      'VOLUME_FOREIGN',
      `${device.name} is truncated: got ${device.size} bytes, expected ${newest.geometry.logBytes}`,
    );
  }
  return newest;
}

interface Copies {
  readonly found: readonly Superblock[];
  readonly magicSeen: boolean;
  readonly refusal: VarveError | undefined;
}

async function readCopies(device: LowerDevice): Promise<Copies> {
  const found: Superblock[] = [];
  let magicSeen = false;
  let refusal: VarveError | undefined;
  for (const place of SUPERBLOCK_BLOCKS) {
    const bytes = new Uint8Array(BLOCK_BYTES);
    try {
      await device.read(byteOffset(place * BLOCK_BYTES), bytes);
    } catch (error) {
      if (!isVarveError(error, 'DEVICE_IO')) throw error;
      refusal ??= error;
      continue;
    }
    magicSeen ||= hasSuperblockMagic(bytes);
    const copy = decodeSuperblock(bytes);
    if (copy !== undefined) found.push(copy);
  }
  return { found, magicSeen, refusal };
}

function areInTurn([one, other]: readonly Superblock[]): boolean {
  if (one === undefined || other === undefined) return false;
  return Math.abs(one.sequence - other.sequence) === 1;
}

/** Writes one copy; the value's sequence is what decides which. The caller syncs. */
export async function writeSuperblock(device: LowerDevice, value: Superblock): Promise<void> {
  assert(value.settled <= value.horizon.generation, 'settled never passes the horizon');
  assert(value.durable >= value.horizon.generation, 'a horizon is durable history');
  const place = value.sequence % 2 === 0 ? SUPERBLOCK_BLOCKS[0] : SUPERBLOCK_BLOCKS[1];
  await device.write(byteOffset(place * BLOCK_BYTES), [encodeSuperblock(value)]);
}
