/** A read-only device whose content is said by extents, so that it may be far larger than memory. */
import { VarveError } from '../../src/base/errors.ts';
import { byteCount, type ByteCount } from '../../src/base/units.ts';
import {
  STATE_HOLE,
  STATE_ZERO,
  type BlockDevice,
  type StatusRun,
} from '../../src/device/block-device.ts';
import { UnreadableError } from '../../src/base/unreadable.ts';
import { byteOffset } from '../../src/base/units.ts';

export interface Extent {
  readonly offset: number;
  readonly length: number;
  /** `blank`: allocated, and zeros all the same, as after a write of zeros. */
  readonly kind: 'data' | 'blank' | 'zero' | 'unreadable';
}

/** The byte of `data` at a place: never zero, and not the same at places that are near each other. */
export function patternByte(at: number): number {
  return 1 + ((at + Math.floor(at / 4096) * 7 + Math.floor(at / 2 ** 20) * 31) % 255);
}

export class PatternDevice implements BlockDevice {
  readonly size: ByteCount;
  readonly readOnly = true;
  readonly requestBytesMax = byteCount(32 * 2 ** 20);
  readonly extents: readonly Extent[];
  /** Reads that were begun and have not ended. */
  reading = 0;

  /** @param extents - ascending, apart from each other; the rest are holes */
  constructor(size: number, extents: readonly Extent[]) {
    this.size = byteCount(size);
    this.extents = extents;
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    this.reading += 1;
    // Answers come late, and not all at once.
    for (let turns = (offset / 4096) % 5; turns > 0; turns -= 1) await Promise.resolve();
    this.reading -= 1;
    target.fill(0);
    const bad = [];
    for (const extent of this.extents) {
      const from = Math.max(extent.offset, offset);
      const to = Math.min(extent.offset + extent.length, offset + target.length);
      if (to <= from) continue;
      if (extent.kind === 'unreadable') {
        bad.push({ offset: byteOffset(from), length: byteCount(to - from), why: 'planned' });
      }
      if (extent.kind !== 'data') continue;
      for (let at = from; at < to; at += 1) target[at - offset] = patternByte(at);
    }
    if (bad.length > 0) throw new UnreadableError('BLOCK_CORRUPT', bad);
  }

  status(
    _context: string,
    offset: number,
    length: number,
    runsMax: number,
  ): Promise<readonly StatusRun[]> {
    const runs: StatusRun[] = [];
    let at = offset;
    const push = (to: number, flags: number): void => {
      const end = Math.min(to, offset + length);
      if (end > at) runs.push({ length: byteCount(end - at), flags });
      at = Math.max(at, end);
    };
    for (const extent of this.extents) {
      if (extent.offset + extent.length <= at) continue;
      push(extent.offset, STATE_HOLE | STATE_ZERO);
      push(extent.offset + extent.length, extent.kind === 'zero' ? STATE_ZERO : 0);
    }
    push(this.size, STATE_HOLE | STATE_ZERO);
    return Promise.resolve(runs.slice(0, runsMax));
  }

  contexts(): Promise<readonly string[]> {
    return Promise.resolve(['base:allocation']);
  }

  write(): never {
    throw new VarveError('READ_ONLY', 'a pattern');
  }

  trim(): never {
    throw new VarveError('READ_ONLY', 'a pattern');
  }

  zero(): never {
    throw new VarveError('READ_ONLY', 'a pattern');
  }

  flush(): undefined {
    return undefined;
  }

  cache(): undefined {
    return undefined;
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
