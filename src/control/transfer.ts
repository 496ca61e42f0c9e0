/**
 * Copying the disk of an image into a device, sparse, several pieces at a time.
 *
 * Invariant: when it fails, no copying goes on behind the caller's back.
 */
import { byteCount, byteOffset, mebibytes, type ByteCount } from '../base/units.ts';
import { STATE_ZERO, type BlockDevice } from '../device/block-device.ts';
import type { BaseImage } from '../image/base-image.ts';
import { contentRuns } from '../image/image-writer.ts';
import type { Progress } from '../volume/report.ts';

const PIECE_BYTES: ByteCount = mebibytes(1);
const PIECES_IN_FLIGHT = 8;
/** What one question about zeros may cover, and how many runs its answer has. */
const EXTENTS_BYTES: ByteCount = mebibytes(1024);
const EXTENTS_MAX = 1024;

interface Range {
  readonly offset: number;
  readonly length: number;
}

interface DataPiece extends Range {
  readonly kind: 'data';
  readonly bytes: Uint8Array;
}

interface ZeroPiece extends Range {
  readonly kind: 'zero';
}

/** Works on several items at once; after a failure nothing new is begun. */
async function workThrough<T>(
  items: AsyncGenerator<T, void>,
  work: (item: T) => Promise<void>,
): Promise<void> {
  let failed = false;
  const worker = async (): Promise<void> => {
    try {
      while (!failed) {
        const next = await items.next();
        if (next.done === true) return;
        await work(next.value);
      }
    } catch (error) {
      failed = true;
      throw error;
    }
  };
  const ends = await Promise.allSettled(Array.from({ length: PIECES_IN_FLIGHT }, worker));
  for (const end of ends) if (end.status === 'rejected') throw end.reason;
}

/** How many bytes at `at` are known to be zeros; they end where a piece does, or the disk. */
async function zerosAt(source: BaseImage, at: number): Promise<number> {
  // First as far as will be read, since most answers end there.
  for (const asked of [PIECE_BYTES, EXTENTS_BYTES]) {
    const length = byteCount(Math.min(asked, source.size - at));
    let zeros = 0;
    for (const run of await source.extents(byteOffset(at), length, EXTENTS_MAX)) {
      if ((run.flags & STATE_ZERO) === 0) break;
      zeros += run.length;
    }
    if (at + zeros === source.size) return zeros;
    if (zeros < PIECE_BYTES || asked === EXTENTS_BYTES) {
      return Math.floor(zeros / PIECE_BYTES) * PIECE_BYTES;
    }
  }
  return 0;
}

/** Content of a disk in order; neighbouring zeros are one piece, however long. */
async function* contentOf(
  source: BaseImage,
  progress: Progress,
): AsyncGenerator<DataPiece | ZeroPiece, void> {
  let zeroFrom = 0;
  let zeroLength = 0;
  for (let at = 0; at < source.size;) {
    const zeros = await zerosAt(source, at);
    if (zeros > 0) {
      if (zeroLength === 0) zeroFrom = at;
      zeroLength += zeros;
      at += zeros;
      progress(byteCount(at), source.size);
      continue;
    }
    const bytes = new Uint8Array(Math.min(PIECE_BYTES, source.size - at));
    await source.read(byteOffset(at), bytes);
    for (const run of contentRuns(bytes)) {
      const offset = at + run.offset;
      if (run.isZero) {
        if (zeroLength === 0) zeroFrom = offset;
        zeroLength += run.length;
        continue;
      }
      if (zeroLength > 0) yield { kind: 'zero', offset: zeroFrom, length: zeroLength };
      zeroLength = 0;
      const part = bytes.subarray(run.offset, run.offset + run.length);
      yield { kind: 'data', offset, length: run.length, bytes: part };
    }
    at += bytes.length;
    progress(byteCount(at), source.size);
  }
  if (zeroLength > 0) yield { kind: 'zero', offset: zeroFrom, length: zeroLength };
}

/**
 * Writes the source over the beginning of the device, and flushes; what lies behind it stays.
 * @param source - not longer than the device
 */
export async function copyIn(
  source: BaseImage,
  device: BlockDevice,
  progress: Progress,
): Promise<void> {
  await workThrough(contentOf(source, progress), async (piece) => {
    const offset = byteOffset(piece.offset);
    switch (piece.kind) {
      case 'data':
        await device.write(offset, piece.bytes, { fua: false });
        break;
      case 'zero':
        await device.zero(offset, byteCount(piece.length), { fua: false, allocate: false });
        break;
    }
  });
  await device.flush();
}
