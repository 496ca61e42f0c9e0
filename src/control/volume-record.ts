/**
 * volume.json: identity and limits of a volume, for people to read. It gets its name last, so a
 * volume exists when a file of this name does, and not before; until then it is the record of a
 * creation, from which another one learns what the first has left.
 */
import { isAbsolute, join } from 'node:path';
import { VarveError } from '../base/errors.ts';
import type { Uuid } from '../base/identity.ts';
import { byteCount, gibibytes, mebibytes, type ByteCount } from '../base/units.ts';
import { planGeometry, REQUEST_BYTES_MAX, type LogGeometry } from '../../log/geometry.ts';
import { WRITE_MODES, type WriteMode } from '../volume/report.ts';
import { baseShape, type BaseRecord } from './base-record.ts';
import { fields, flag, oneOf, optional, parseJson, ShapeError, text, unit, uuid } from './shape.ts';
import type { RetentionPolicy } from '../volume/retention-policy.ts';
import { retentionRecordShape } from './retention-shapes.ts';

const RECORD_FORMAT = 2;
/** Of a volume that has a base, or had one: older builds would take what is the base's for zeros. */
const RECORD_FORMAT_BASED = 3;
export const RECORD_FILE = 'volume.json';
/** Of a volume that is being made: there is never one beside a volume. */
export const UNFINISHED_FILE = 'volume.json.unfinished';
export const LOCK_FILE = 'lock';
export const LOG_FILE = 'log';
export const FINAL_FILE = 'final.raw';
export const SUMS_FILE = 'final.sums';
export const UNDO_FILE = 'undo';

/** A sparse file takes what is in it; some file systems end files at 16 TiB. */
const UNDO_BYTES_MAX: ByteCount = gibibytes(4096);
const UNDO_BYTES_MIN: ByteCount = gibibytes(1);

export const LOG_BYTES_DEFAULT_MIN: ByteCount = mebibytes(256);
export const LOG_BYTES_DEFAULT_MAX: ByteCount = gibibytes(4);
/** So that thousands of clones take little: each has its own, allocated when it is made. */
export const LOG_BYTES_OF_CLONE: ByteCount = mebibytes(16);
const REQUEST_BYTES_OF_CLONE_MIN: ByteCount = mebibytes(1);
/** A ring that can't hold two of the largest requests would let one writer stop all. */
export const RING_BYTES_MIN: ByteCount = byteCount(2 * REQUEST_BYTES_MAX);
/** The largest buffer that every supported Node can make. */
export const RING_BYTES_MAX: ByteCount = byteCount(gibibytes(4) - mebibytes(1));
export const RING_BYTES_DEFAULT: ByteCount = mebibytes(64);

