/** Making a blank volume on three devices. Nothing exists until the log's superblocks are synced. */
import { newUuid, type Uuid } from '../base/identity.ts';
import { BLOCK_BYTES, byteCount, byteOffset, micros, type ByteCount } from '../base/units.ts';
import type { World } from '../base/world.ts';
import type { LowerDevice } from '../device/lower-device.ts';
import { sumsBytes as sumsBytesOfBlocks } from '../format/sums.ts';
import type { LogGeometry } from '../../log/geometry.ts';
import { formatLog } from '../../log/log.ts';
import type { Progress } from './report.ts';

export interface VolumeDevices {
  readonly log: LowerDevice;
  readonly final: LowerDevice;
  readonly sums: LowerDevice;
  /** What snapshots keep. */
  readonly undo: LowerDevice;
}

/** Size of final storage: the volume's, in whole blocks. */
export function finalBytes(size: ByteCount): ByteCount {
  return byteCount(Math.ceil(size / BLOCK_BYTES) * BLOCK_BYTES);
}

/** Size of the checksum sidecar of a volume. */
export function sumsBytes(size: ByteCount): ByteCount {
  return sumsBytesOfBlocks(finalBytes(size) / BLOCK_BYTES);
}

/** Segments of the undo device are as large as those of the log. */
export function undoSegmentBytes({ segmentBytes }: LogGeometry): ByteCount {
  return segmentBytes;
}

/**
 * Whatever the devices held is gone afterwards.
 * @throws VarveError DISK_FULL, DEVICE_IO
 */
export async function formatVolume(
  devices: VolumeDevices,
  { uuid, geometry }: { readonly uuid: Uuid; readonly geometry: LogGeometry },
  world: World,
  progress?: Progress,
): Promise<void> {
  await devices.final.punch(byteOffset(0), devices.final.size);
  await devices.final.sync('create-final');
  await devices.sums.punch(byteOffset(0), devices.sums.size);
  await devices.sums.sync('create-sums');
  await devices.undo.punch(byteOffset(0), devices.undo.size);
  const times = { wallUs: world.clock.wallUs(), elapsedUs: micros(0) };
  const lineage = newUuid(world.random);
  await formatLog(devices.log, { volume: uuid, lineage, geometry, times }, progress);
}
