/**
 * Where the clusters of a qcow2 image lie: its two levels of tables, entry by entry.
 *
 * Invariants:
 *   - Places that are given out lie inside the file, at cluster boundaries where they have to.
 *   - Bits that mean nothing are zero, else the entry is damaged.
 */
import { VarveError } from '../base/errors.ts';
import type { LowerDevice } from '../device/lower-device.ts';
import { ENTRY_BYTES, SECTOR_BYTES } from './qcow2-format.ts';
import type { Qcow2Header } from './qcow2-header.ts';
import { TablePages, type TablePage } from './table-pages.ts';

/** Runs of clusters of one kind, in bytes of the disk. `none`: what it is based on shows through. */
export type Run = { readonly offset: number; readonly length: number } & (
  | { readonly kind: 'none' | 'zero' }
  /** `at`: where the first byte lies in the file; the rest follows. */
  | { readonly kind: 'data'; readonly at: number }
  /** Part of one cluster; `packed` bytes of it lie at `at`. */
  | { readonly kind: 'packed'; readonly at: number; readonly packed: number }
);

type Place =
  | { readonly kind: 'none' | 'zero' }
  | { readonly kind: 'data'; readonly at: number }
  | { readonly kind: 'packed'; readonly at: number; readonly packed: number };

/** Bits of the upper half of an entry. */
const HIGH_PACKED = 0x40000000;
const HIGH_PLACE = 0x00ffffff;
const HIGH_RESERVED_L1 = 0x7f000000;
const HIGH_RESERVED_L2 = 0x3f000000;
/** Of the lower half. */
const LOW_RESERVED_L1 = 0x1ff;
const LOW_RESERVED_L2 = 0x1fe;
const LOW_ZERO = 1;

const NONE: Place = { kind: 'none' };
const ZERO: Place = { kind: 'zero' };

export class Qcow2Map {
  readonly clusterBytes: number;
  /** Bytes of the disk that one second-level table covers. */
  readonly #regionBytes: number;
  readonly #header: Qcow2Header;
  readonly #device: LowerDevice;
  readonly #pages: TablePages;

  constructor(device: LowerDevice, header: Qcow2Header) {
    this.clusterBytes = 2 ** header.clusterBits;
    this.#regionBytes = this.clusterBytes * (this.clusterBytes / ENTRY_BYTES);
    this.#header = header;
    this.#device = device;
    this.#pages = new TablePages(device);
  }

  /**
   * In order, without a gap; neighbours that can be taken together are one run.
   * @throws VarveError IMAGE_CORRUPT, DEVICE_IO
   */
  async *runs(offset: number, length: number): AsyncGenerator<Run, void> {
    let last: Run | undefined;
    for await (const next of this.#parts(offset, offset + length)) {
      const joined = last === undefined ? next : join(last, next);
      if (joined === undefined && last !== undefined) yield last;
      last = joined ?? next;
    }
    if (last !== undefined) yield last;
  }

  async *#parts(from: number, end: number): AsyncGenerator<Run, void> {
    let page: TablePage | undefined;
    for (let at = from; at < end;) {
      const region = Math.floor(at / this.#regionBytes);
      const regionEnd = Math.min(end, (region + 1) * this.#regionBytes);
      const table = await this.#table(region);
      if (table === 0) {
        yield { kind: 'none', offset: at, length: regionEnd - at };
        at = regionEnd;
        continue;
      }
      while (at < regionEnd) {
        const cluster = Math.floor(at / this.clusterBytes);
        const inRegion = cluster - region * (this.#regionBytes / this.clusterBytes);
        const entryAt = table + inRegion * ENTRY_BYTES;
        if (page === undefined || entryAt < page.from || entryAt >= page.end) {
          page = await this.#pages.page(entryAt);
        }
        const place = this.#place(page.view, entryAt - page.from, cluster);
        const to = Math.min(regionEnd, (cluster + 1) * this.clusterBytes);
        const skipped = place.kind === 'data' ? at % this.clusterBytes : 0;
        const run = { offset: at, length: to - at };
        yield place.kind === 'data'
          ? { ...run, kind: 'data', at: place.at + skipped }
          : { ...run, ...place };
        at = to;
      }
    }
  }

  /** Where the table of a region lies; 0: there is none. */
  async #table(region: number): Promise<number> {
    const at = this.#header.l1Offset + region * ENTRY_BYTES;
    const page = await this.#pages.page(at);
    const high = page.view.getUint32(at - page.from);
    const low = page.view.getUint32(at - page.from + 4);
    const place = (high & HIGH_PLACE) * 2 ** 32 + low;
    const isReserved = (high & HIGH_RESERVED_L1) !== 0 || (low & LOW_RESERVED_L1) !== 0;
    const isInside = place + this.clusterBytes <= this.#device.size;
    if (isReserved || place % this.clusterBytes !== 0 || (place !== 0 && !isInside)) {
      throw this.#corrupt(`first-level entry ${region}`, high, low);
    }
    return place;
  }

  #place(view: DataView, at: number, cluster: number): Place {
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    if (high === 0 && low === 0) return NONE;
    if ((high & HIGH_PACKED) !== 0) return this.#packed(high, low, cluster);
    const place = (high & HIGH_PLACE) * 2 ** 32 + (low - (low & LOW_RESERVED_L1));
    const isReserved = (high & HIGH_RESERVED_L2) !== 0 || (low & LOW_RESERVED_L2) !== 0;
    const isZero = (low & LOW_ZERO) !== 0;
    const isAligned = place % this.clusterBytes === 0;
    if (isReserved || !isAligned || (isZero && this.#header.version === 2)) {
      throw this.#corrupt(`the entry of cluster ${cluster}`, high, low);
    }
    if (isZero) return ZERO;
    if (place === 0) return NONE;
    // The last cluster of a file need not be whole: it was never written to its end.
    if (place >= this.#device.size)
      throw this.#corrupt(`the entry of cluster ${cluster}`, high, low);
    return { kind: 'data', at: place };
  }

  /** The lower bits are a byte position, the upper ones a number of sectors after the first. */
  #packed(high: number, low: number, cluster: number): Place {
    const sectorsBits = this.#header.clusterBits - 8;
    const placeBits = 62 - sectorsBits;
    const highBits = placeBits - 32;
    const place = (high & (2 ** highBits - 1)) * 2 ** 32 + low;
    const sectors = ((high & 0x3fffffff) >>> highBits) + 1;
    const packed = sectors * SECTOR_BYTES - (place % SECTOR_BYTES);
    if (place === 0 || place >= this.#device.size) {
      throw this.#corrupt(`the compressed entry of cluster ${cluster}`, high, low);
    }
    return { kind: 'packed', at: place, packed: Math.min(packed, this.#device.size - place) };
  }

  #corrupt(what: string, high: number, low: number): VarveError {
    const bits = ((BigInt(high) << 32n) | BigInt(low)).toString(16);
    const { name, size } = this.#device;
    return new VarveError('IMAGE_CORRUPT', `${name}, ${size} bytes: ${what} is 0x${bits}`);
  }
}

/** Both as one run, where they follow each other in the file too. */
function join(last: Run, next: Run): Run | undefined {
  const { offset } = last;
  const length = last.length + next.length;
  if (last.kind === 'data' && next.kind === 'data') {
    if (last.at + last.length !== next.at) return undefined;
    return { kind: 'data', offset, length, at: last.at };
  }
  if (last.kind === 'none' && next.kind === 'none') return { kind: 'none', offset, length };
  if (last.kind === 'zero' && next.kind === 'zero') return { kind: 'zero', offset, length };
  return undefined;
}
