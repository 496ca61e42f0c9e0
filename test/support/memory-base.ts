/** What a volume is based on, in memory: with holes and zeros where its bytes are zeros. */
import { assert } from '../../src/base/assert.ts';
import { byteCount, type ByteCount, type ByteOffset } from '../../src/base/units.ts';
import { STATE_HOLE, STATE_ZERO, type StatusRun } from '../../src/device/block-device.ts';
import { isZero } from '../../src/device/zeros.ts';
import type { BaseDisk } from '../../src/volume/base-disk.ts';
import type { SeededRandom } from '../sim/random.ts';

const SECTOR_BYTES = 512;
const STRETCH_SECTORS_MAX = 400;

export class MemoryBase implements BaseDisk {
  readonly size: ByteCount;
  readonly bytes: Uint8Array;
  reads = 0;
  /** Awaited ahead of each read. */
  beforeRead: (offset: number, length: number) => Promise<void> = () => Promise.resolve();

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.size = byteCount(bytes.length);
  }

  /** Stretches of data, zeros and single sectors of data, up to `bytesMax`, at any end. */
  static of(random: SeededRandom, bytesMax: number): MemoryBase {
    const bytes = new Uint8Array(random.chance(0.5) ? bytesMax : 1 + random.below(bytesMax));
    for (let at = 0; at < bytes.length;) {
      const sectors = random.chance(0.3) ? 1 : 1 + random.below(STRETCH_SECTORS_MAX);
      const end = Math.min(bytes.length, at + sectors * SECTOR_BYTES);
      if (random.chance(0.5)) bytes.set(random.bytes(end - at), at);
      at = end;
    }
    return new MemoryBase(bytes);
  }

  async read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    assert(offset + target.length <= this.size, 'what is read lies inside the base');
    this.reads += 1;
    await this.beforeRead(offset, target.length);
    target.set(this.bytes.subarray(offset, offset + target.length));
  }

  extents(offset: ByteOffset, length: ByteCount, runsMax: number): Promise<readonly StatusRun[]> {
    assert(offset + length <= this.size, 'what is asked for lies inside the base');
    const runs: { length: ByteCount; flags: number }[] = [];
    for (let at = Number(offset); at < offset + length;) {
      const sector = Math.floor(at / SECTOR_BYTES);
      const end = Math.min(offset + length, (sector + 1) * SECTOR_BYTES);
      // Some zeros are no hole.
      const zeros = sector % 64 < 48 ? STATE_ZERO | STATE_HOLE : STATE_ZERO;
      const flags = isZero(this.bytes.subarray(at, end)) ? zeros : 0;
      const last = runs.at(-1);
      if (last !== undefined && last.flags === flags)
        last.length = byteCount(last.length + end - at);
      else if (runs.length === runsMax) break;
      else runs.push({ length: byteCount(end - at), flags });
      at = end;
    }
    return Promise.resolve(runs);
  }
}
