/**
 * Copying a file into a device, sparse, several pieces at a time.
 *
 * Invariant: when it fails, no copying goes on behind the caller's back.
 */
import { byteCount, byteOffset, mebibytes, type ByteCount } from '../base/units.ts';
import type { BlockDevice } from '../device/block-device.ts';
import type { LowerDevice } from '../device/lower-device.ts';
import { contentRuns } from '../image/image-writer.ts';
import type { Progress } from '../volume/report.ts';

const PIECE_BYTES: ByteCount = mebibytes(1);
const PIECES_IN_FLIGHT = 8;

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

/** Content of a file in order; neighbouring zeros are one piece, however long. */
async function* contentOf(
  source: LowerDevice,
  progress: Progress,
): AsyncGenerator<DataPiece | ZeroPiece, void> {
  let zeroFrom = 0;
  let zeroLength = 0;
  for (let at = 0; at < source.size; at += PIECE_BYTES) {
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
    progress(at + bytes.length, source.size);
  }
  if (zeroLength > 0) yield { kind: 'zero', offset: zeroFrom, length: zeroLength };
}

/**
 * Writes the source over the beginning of the device, and flushes; what lies behind it stays.
 * @param source - not longer than the device
 */
export async function copyIn(
  source: LowerDevice,
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
