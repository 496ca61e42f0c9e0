/**
 * Writes a qcow2 image (version 3, clusters of 64 KiB) from beginning to end: the table of a region
 * of 512 MiB stands before its clusters, and what is counted stands at the end.
 *
 *   header | first-level table | table, clusters, table, clusters, ... | reference counts | their table
 *
 * Invariants:
 *   - Every cluster of the file is used once, so every reference count is 1.
 *   - The header is written last: until then the file begins with zeros.
 *   - Memory is one table of 64 KiB, whatever the size of the disk.
 */
import { assert } from '../base/assert.ts';
import { VarveError } from '../base/errors.ts';
import { byteCount, byteOffset, type ByteCount, type ByteOffset } from '../base/units.ts';
import { STATE_HOLE, STATE_ZERO, type StatusRun } from '../device/block-device.ts';
import type { LowerDevice } from '../device/lower-device.ts';
import { isZero } from '../device/zeros.ts';
import type { ImagePlace, ImageWindow, ImageWriter } from './image-writer.ts';
import {
  aligned,
  encodeHeader,
  ENTRY_BYTES,
  ENTRY_ZERO,
  entryAt,
  L1_BYTES_MAX,
  SECTOR_BYTES,
} from './qcow2-format.ts';

const CLUSTER_BITS = 16;
const CLUSTER_BYTES = 2 ** CLUSTER_BITS;
const TABLE_ENTRIES = CLUSTER_BYTES / ENTRY_BYTES;
/** Bytes of the disk that one second-level table covers. */
const REGION_BYTES = TABLE_ENTRIES * CLUSTER_BYTES;
const COUNTS_IN_CLUSTER = CLUSTER_BYTES / 2;
const L1_OFFSET = byteOffset(CLUSTER_BYTES);

const regionOf = (offset: number): number => Math.floor(offset / REGION_BYTES);

function l1Entries(size: ByteCount): number {
  return Math.max(1, Math.ceil(size / REGION_BYTES));
}

/** Where the first table or cluster goes. */
function bodyStart(size: ByteCount): ByteOffset {
  return aligned(L1_OFFSET + l1Entries(size) * ENTRY_BYTES, CLUSTER_BYTES);
}

interface CountPlan {
  readonly blocks: number;
  readonly tableClusters: number;
}

/** Clusters of reference counts that also count themselves. */
function countPlan(clusters: number): CountPlan {
  let plan: CountPlan = { blocks: 0, tableClusters: 0 };
  for (;;) {
    const blocks = Math.ceil((clusters + plan.blocks + plan.tableClusters) / COUNTS_IN_CLUSTER);
    const tableClusters = Math.ceil((blocks * ENTRY_BYTES) / CLUSTER_BYTES);
    if (blocks === plan.blocks && tableClusters === plan.tableClusters) return plan;
    plan = { blocks, tableClusters };
  }
}

/**
 * What the image of a disk takes at most.
 * @throws VarveError SIZE_BAD when qemu could not open it
 */
export function qcow2BytesMax(size: ByteCount): ByteCount {
  if (l1Entries(size) * ENTRY_BYTES > L1_BYTES_MAX) {
    throw new VarveError('SIZE_BAD', `${size} bytes are too many for a qcow2 image`);
  }
  const body = Math.ceil(size / CLUSTER_BYTES) + l1Entries(size);
  const clusters = bodyStart(size) / CLUSTER_BYTES + body;
  const { blocks, tableClusters } = countPlan(clusters);
  return byteCount((clusters + blocks + tableClusters) * CLUSTER_BYTES);
}

function isHole(runs: readonly StatusRun[], from: number, to: number): boolean {
  let at = 0;
  for (const { length, flags } of runs) {
    const isInside = at < to && at + length > from;
    if (isInside && flags !== (STATE_HOLE | STATE_ZERO)) return false;
    at += length;
  }
  return true;
}

/** All that a file has that can go on there: nothing before its first table is written. */
export function qcow2BytesMin(size: ByteCount, { fileEnd }: ImagePlace): ByteCount {
  return byteCount(fileEnd > bodyStart(size) ? fileEnd : 0);
}

export class Qcow2Writer implements ImageWriter {
  readonly #device: LowerDevice;
  readonly #size: ByteCount;
  readonly #bytes = new Uint8Array(CLUSTER_BYTES);
  readonly #entries = new DataView(this.#bytes.buffer);
  #region = -1;
  /** Of the region; 0: it has nothing yet. */
  #table = byteOffset(0);
  #fileEnd: ByteOffset;
  #isDirty = false;

  private constructor(device: LowerDevice, size: ByteCount, fileEnd: ByteOffset) {
    this.#device = device;
    this.#size = size;
    this.#fileEnd = fileEnd;
  }

  /** @param device - reads as zeros, and holds `qcow2BytesMax(size)` */
  static start(device: LowerDevice, size: ByteCount): Qcow2Writer {
    return new Qcow2Writer(device, size, bodyStart(size));
  }

