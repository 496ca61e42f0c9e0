/**
 * What recovery makes lasting: what was taken is written again where nothing states that it was
 * durable, and what was not taken is erased. The caller syncs, once.
 *
 * Any part of it may survive a cut: the same bytes change nothing, and what is erased was not on
 * the way that replay went.
 */
import { BLOCK_BYTES, byteOffset } from '../src/base/units.ts';
import type { LowerDevice } from '../src/device/lower-device.ts';
import { slotOffset, type LogGeometry } from './geometry.ts';
import type { Replayed } from './replay.ts';

const COPY_BYTES = 1024 * 1024;
/** A slot's header, and the header of its first batch: no replay looks into such a slot. */
const SLOT_START = new Uint8Array(2 * BLOCK_BYTES);

/** The same bytes at the same places: what only the page cache holds reaches the device. */
export async function writeAgain(device: LowerDevice, replayed: Replayed): Promise<void> {
  for (const { offset, length } of replayed.doubtful) {
    for (let at = 0; at < length; at += COPY_BYTES) {
      const bytes = new Uint8Array(Math.min(COPY_BYTES, length - at));
      await device.read(byteOffset(offset + at), bytes);
      await device.write(byteOffset(offset + at), [bytes]);
    }
  }
}

/**
 * Makes a cut lasting: the beginnings of discarded segments, headers of batches, and a summary that
 * may list more than the open segment still holds, so that no later replay meets them.
 */
export async function erase(
  device: LowerDevice,
  geometry: LogGeometry,
  replayed: Replayed,
): Promise<void> {
  for (const slot of replayed.discarded) {
    await device.write(slotOffset(geometry, slot), [SLOT_START]);
  }
  const zeros = SLOT_START.subarray(0, BLOCK_BYTES);
  for (const at of replayed.cut?.headers ?? []) await device.write(at, [zeros]);
  const open = replayed.segments.at(-1);
  if (open === undefined) return;
  const start = slotOffset(geometry, open.slot);
  const used = start + BLOCK_BYTES + (replayed.endLsn - open.firstLsn);
  const footer = start + geometry.segmentBytes - BLOCK_BYTES;
  // A segment that gave up its summary has batches up to the very end of its slot.
  if (used <= footer) await device.write(byteOffset(footer), [zeros]);
}
