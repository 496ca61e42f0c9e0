/** Zeros: writing many of them, and telling whether there is anything else. */
import { byteCount, byteOffset, type ByteCount } from '../base/units.ts';
import type { LowerDevice } from './lower-device.ts';

const PIECE_BYTES = 1024 ** 2;
/** Shared by all who write zeros; never written itself. */
const ZEROS = new Uint8Array(PIECE_BYTES);

/** Pieces in one write of `allocateZeroed`. */
const PIECES_AT_ONCE = 4;

export function isZero(bytes: Uint8Array): boolean {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < view.length; at += PIECE_BYTES) {
    const part = view.subarray(at, at + PIECE_BYTES);
    if (part.compare(ZEROS, 0, part.length) !== 0) return false;
  }
  return true;
}

/** Writes zeros over the range, piece after piece. */
export async function writeZeros(
  offset: number,
  length: number,
  write: (offset: number, source: Uint8Array) => Promise<void>,
): Promise<void> {
  for (let done = 0; done < length; done += PIECE_BYTES) {
    const source = length - done < PIECE_BYTES ? ZEROS.subarray(0, length - done) : ZEROS;
    await write(offset + done, source);
  }
}

/**
 * Writes real zeros over the whole device, so that its space is its own: an overwrite later can't
 * meet a full disk, and syncs faster than an extension. The caller syncs.
 * @param progress - called after each piece with the bytes done so far; may throw to stop
 */
export async function allocateZeroed(
  device: LowerDevice,
  progress: (done: ByteCount) => void = () => undefined,
): Promise<void> {
  for (let done = 0; done < device.size;) {
    const sources: Uint8Array[] = [];
    const from = done;
    while (sources.length < PIECES_AT_ONCE && done < device.size) {
      const length = Math.min(PIECE_BYTES, device.size - done);
      sources.push(ZEROS.subarray(0, length));
      done += length;
    }
    await device.write(byteOffset(from), sources);
    progress(byteCount(done));
  }
}
