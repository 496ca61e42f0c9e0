/**
 * The first cluster of a qcow2 image: bytes in, a header or an error out. No I/O, so it is fuzzed
 * directly.
 *
 * Invariant: what is given out can be worked with: sizes are safe integers, tables lie inside the
 * file and cover the disk, and nothing was asked for that is not understood.
 *
 * Source: docs/interop/qcow2.txt of qemu.
 */
import { VarveError } from '../base/errors.ts';
import { byteCount, byteOffset, type ByteCount, type ByteOffset } from '../base/units.ts';
import type { BackingName } from './base-image.ts';
import {
  AT,
  ENTRY_BYTES,
  HEADER_BYTES_V2,
  HEADER_BYTES_V3,
  L1_BYTES_MAX,
  QCOW2_MAGIC,
  SECTOR_BYTES,
} from './qcow2-format.ts';

const CLUSTER_BITS_MIN = 9;
const CLUSTER_BITS_MAX = 21;
const BACKING_NAME_BYTES_MAX = 1023;
const REFCOUNT_ORDER_MAX = 6;
const EXTENSION_END = 0;
const EXTENSION_BACKING_FORMAT = 0xe2792aca;

/** Incompatible features, by bit. */
const CORRUPT = 1n << 1n;
const DATA_FILE = 1n << 2n;
const COMPRESSION = 1n << 3n;
const EXTENDED_L2 = 1n << 4n;
/** Dirty: reference counts may be wrong, which nobody needs who only reads. */
const UNDERSTOOD = (1n << 0n) | COMPRESSION;

export interface Qcow2Header {
  readonly version: 2 | 3;
  readonly clusterBits: number;
  readonly size: ByteCount;
  readonly l1Offset: ByteOffset;
  readonly backing: BackingName | undefined;
}

/** Bytes of a file that `decodeQcow2` looks at, at most: the largest cluster. */
export const HEADER_READ_BYTES = 2 ** CLUSTER_BITS_MAX;

export function isQcow2(bytes: Uint8Array): boolean {
  return bytes.length >= 4 && viewOf(bytes).getUint32(AT.magic) === QCOW2_MAGIC;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function corrupt(what: string): never {
  throw new VarveError('IMAGE_CORRUPT', what);
}

function unsupported(what: string): never {
  throw new VarveError('IMAGE_UNSUPPORTED', what);
}

function safe(value: bigint, what: string): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) corrupt(`${what} is ${value}`);
  return Number(value);
}

/** @returns where the header's own fields end */
function checkVersion3(view: DataView): number {
  const headerBytes = view.getUint32(AT.headerBytes);
  if (headerBytes < HEADER_BYTES_V3 || headerBytes % 8 !== 0 || headerBytes > view.byteLength) {
    corrupt(`its header has ${headerBytes} bytes`);
  }
  const features = view.getBigUint64(AT.incompatible);
  if ((features & CORRUPT) !== 0n) corrupt('qemu has marked it as corrupt');
  if ((features & DATA_FILE) !== 0n) unsupported('its data lie in an external data file');
  if ((features & EXTENDED_L2) !== 0n)
    unsupported('its tables have extended entries (subclusters)');
  const unknown = features & ~UNDERSTOOD;
  if (unknown !== 0n) unsupported(`it needs the features 0x${unknown.toString(16)}`);
  const order = view.getUint32(AT.refcountOrder);
  if (order > REFCOUNT_ORDER_MAX) corrupt(`its reference counts have 2^${order} bits`);
  const compression = headerBytes > HEADER_BYTES_V3 ? view.getUint8(AT.compression) : 0;
  const isOther = (features & COMPRESSION) !== 0n;
  if (isOther !== (compression !== 0)) corrupt(`its compression ${compression} is not announced`);
  if (isOther) {
    unsupported(compression === 1 ? 'it is compressed by zstd' : `compression ${compression}`);
  }
  return headerBytes;
}

