/** Small qcow2 images, made by hand: every kind of cluster, at any cluster size, in either version. */
import { deflateRawSync } from 'node:zlib';

export type Cluster =
  | { readonly kind: 'none' | 'zero' }
  | { readonly kind: 'data' | 'packed'; readonly bytes: Uint8Array };

export interface BuildOptions {
  readonly version?: 2 | 3;
  readonly clusterBits?: number;
  /** Bytes of the disk; default: all clusters whole. */
  readonly size?: number;
  readonly backing?: { readonly name: string; readonly format?: string };
  readonly clusters: readonly Cluster[];
}

export interface Built {
  readonly bytes: Buffer;
  readonly size: number;
  /** Positions of structures, for whoever wants to damage them. */
  readonly l1: number;
  readonly l1Entries: number;
  /** Of the first one. */
  readonly l2: number;
}

const BACKING_FORMAT = 0xe2792aca;

function header(
  options: BuildOptions,
  { size, l1, l1Entries }: Omit<Built, 'bytes' | 'l2'>,
): Buffer {
  const { version = 3, clusterBits = 9, backing } = options;
  const bytes = Buffer.alloc(2 ** clusterBits);
  bytes.writeUInt32BE(0x514649fb, 0);
  bytes.writeUInt32BE(version, 4);
  bytes.writeUInt32BE(clusterBits, 20);
  bytes.writeBigUInt64BE(BigInt(size), 24);
  bytes.writeUInt32BE(l1Entries, 36);
  bytes.writeBigUInt64BE(BigInt(l1), 40);
  if (version === 3) {
    bytes.writeUInt32BE(4, 96);
    bytes.writeUInt32BE(104, 100);
  }
  let at = version === 3 ? 104 : 72;
  if (backing === undefined) return bytes;
  if (backing.format !== undefined) {
    bytes.writeUInt32BE(BACKING_FORMAT, at);
    bytes.writeUInt32BE(backing.format.length, at + 4);
    bytes.write(backing.format, at + 8);
    at += 8 + Math.ceil(backing.format.length / 8) * 8;
  }
  at += 8;
  bytes.write(backing.name, at);
  bytes.writeBigUInt64BE(BigInt(at), 8);
  bytes.writeUInt32BE(Buffer.byteLength(backing.name), 16);
  return bytes;
}

export function buildQcow2(options: BuildOptions): Built {
  const { clusterBits = 9, clusters } = options;
  const clusterBytes = 2 ** clusterBits;
  const perTable = clusterBytes / 8;
  const size = options.size ?? clusters.length * clusterBytes;
  const l1Entries = Math.ceil(clusters.length / perTable);
  const l1 = clusterBytes;
  const l1Clusters = Math.max(1, Math.ceil((l1Entries * 8) / clusterBytes));
  const parts: Buffer[] = [header(options, { size, l1, l1Entries })];
  const l1Table = Buffer.alloc(l1Clusters * clusterBytes);
  parts.push(l1Table);
  let end = clusterBytes + l1Table.length;
  const tables: Buffer[] = [];
  const l2 = end;
  for (let n = 0; n < l1Entries; n += 1) {
    const table = Buffer.alloc(clusterBytes);
    tables.push(table);
    parts.push(table);
    l1Table.writeBigUInt64BE(BigInt(end) | (1n << 63n), n * 8);
    end += clusterBytes;
  }
  for (const [n, cluster] of clusters.entries()) {
    const at = (n % perTable) * 8;
    const table = tables[Math.floor(n / perTable)];
    if (table === undefined || cluster.kind === 'none') continue;
    if (!('bytes' in cluster)) {
      table.writeBigUInt64BE(1n, at);
      continue;
    }
    if (cluster.kind === 'data') {
      table.writeBigUInt64BE(BigInt(end) | (1n << 63n), at);
      const whole = Buffer.alloc(clusterBytes);
      whole.set(cluster.bytes);
      parts.push(whole);
      end += clusterBytes;
      continue;
    }
    const whole = Buffer.alloc(clusterBytes);
    whole.set(cluster.bytes);
    const packed = deflateRawSync(whole);
    // Not at the beginning of a sector, as it is among others.
    const skipped = 40;
    const sectors = Math.ceil((skipped + packed.length) / 512);
    const room = Buffer.alloc(Math.ceil((sectors * 512) / clusterBytes) * clusterBytes, 0xee);
    room.set(packed, skipped);
    parts.push(room);
    const entry = BigInt(end + skipped) | (BigInt(sectors - 1) << BigInt(62 - (clusterBits - 8)));
    table.writeBigUInt64BE(entry | (1n << 62n), at);
    end += room.length;
  }
  return { bytes: Buffer.concat(parts), size, l1, l1Entries, l2 };
}
