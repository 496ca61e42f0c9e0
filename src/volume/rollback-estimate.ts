/** What a rollback puts into the log, counted beforehand, and whether that fits. */
import { VarveError } from '../base/errors.ts';
import { BLOCK_BYTES, byteCount, type ByteCount, type Generation } from '../base/units.ts';
import { segmentBlocksSure } from '../../log/geometry.ts';
import type { Core } from './core.ts';
import type { Piece } from './differing.ts';
import { RANGE_RECORDS_MAX } from './water.ts';

/** Headers that one request may bring, when nothing else is in its batches. */
const HEADERS_MAX = 2;
/** Records of the beginning and the end, a lineage, and their headers. */
const RECORD_BLOCKS = 12;

export class Estimate {
  dataBlocks = 0;
  zeroBlocks = 0;
  /** What was free when it was made; see `freeBytes`. */
  freeBytes = byteCount(0);
  #requests = 0;
  #ranges = 0;

  add({ kind, count }: Piece): void {
    this.#requests += 1;
    if (kind === 'data') this.dataBlocks += count;
    else {
      this.zeroBlocks += count;
      this.#ranges += 1;
    }
  }

  /** Nothing differs. */
  get isNothing(): boolean {
    return this.#requests === 0;
  }

  /** At most so many bytes of stream. */
  get logBytes(): ByteCount {
    if (this.isNothing) return byteCount(0);
    const headers = this.#requests * HEADERS_MAX + RECORD_BLOCKS;
    return byteCount((this.dataBlocks + headers) * BLOCK_BYTES);
  }

  /**
   * What can be put while the moment is read: what is free, and what rounds free up to the moment;
   * less one segment, which stays for what others put (snapshots, marks).
   */
  measure(core: Core, target: Generation): void {
    const { stream, segments, geometry } = core.log;
    const sure = (segmentBlocksSure(geometry) - 1) * BLOCK_BYTES;
    const limit = core.heldBack ?? target;
    let bytes = stream.writableBytes - sure;
    for (const segment of segments.live) {
      if (segment.endLsn === undefined || segment.lastGeneration > limit) break;
      bytes += sure;
    }
    this.freeBytes = byteCount(Math.max(0, bytes));
  }

  /** @throws VarveError ROLLBACK_TOO_BIG */
  needRoom(core: Core, target: Generation): void {
    if (this.isNothing) return;
    const free = this.freeBytes;
    if (this.logBytes > free) {
      throw new VarveError(
        'ROLLBACK_TOO_BIG',
        `${this.logBytes} bytes of log are needed, ${free} are free while generation ${target} is read`,
      );
    }
    const ranges = RANGE_RECORDS_MAX - core.index.rangeRecords;
    if (this.#ranges < ranges) return;
    throw new VarveError(
      'ROLLBACK_TOO_BIG',
      `${this.#ranges} ranges of zeros are to be put, the index has room for ${ranges}`,
    );
  }
}
