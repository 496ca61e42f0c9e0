/**
 * The port to a disk image that is being written: the disk comes in order, a window at a time, and
 * the writer says where it is, so that another process can go on from there.
 *
 * Invariant: `finish` alone makes the file one that a reader of its format takes for an image.
 */
import {
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  type ByteCount,
  type ByteOffset,
} from '../base/units.ts';
import type { StatusRun } from '../device/block-device.ts';
import type { LowerDevice } from '../device/lower-device.ts';
import { isZero } from '../device/zeros.ts';

/** Windows begin at multiples of this many bytes; none is longer, but one that is one hole. */
export const WINDOW_BYTES = 1024 ** 2;

export interface ImageWindow {
  readonly offset: ByteOffset;
  readonly length: ByteCount;
  /** The content; undefined where there is no data, so that all of it reads as zeros. */
  readonly bytes: Uint8Array | undefined;
  /** STATE_HOLE and STATE_ZERO, run by run; they add up to the length. */
  readonly runs: readonly StatusRun[];
}

/** Where the next window goes, in the format's own terms; no meaning in a raw file. */
export interface ImagePlace {
  /** Everything from here on is free. */
  readonly fileEnd: ByteOffset;
  /** The table that is being filled; 0: none. */
  readonly table: ByteOffset;
}

export interface ImageWriter {
  /**
   * Takes the next window; each begins where the one before it ended. What fails changes nothing
   * that `flush` would tell of.
   * @returns bytes written of it
   */
  put(window: ImageWindow): Promise<ByteCount>;
  /**
   * Writes what is still in memory. The caller syncs.
   * @param done - where the next window begins
   */
  flush(done: ByteOffset): Promise<ImagePlace>;
  /** Makes it an image, durable. */
  finish(): Promise<void>;
}

/** Splits bytes into runs of whole zero blocks and runs of others. */
export function* contentRuns(
  bytes: Uint8Array,
): Generator<{ readonly offset: number; readonly length: number; readonly isZero: boolean }> {
  let from = 0;
  let zero: boolean | undefined;
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
    const now = isZero(bytes.subarray(at, at + BLOCK_BYTES));
    if (zero !== undefined && now !== zero) {
      yield { offset: from, length: at - from, isZero: zero };
      from = at;
    }
    zero = now;
  }
  if (zero !== undefined) yield { offset: from, length: bytes.length - from, isZero: zero };
}

/** The bytes themselves, holes where there are zeros. */
export class RawWriter implements ImageWriter {
  readonly #device: LowerDevice;

  /** @param device - reads as zeros, or as the same disk, and is as long as it */
  constructor(device: LowerDevice) {
    this.#device = device;
  }

  async put({ offset, bytes }: ImageWindow): Promise<ByteCount> {
    let written = 0;
    if (bytes === undefined) return byteCount(0);
    for (const run of contentRuns(bytes)) {
      if (run.isZero) continue;
      const part = bytes.subarray(run.offset, run.offset + run.length);
      await this.#device.write(byteOffset(offset + run.offset), [part]);
      written += run.length;
    }
    return byteCount(written);
  }

  flush(): Promise<ImagePlace> {
    return Promise.resolve({ fileEnd: byteOffset(0), table: byteOffset(0) });
  }

  async finish(): Promise<void> {
    await this.#device.sync('export');
  }
}
