/**
 * A device read from one end to the other in windows, some of them ahead of the one that is asked
 * for.
 *
 * Invariants:
 *   - Windows follow each other without a gap, up to the end of the device.
 *   - Every byte is read from the source, or known from it to be zero, or named as unreadable.
 *   - When the reader stops, early or not, nothing goes on being read.
 */
import { BLOCK_BYTES, byteCount, byteOffset, mebibytes, type ByteCount } from '../base/units.ts';
import { isUnreadable, UnreadableError, type UnreadableRange } from '../base/unreadable.ts';
import {
  STATE_HOLE,
  STATE_ZERO,
  type BlockDevice,
  type StatusRun,
} from '../device/block-device.ts';
import { WINDOW_BYTES, type ImageWindow } from '../image/image-writer.ts';

const READS_IN_FLIGHT = 8;
/** What one question about holes may cover, and how many runs its answer has. */
const STATUS_BYTES: ByteCount = mebibytes(1024);
const STATUS_RUNS_MAX = 1024;
const ALLOCATION = 'base:allocation';

interface Extent {
  readonly offset: number;
  readonly length: number;
  readonly flags: number;
}

export interface ReadWindow extends ImageWindow {
  /** Read as zeros in `bytes`. */
  readonly unreadable: readonly UnreadableRange[];
}

/** What is known of the device's content, in order; some of it may be said in several parts. */
async function* extentsOf(device: BlockDevice, from: number): AsyncGenerator<Extent, void> {
  const isKnown = (await device.contexts(ALLOCATION)).includes(ALLOCATION);
  for (let at = from; at < device.size;) {
    const length = Math.min(STATUS_BYTES, device.size - at);
    if (!isKnown) {
      yield { offset: at, length, flags: 0 };
      at += length;
      continue;
    }
    const asked = [byteOffset(at), byteCount(length)] as const;
    for (const run of await device.status(ALLOCATION, ...asked, STATUS_RUNS_MAX)) {
      const inside = Math.min(run.length, device.size - at);
      yield { offset: at, length: inside, flags: run.flags & (STATE_HOLE | STATE_ZERO) };
      at += inside;
    }
  }
}

type Plan = Omit<ImageWindow, 'bytes'>;

function hasData({ runs }: Plan): boolean {
  return runs.some(({ flags }) => (flags & STATE_ZERO) === 0);
}

/** @param from - a multiple of WINDOW_BYTES, or the device's end */
async function* plansOf(device: BlockDevice, from: number): AsyncGenerator<Plan, void> {
  let start = from;
  let runs: StatusRun[] = [];
  for await (const { offset, length, flags } of extentsOf(device, from)) {
    for (let at = offset; at < offset + length;) {
      const left = offset + length - at;
      const isSkipped = runs.length === 0 && flags === (STATE_HOLE | STATE_ZERO);
      const whole = isSkipped ? Math.floor(left / WINDOW_BYTES) * WINDOW_BYTES : 0;
      const part = whole > 0 ? whole : Math.min(left, start + WINDOW_BYTES - at);
      runs.push({ length: byteCount(part), flags });
      at += part;
      if (whole === 0 && at < start + WINDOW_BYTES && at < device.size) continue;
      yield { offset: byteOffset(start), length: byteCount(at - start), runs };
      start = at;
      runs = [];
    }
  }
}

async function readWindow(device: BlockDevice, plan: Plan): Promise<ReadWindow> {
  if (!hasData(plan)) return { ...plan, bytes: undefined, unreadable: [] };
  const bytes = new Uint8Array(plan.length);
  const unreadable: UnreadableRange[] = [];
  let at = 0;
  for (const { length, flags } of plan.runs) {
    if ((flags & STATE_ZERO) === 0) {
      const part = bytes.subarray(at, at + length);
      unreadable.push(...(await readPiece(device, plan.offset + at, part)));
    }
    at += length;
  }
  return { ...plan, bytes, unreadable };
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

/** @param from - a multiple of WINDOW_BYTES, or the device's end */
export async function* windowsOf(
  device: BlockDevice,
  from: number,
): AsyncGenerator<ReadWindow, void> {
  const plans = plansOf(device, from);
  const ahead: Promise<ReadWindow>[] = [];
  try {
    for await (const plan of plans) {
      const reading = readWindow(device, plan);
      // It is waited for in its turn; until then a failure is nobody's.
      reading.catch(() => undefined);
      ahead.push(reading);
      if (ahead.length < READS_IN_FLIGHT) continue;
      const next = ahead.shift();
      if (next !== undefined) yield await next;
    }
    for (let next = ahead.shift(); next !== undefined; next = ahead.shift()) yield await next;
  } finally {
    await Promise.allSettled(ahead);
  }
}
