/**
 * What recovery makes lasting: what was taken is written again where nothing states that it was
 * durable, and what was not taken is erased. The caller syncs, once.
 *
 * Any part of it may survive a cut: the same bytes change nothing, and what is erased was not on
 * the way that replay went.
 */
import { VarveError } from '../src/base/errors.ts';
import type { Uuid } from '../src/base/identity.ts';
import { BLOCK_BYTES, byteOffset, type Lsn } from '../src/base/units.ts';
import type { LowerDevice } from '../src/device/lower-device.ts';
import { endOf } from './batch.ts';
import { slotOffset, type LogGeometry } from './geometry.ts';
import type { Replayed } from './replay.ts';
import { SlotReader } from './scan.ts';
import { encodeSegmentHeader, type ReadSegmentHeader } from './summary.ts';

/** A slot's header, and the header of its first batch: no replay looks into such a slot. */
const SLOT_START = new Uint8Array(2 * BLOCK_BYTES);

export interface LogPlace {
  readonly device: LowerDevice;
  readonly geometry: LogGeometry;
  readonly volume: Uuid;
}

/**
 * The same bytes at the same places: what only the page cache holds reaches the device. Each batch
 * is verified once more, lest a read that went astray is written over what was good.
 * @throws VarveError VOLUME_CORRUPT, when what was taken can not be read any more
 */
export async function writeAgain(place: LogPlace, replayed: Replayed): Promise<void> {
  const { device, geometry, volume } = place;
  const reader = new SlotReader(device, geometry, volume);
  for (const { segment, from, to } of replayed.doubtful) {
    const start = slotOffset(geometry, segment.slot);
    if (from === segment.firstLsn) {
      await device.write(start, [encodeSegmentHeader(volume, segment)]);
    }
    for (let position = from; position < to;) {
      const found = await reader.wholeAt(segment, position);
      if (found === undefined) throw goneSince(segment, position);
      const at = start + BLOCK_BYTES + (position - segment.firstLsn);
      await device.write(byteOffset(at), [found.block, found.payloads]);
      position = endOf(found.batch);
    }
  }
}

function goneSince({ sequence, slot }: ReadSegmentHeader, position: Lsn): VarveError {
  return new VarveError(
    'VOLUME_CORRUPT',
    `the batch at LSN ${position}, segment ${sequence}, slot ${slot}, was whole and can not be read again`,
  );
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
