/**
 * qcow2 as bytes: header, entries of tables. Big-endian. Pure.
 *
 * Source: docs/interop/qcow2.txt of qemu.
 */
import { assert } from '../base/assert.ts';
import { byteOffset, type ByteCount, type ByteOffset } from '../base/units.ts';

/** "QFI\xfb" */
export const QCOW2_MAGIC = 0x514649fb;
export const HEADER_BYTES_V2 = 72;
/** Of version 3; longer ones go on with fields that may be left out. */
export const HEADER_BYTES_V3 = 104;
export const ENTRY_BYTES = 8;
/** qemu reads no larger first-level table. */
export const L1_BYTES_MAX = 32 * 1024 ** 2;
export const SECTOR_BYTES = 512;

/** Positions of fields in the header. */
export const AT = {
  magic: 0,
  version: 4,
  backingOffset: 8,
  backingLength: 16,
  clusterBits: 20,
  size: 24,
  cryptMethod: 32,
  l1Entries: 36,
  l1Offset: 40,
  refcountTable: 48,
  refcountClusters: 56,
  snapshots: 60,
  snapshotsOffset: 64,
  incompatible: 72,
  compatible: 80,
  autoclear: 88,
  refcountOrder: 96,
  headerBytes: 100,
  compression: 104,
} as const;

/** A second-level entry of a cluster that reads as zeros and has no place of its own. */
export const ENTRY_ZERO = 1n;
/** The cluster, or table, is used once: it may be written in place. */
const ENTRY_ONCE = 1n << 63n;

/** The entry of a cluster or table that is used once. */
export function entryAt(place: number): bigint {
  assert(Number.isSafeInteger(place) && place > 0, 'a place lies behind the header');
  return BigInt(place) | ENTRY_ONCE;
}

export interface NewHeader {
  readonly size: ByteCount;
  readonly clusterBits: number;
  readonly l1Entries: number;
  readonly l1Offset: ByteOffset;
  readonly refcountTable: ByteOffset;
  readonly refcountClusters: number;
}

/** A whole cluster: version 3, 16-bit reference counts, no features. */
export function encodeHeader(header: NewHeader): Uint8Array {
  const bytes = new Uint8Array(2 ** header.clusterBits);
  const view = new DataView(bytes.buffer);
  view.setUint32(AT.magic, QCOW2_MAGIC);
  view.setUint32(AT.version, 3);
  view.setUint32(AT.clusterBits, header.clusterBits);
  view.setBigUint64(AT.size, BigInt(header.size));
  view.setUint32(AT.l1Entries, header.l1Entries);
  view.setBigUint64(AT.l1Offset, BigInt(header.l1Offset));
  view.setBigUint64(AT.refcountTable, BigInt(header.refcountTable));
  view.setUint32(AT.refcountClusters, header.refcountClusters);
  view.setUint32(AT.refcountOrder, 4);
  view.setUint32(AT.headerBytes, HEADER_BYTES_V3);
  return bytes;
}

/** Up to the next multiple. */
export function aligned(position: number, to: number): ByteOffset {
  return byteOffset(Math.ceil(position / to) * to);
}