export interface VolumeRecord {
  readonly uuid: Uuid;
  readonly size: ByteCount;
  readonly logSize: ByteCount;
  readonly ringSize: ByteCount;
  readonly writeMode: WriteMode;
  /** ISO 8601, UTC. */
  readonly createdAt: string;
  /** Relative to the volume's folder, or absolute. */
  readonly log: string;
  readonly final: string;
  readonly sums: string;
  readonly undo: string;
  readonly undoSize: ByteCount;
  /** Its log and ring are those of a clone, and so are its largest requests. */
  readonly isClone?: boolean | undefined;
  /** What it is based on. */
  readonly base: BaseRecord | undefined;
  /** There was a base, which is not needed any more. */
  readonly hadBase: boolean;
  readonly retention: RetentionPolicy;
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
/** Files of the directory itself. */
const NAMES_RESERVED: readonly string[] = ['lock', 'nbd.sock', 'control.sock'];

/** @throws VarveError VOLUME_NAME_BAD */
export function checkVolumeName(name: string): string {
  if (!NAME.test(name)) throw new VarveError('VOLUME_NAME_BAD', `got "${name}"`);
  if (NAMES_RESERVED.includes(name)) {
    throw new VarveError('VOLUME_NAME_BAD', `"${name}" is a file of the directory itself`);
  }
  return name;
}

export function isVolumeName(name: string): boolean {
  return NAME.test(name) && !NAMES_RESERVED.includes(name);
}

/** The volume's own size, within bounds: a small log for a small disk. One of many clones has less. */
export function logSizeDefault(size: ByteCount, isClone: boolean): ByteCount {
  if (isClone) return LOG_BYTES_OF_CLONE;
  return byteCount(Math.min(LOG_BYTES_DEFAULT_MAX, Math.max(LOG_BYTES_DEFAULT_MIN, size)));
}

/** Requests of a clone are smaller where its log is: a quarter of it, at most what others have. */
export function geometryOf({
  size,
  logSize,
  isClone = false,
}: Pick<VolumeRecord, 'size' | 'logSize' | 'isClone'>): LogGeometry {
  if (!isClone) return planGeometry({ size, logSize });
  const share = 2 ** Math.floor(Math.log2(Math.max(1, logSize / 4)));
  const least = Math.max(REQUEST_BYTES_OF_CLONE_MIN, share);
  const requestBytesMax = byteCount(Math.min(REQUEST_BYTES_MAX, least));
  return planGeometry({ size, logSize, requestBytesMax });
}

export function ringSizeOfClone({ requestBytesMax }: LogGeometry): ByteCount {
  return byteCount(2 * requestBytesMax);
}

/** What history may take at most: four times the volume. */
export function undoSizeDefault(size: ByteCount): ByteCount {
  const whole = Math.ceil((4 * size) / 4096) * 4096;
  return byteCount(Math.min(UNDO_BYTES_MAX, Math.max(UNDO_BYTES_MIN, whole)));
}

/** @throws VarveError RING_BAD */
export function checkRingSize(ringSize: ByteCount): ByteCount {
  const fits =
    Number.isSafeInteger(ringSize) && ringSize >= RING_BYTES_MIN && ringSize <= RING_BYTES_MAX;
  if (fits) return ringSize;
  const next = `give ${RING_BYTES_MIN / mebibytes(1)}M to ${RING_BYTES_MAX / mebibytes(1)}M`;
  throw new VarveError('RING_BAD', `got ${ringSize} bytes`, { next });
}

export function recordText(record: VolumeRecord): string {
  const { hadBase, ...rest } = record;
  const isBased = hadBase || record.base !== undefined;
  const format = isBased ? RECORD_FORMAT_BASED : RECORD_FORMAT;
  const all = { format, ...rest, ...(isBased && { hadBase }) };
  return `${JSON.stringify(all, null, 2)}\n`;
}

const formatShape = fields({ format: unit(Number) });
const recordShape = fields({
  uuid,
  size: unit(byteCount),
  logSize: unit(byteCount),
  ringSize: unit(byteCount),
  writeMode: oneOf(WRITE_MODES),
  createdAt: text,
  log: text,
  final: text,
  sums: text,
  undo: text,
  undoSize: unit(byteCount),
  isClone: optional(flag),
  base: baseShape,
  hadBase: optional(flag),
  retention: retentionRecordShape,
});

/**
 * @param path - for messages
 * @throws VarveError VOLUME_FOREIGN, VERSION_UNKNOWN
 */
export function parseRecord(source: string, path: string): VolumeRecord {
  try {
    const value = parseJson(source, 'the content');
    const { format } = formatShape(value, '');
    if (format !== RECORD_FORMAT && format !== RECORD_FORMAT_BASED) {
      const known = `${RECORD_FORMAT} and ${RECORD_FORMAT_BASED}`;
      throw new VarveError('VERSION_UNKNOWN', `${path}: got ${format}, this build knows ${known}`);
    }
    const shaped = recordShape(value, '');
    const record = { ...shaped, hadBase: shaped.hadBase === true };
    if (record.size === 0) throw new ShapeError('size', 'above 0');
    return record;
  } catch (error) {
    if (!(error instanceof ShapeError)) throw error;
    throw new VarveError('VOLUME_FOREIGN', `${path}: ${error.message}`, { cause: error });
  }
}

/** Where a file of the volume is, as a path that can be opened. */
export function pathOf(folder: string, stored: string): string {
  return isAbsolute(stored) ? stored : join(folder, stored);
}
