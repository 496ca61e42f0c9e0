/**
 * Copying a whole device out to a file, or a file in: sparse both ways, several pieces at a time.
 *
 * Invariants:
 *   - Every byte of the range is read from the source, or known from it to be zero, or named as
 *     unreadable.
 *   - When it fails, no copying goes on behind the caller's back.
 */
import { BLOCK_BYTES, byteCount, byteOffset, mebibytes, type ByteCount } from '../base/units.ts';
import {
  isUnreadable,
  mergedRanges,
  UnreadableError,
  type UnreadableRange,
} from '../base/unreadable.ts';
import { STATE_ZERO, type BlockDevice } from '../device/block-device.ts';
import type { LowerDevice } from '../device/lower-device.ts';
import { isZero } from '../device/zeros.ts';
import type { Progress } from '../volume/report.ts';

const PIECE_BYTES: ByteCount = mebibytes(1);
const PIECES_IN_FLIGHT = 8;
/** What one question about holes may cover, and how many runs its answer has. */
const STATUS_BYTES: ByteCount = mebibytes(1024);
const STATUS_RUNS_MAX = 1024;
const ALLOCATION = 'base:allocation';

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

/** Splits bytes into runs of whole zero blocks and runs of others. */
function* runsOf(bytes: Uint8Array): Generator<Range & { readonly isZero: boolean }> {
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

/** Ranges that may hold data, in order. */
async function* dataRanges(device: BlockDevice): AsyncGenerator<Range, void> {
  const known = (await device.contexts(ALLOCATION)).includes(ALLOCATION);
  for (let at = 0; at < device.size;) {
    const length = Math.min(STATUS_BYTES, device.size - at);
    if (!known) {
      yield { offset: at, length };
      at += length;
      continue;
    }
    const asked = [byteOffset(at), byteCount(length)] as const;
    for (const run of await device.status(ALLOCATION, ...asked, STATUS_RUNS_MAX)) {
      const inside = Math.min(run.length, device.size - at);
      if ((run.flags & STATE_ZERO) === 0) yield { offset: at, length: inside };
      at += inside;
    }
  }
}

async function* piecesOf(ranges: AsyncGenerator<Range, void>): AsyncGenerator<Range, void> {
  for await (const { offset, length } of ranges) {
    for (let done = 0; done < length; done += PIECE_BYTES) {
      yield { offset: offset + done, length: Math.min(PIECE_BYTES, length - done) };
    }
  }
}

export interface CopyOptions {
  /** What can't be read is left as zeros, and named; else the copy ends there. */
  readonly keepGoing: boolean;
}

export interface Copied {
  /** Bytes that were not zero. */
  readonly dataBytes: ByteCount;
  /** Ascending, apart from each other. */
  readonly unreadable: readonly UnreadableRange[];
}

/**
 * @param target - reads as zeros, and is as long as the device; the caller syncs
 * @throws UnreadableError that names the first bad block, unless told to keep going
 */
export async function copyOut(
  device: BlockDevice,
  target: LowerDevice,
  progress: Progress,
  { keepGoing }: CopyOptions = { keepGoing: false },
): Promise<Copied> {
  let written = 0;
  const unreadable: UnreadableRange[] = [];
  await workThrough(piecesOf(dataRanges(device)), async ({ offset, length }) => {
    const bytes = new Uint8Array(length);
    const bad = await readPiece(device, offset, bytes);
    const [first] = bad;
    if (first !== undefined && !keepGoing) {
      const why = `at byte ${first.offset}, ${first.length} bytes: ${first.why}`;
      throw new UnreadableError('BLOCK_CORRUPT', [{ ...first, why }]);
    }
    unreadable.push(...bad);
    for (const run of runsOf(bytes)) {
      if (run.isZero) continue;
      const part = bytes.subarray(run.offset, run.offset + run.length);
      await target.write(byteOffset(offset + run.offset), [part]);
      written += run.length;
    }
    progress(offset + length, device.size);
  });
  unreadable.sort((one, other) => one.offset - other.offset);
  return { dataBytes: byteCount(written), unreadable: mergedRanges(unreadable) };
}

/** Fills `bytes`. @returns what could not be read, which is left as zeros */
async function readPiece(
  device: BlockDevice,
  offset: number,
  bytes: Uint8Array,
): Promise<readonly UnreadableRange[]> {
  try {
    await device.read(byteOffset(offset), bytes);
    return [];
  } catch (error) {
    if (error instanceof UnreadableError) return error.ranges;
    if (!isUnreadable(error)) throw error;
  }
  // A server that does not say where: each block is asked for by itself.
  const bad: UnreadableRange[] = [];
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
    const block = bytes.subarray(at, Math.min(at + BLOCK_BYTES, bytes.length));
    try {
      await device.read(byteOffset(offset + at), block);
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      block.fill(0);
      const [from, length] = [byteOffset(offset + at), byteCount(block.length)];
      bad.push({ offset: from, length, why: error.detail });
    }
  }
  return bad;
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
    for (const run of runsOf(bytes)) {
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