  /**
   * Goes on where another writer was when it said so.
   * @param done - what was given to `flush`, which answered the place; both were synced
   * @throws VarveError PART_FOREIGN when that can not be
   */
  static async resume(
    device: LowerDevice,
    size: ByteCount,
    { done, place }: { readonly done: ByteOffset; readonly place: ImagePlace },
  ): Promise<Qcow2Writer> {
    const { fileEnd, table } = place;
    const first = bodyStart(size);
    const fits = (at: number): boolean => at % CLUSTER_BYTES === 0 && at >= first;
    if (!fits(fileEnd) || (table !== 0 && (!fits(table) || table >= fileEnd))) {
      throw new VarveError('PART_FOREIGN', `${device.name} can not go on at byte ${fileEnd}`);
    }
    const writer = new Qcow2Writer(device, size, fileEnd);
    const region = regionOf(done);
    // What came after is written again, and need not be the same where it is zeros.
    const l1From = L1_OFFSET + (table === 0 ? region : region + 1) * ENTRY_BYTES;
    const l1End = L1_OFFSET + l1Entries(size) * ENTRY_BYTES;
    if (l1From < l1End) await device.punch(byteOffset(l1From), byteCount(l1End - l1From));
    if (table !== 0) {
      await device.read(table, writer.#bytes);
      writer.#bytes.fill(0, ENTRY_BYTES * Math.ceil((done % REGION_BYTES) / CLUSTER_BYTES));
      writer.#region = region;
      writer.#table = table;
    }
    return writer;
  }

  async put({ offset, length, bytes, runs }: ImageWindow): Promise<ByteCount> {
    const found: { readonly entry: number; readonly bytes: Uint8Array | undefined }[] = [];
    for (let at = 0; at < length; at += CLUSTER_BYTES) {
      const to = Math.min(at + CLUSTER_BYTES, length);
      const part = bytes?.subarray(at, to);
      const hasData = part !== undefined && !isZero(part);
      if (!hasData && isHole(runs, at, to)) {
        // A hole may be far longer than a window.
        if (bytes === undefined && runs.length === 1) break;
        continue;
      }
      const entry = ((offset + at) % REGION_BYTES) / CLUSTER_BYTES;
      found.push({ entry, bytes: hasData ? part : undefined });
    }
    if (found.length === 0) return byteCount(0);
    await this.#enter(regionOf(offset));
    const start = this.#table === 0 ? this.#fileEnd + CLUSTER_BYTES : this.#fileEnd;
    const sources: Uint8Array[] = [];
    let clusters = 0;
    for (const { bytes: part } of found) {
      if (part === undefined) continue;
      clusters += 1;
      sources.push(part);
      const rest = CLUSTER_BYTES - part.length;
      if (rest > 0) sources.push(new Uint8Array(rest));
    }
    if (clusters > 0) await this.#device.write(byteOffset(start), sources);
    if (this.#table === 0) this.#table = this.#fileEnd;
    let place = start;
    for (const { entry, bytes: part } of found) {
      const value = part === undefined ? ENTRY_ZERO : entryAt(place);
      this.#entries.setBigUint64(entry * ENTRY_BYTES, value);
      if (part !== undefined) place += CLUSTER_BYTES;
    }
    this.#fileEnd = byteOffset(place);
    this.#isDirty = true;
    return byteCount(clusters * CLUSTER_BYTES);
  }

  async flush(done: ByteOffset): Promise<ImagePlace> {
    await this.#writeTable();
    const table = regionOf(done) === this.#region ? this.#table : byteOffset(0);
    return { fileEnd: this.#fileEnd, table };
  }

  async finish(): Promise<void> {
    await this.#writeTable();
    const refcountTable = await this.#writeCounts();
    await this.#device.sync('export');
    const header = encodeHeader({
      // qemu takes whole sectors only, and would leave out the rest of the last one.
      size: byteCount(aligned(this.#size, SECTOR_BYTES)),
      clusterBits: CLUSTER_BITS,
      l1Entries: l1Entries(this.#size),
      l1Offset: L1_OFFSET,
      ...refcountTable,
    });
    await this.#device.write(byteOffset(0), [header]);
    await this.#device.sync('export');
  }

  async #enter(region: number): Promise<void> {
    assert(region >= this.#region, 'an image is written in order');
    if (region === this.#region) return;
    await this.#writeTable();
    this.#region = region;
    this.#table = byteOffset(0);
    this.#bytes.fill(0);
  }

  async #writeTable(): Promise<void> {
    if (!this.#isDirty) return;
    await this.#device.write(this.#table, [this.#bytes]);
    const entry = new Uint8Array(ENTRY_BYTES);
    new DataView(entry.buffer).setBigUint64(0, entryAt(this.#table));
    await this.#device.write(byteOffset(L1_OFFSET + this.#region * ENTRY_BYTES), [entry]);
    this.#isDirty = false;
  }

  async #writeCounts(): Promise<{ refcountTable: ByteOffset; refcountClusters: number }> {
    const { blocks, tableClusters } = countPlan(this.#fileEnd / CLUSTER_BYTES);
    const from = this.#fileEnd;
    const tableAt = byteOffset(from + blocks * CLUSTER_BYTES);
    const clusters = tableAt / CLUSTER_BYTES + tableClusters;
    const counts = new Uint8Array(CLUSTER_BYTES);
    for (let at = 1; at < counts.length; at += 2) counts[at] = 1;
    for (let n = 0; n < blocks; n += 1) {
      const last = clusters - n * COUNTS_IN_CLUSTER;
      if (last < COUNTS_IN_CLUSTER) counts.fill(0, last * 2);
      await this.#device.write(byteOffset(from + n * CLUSTER_BYTES), [counts]);
    }
    for (let n = 0; n < tableClusters; n += 1) {
      const table = new DataView(new ArrayBuffer(CLUSTER_BYTES));
      const end = Math.min(TABLE_ENTRIES, blocks - n * TABLE_ENTRIES);
      for (let entry = 0; entry < end; entry += 1) {
        const block = BigInt(from + (n * TABLE_ENTRIES + entry) * CLUSTER_BYTES);
        table.setBigUint64(entry * ENTRY_BYTES, block);
      }
      const at = byteOffset(tableAt + n * CLUSTER_BYTES);
      await this.#device.write(at, [new Uint8Array(table.buffer)]);
    }
    return { refcountTable: tableAt, refcountClusters: tableClusters };
  }
}
