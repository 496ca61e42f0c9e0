/** Bytes that a fault left on a disk, and what should be there: healing puts it there. */
import type { SimDisk } from '../../test/sim/sim-disk.ts';
import type { DiskName } from './oracle.ts';

export const SECTOR_BYTES = 512;

export class Scar {
  readonly disk: DiskName;
  readonly #offset: number;
  readonly #left: Uint8Array;
  readonly #right: Uint8Array;
  readonly #overwritten = new Set<number>();

  /**
   * @param left - what the fault left there
   * @param right - what should be there
   */
  constructor(disk: DiskName, offset: number, left: Uint8Array, right: Uint8Array) {
    this.disk = disk;
    this.#offset = offset;
    this.#left = left;
    this.#right = right;
  }

  /** Whether it touches the range. */
  touches(offset: number, end: number): boolean {
    return this.#offset < end && offset < this.#offset + this.#left.length;
  }

  /** Whether the fault left zeros, and nothing else, in all of this range. */
  blanks(offset: number, length: number): boolean {
    const from = offset - this.#offset;
    if (from < 0 || from + length > this.#left.length) return false;
    return this.#left.subarray(from, from + length).every((byte) => byte === 0);
  }

  /** Something new was written there since; a cut may take it back all the same. */
  overwritten(offset: number, length: number): void {
    for (let at = 0; at < this.#left.length; at += SECTOR_BYTES) {
      const sector = this.#offset + at;
      if (sector < offset + length && offset < sector + SECTOR_BYTES) this.#overwritten.add(at);
    }
  }

  /**
   * Mends the sectors that are still as the fault left them.
   * @returns false when that can't be told: the same was written since, such as zeros, or the rest of
   *   a block of which a client changed a part; and a cut may have taken that back
   */
  heal(disk: SimDisk): boolean {
    let isSure = true;
    const now = new Uint8Array(this.#left.length);
    disk.platter.read(this.#offset, now);
    for (let at = 0; at < now.length; at += SECTOR_BYTES) {
      const end = Math.min(now.length, at + SECTOR_BYTES);
      const left = this.#left.subarray(at, end);
      if (Buffer.compare(now.subarray(at, end), left) !== 0) continue;
      if (this.#overwritten.has(at)) isSure = false;
      else disk.corrupt(this.#offset + at, this.#right.subarray(at, end));
    }
    return isSure;
  }
}