/** The format that the extensions name for the backing file. */
function backingFormat(bytes: Uint8Array, from: number, end: number): string | undefined {
  const view = viewOf(bytes);
  for (let at = from; at + 8 <= end;) {
    const type = view.getUint32(at);
    const length = view.getUint32(at + 4);
    if (type === EXTENSION_END) return undefined;
    at += 8;
    if (length > end - at) corrupt(`a header extension has ${length} bytes`);
    if (type === EXTENSION_BACKING_FORMAT) {
      return Buffer.from(bytes.subarray(at, at + length)).toString('utf8');
    }
    at += Math.ceil(length / 8) * 8;
  }
  return undefined;
}

function backingOf(bytes: Uint8Array, headerBytes: number): BackingName | undefined {
  const view = viewOf(bytes);
  const offset = safe(view.getBigUint64(AT.backingOffset), 'the place of its backing file name');
  if (offset === 0) return undefined;
  const length = view.getUint32(AT.backingLength);
  const isInside = offset >= headerBytes && offset + length <= bytes.length;
  if (length === 0 || length > BACKING_NAME_BYTES_MAX || !isInside) {
    corrupt(`its backing file name has ${length} bytes at byte ${offset}`);
  }
  const name = Buffer.from(bytes.subarray(offset, offset + length)).toString('utf8');
  if (name.includes('\0')) corrupt('its backing file name has a zero in it');
  return { name, format: backingFormat(bytes, headerBytes, offset) };
}

/**
 * @param bytes - the beginning of the file: HEADER_READ_BYTES, or all of a shorter one
 * @throws VarveError IMAGE_CORRUPT, IMAGE_UNSUPPORTED
 */
export function decodeQcow2(bytes: Uint8Array, fileBytes: ByteCount): Qcow2Header {
  if (!isQcow2(bytes)) corrupt('it does not begin as qcow2 does');
  if (bytes.length < HEADER_BYTES_V2) corrupt('it ends within its header');
  const view = viewOf(bytes);
  const version = view.getUint32(AT.version);
  if (version !== 2 && version !== 3) unsupported(`qcow2 of version ${version}`);
  if (version === 3 && bytes.length < HEADER_BYTES_V3) corrupt('it ends within its header');
  const clusterBits = view.getUint32(AT.clusterBits);
  if (clusterBits < CLUSTER_BITS_MIN || clusterBits > CLUSTER_BITS_MAX) {
    corrupt(`its clusters have 2^${clusterBits} bytes`);
  }
  const crypt = view.getUint32(AT.cryptMethod);
  if (crypt !== 0) unsupported(crypt === 2 ? 'it is encrypted by LUKS' : 'it is encrypted');
  const clusterBytes = 2 ** clusterBits;
  const first = bytes.subarray(0, clusterBytes);
  const headerBytes = version === 3 ? checkVersion3(viewOf(first)) : HEADER_BYTES_V2;
  const size = safe(view.getBigUint64(AT.size), 'its disk size');
  if (size % SECTOR_BYTES !== 0)
    unsupported(`its disk has ${size} bytes, which is no sector's end`);
  const l1Offset = safe(view.getBigUint64(AT.l1Offset), 'the place of its first-level table');
  const entries = Math.ceil(size / (clusterBytes * (clusterBytes / ENTRY_BYTES)));
  const claimed = view.getUint32(AT.l1Entries);
  if (claimed < entries) corrupt(`its first-level table has ${claimed} entries of ${entries}`);
  const l1Bytes = entries * ENTRY_BYTES;
  if (claimed * ENTRY_BYTES > L1_BYTES_MAX)
    unsupported(`a first-level table of ${claimed} entries`);
  if (entries > 0 && (l1Offset % clusterBytes !== 0 || l1Offset + l1Bytes > fileBytes)) {
    corrupt(`its first-level table lies at byte ${l1Offset}, and the file has ${fileBytes}`);
  }
  const backing = backingOf(first, headerBytes);
  const places = { l1Offset: byteOffset(l1Offset), backing };
  return { version, clusterBits, size: byteCount(size), ...places };
}
