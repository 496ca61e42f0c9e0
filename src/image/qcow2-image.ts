/**
 * A qcow2 image, versions 2 and 3, as its active layer shows it: clusters, compressed clusters,
 * zeros, and what it is based on. Internal snapshots are passed over.
 *
 * Invariant: memory is 2 MiB of tables, at most 8 MiB of clusters that were unpacked, and what reads
 * under way need, whatever the image claims.
 */
import { promisify } from 'node:util';
import { constants, inflateRaw } from 'node:zlib';
import { LRUCache } from 'lru-cache';
import { assert } from '../base/assert.ts';
import { VarveError } from '../base/errors.ts';
import { byteCount, byteOffset, type ByteCount, type ByteOffset } from '../base/units.ts';
import { STATE_HOLE, STATE_ZERO, type StatusRun } from '../device/block-device.ts';
import type { LowerDevice } from '../device/lower-device.ts';
import type { BaseImage, ImagePlugin } from './base-image.ts';
import { decodeQcow2, HEADER_READ_BYTES, type Qcow2Header } from './qcow2-header.ts';
import { Qcow2Map, type Run } from './qcow2-map.ts';

const inflate = promisify<Uint8Array, object, Buffer>(inflateRaw);

const UNPACKED_BYTES_MAX = 8 * 1024 ** 2;

function pushRun(runs: StatusRun[], length: number, flags: number): void {
  const last = runs.at(-1);
  if (last?.flags !== flags) runs.push({ length: byteCount(length), flags });
  else runs[runs.length - 1] = { length: byteCount(last.length + length), flags };
}

class Qcow2Image implements BaseImage {
  readonly format = 'qcow2';
  readonly size: ByteCount;
  readonly files: readonly string[];
  readonly #device: LowerDevice;
  readonly #backing: BaseImage | undefined;
  readonly #map: Qcow2Map;
  /** By place in the file. */
  readonly #unpacked = new LRUCache<number, Promise<Uint8Array>>({
    maxSize: UNPACKED_BYTES_MAX,
    sizeCalculation: () => this.#map.clusterBytes,
  });

  constructor(device: LowerDevice, header: Qcow2Header, backing: BaseImage | undefined) {
    this.size = header.size;
    this.files = [device.name, ...(backing?.files ?? [])];
    this.#device = device;
    this.#backing = backing;
    this.#map = new Qcow2Map(device, header);
  }

  async read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    assert(offset + target.length <= this.size, 'what is asked for lies inside the disk');
    for await (const run of this.#map.runs(offset, target.length)) {
      const from = run.offset - offset;
      await this.#fill(run, target.subarray(from, from + run.length));
    }
  }

  async #fill(run: Run, part: Uint8Array): Promise<void> {
    switch (run.kind) {
      case 'none': {
        const below = Math.max(0, Math.min(part.length, (this.#backing?.size ?? 0) - run.offset));
        part.fill(0, below);
        if (below > 0) await this.#backing?.read(byteOffset(run.offset), part.subarray(0, below));
        return;
      }
      case 'zero':
        part.fill(0);
        return;
      case 'data': {
        const inFile = Math.max(0, Math.min(part.length, this.#device.size - run.at));
        part.fill(0, inFile);
        if (inFile === 0) return;
        await this.#device.read(byteOffset(run.at), part.subarray(0, inFile));
        return;
      }
      case 'packed': {
        const skipped = run.offset % this.#map.clusterBytes;
        const whole = await this.#unpack(run.at, run.packed);
        part.set(whole.subarray(skipped, skipped + part.length));
      }
    }
  }

  #unpack(at: number, packed: number): Promise<Uint8Array> {
    const known = this.#unpacked.get(at);
    if (known !== undefined) return known;
    const unpacking = this.#unpackNow(at, packed);
    this.#unpacked.set(at, unpacking);
    unpacking.catch(() => this.#unpacked.delete(at));
    return unpacking;
  }

  async #unpackNow(at: number, packed: number): Promise<Uint8Array> {
    const { clusterBytes } = this.#map;
    const source = new Uint8Array(packed);
    await this.#device.read(byteOffset(at), source);
    const where = `${this.#device.name}: the compressed cluster at byte ${at}`;
    let whole: Buffer;
    try {
      // What follows the stream up to the end of its sector is not its own.
      const finishFlush = constants.Z_SYNC_FLUSH;
      whole = await inflate(source, { maxOutputLength: clusterBytes, finishFlush });
    } catch (error) {
      throw new VarveError('IMAGE_CORRUPT', `${where}: ${String(error)}`, { cause: error });
    }
    if (whole.length === clusterBytes) return whole;
    throw new VarveError('IMAGE_CORRUPT', `${where} has ${whole.length} bytes of ${clusterBytes}`);
  }

  async extents(
    offset: ByteOffset,
    length: ByteCount,
    runsMax: number,
  ): Promise<readonly StatusRun[]> {
    assert(offset + length <= this.size, 'what is asked for lies inside the disk');
    const found: StatusRun[] = [];
    for await (const run of this.#map.runs(offset, length)) {
      if (run.kind !== 'none') pushRun(found, run.length, run.kind === 'zero' ? STATE_ZERO : 0);
      else if (!(await this.#below(found, run, runsMax))) break;
      if (found.length > runsMax) break;
    }
    return found.slice(0, runsMax);
  }

  /** @returns false when what lies below has not said all of it */
  async #below(found: StatusRun[], { offset, length }: Run, runsMax: number): Promise<boolean> {
    const below = Math.max(0, Math.min(length, (this.#backing?.size ?? 0) - offset));
    let done = 0;
    if (this.#backing !== undefined && below > 0) {
      const asked = [byteOffset(offset), byteCount(below)] as const;
      for (const run of await this.#backing.extents(...asked, runsMax)) {
        pushRun(found, run.length, run.flags);
        done += run.length;
      }
      if (done < below) return false;
    }
    if (length > below) pushRun(found, length - below, STATE_HOLE | STATE_ZERO);
    return true;
  }

  async close(): Promise<void> {
    await this.#device.close();
    await this.#backing?.close();
  }
}

export const qcow2Plugin: ImagePlugin = {
  async open(device, openBacking) {
    const first = new Uint8Array(Math.min(HEADER_READ_BYTES, device.size));
    await device.read(byteOffset(0), first);
    let header: Qcow2Header;
    try {
      header = decodeQcow2(first, device.size);
    } catch (error) {
      if (!(error instanceof VarveError)) throw error;
      throw new VarveError(error.code, `${device.name}: ${error.detail}`, { cause: error });
    }
    const { backing } = header;
    return new Qcow2Image(device, header, backing && (await openBacking(backing)));
  },
};
