/** Making a blank volume on three devices. Nothing exists until the log's superblocks are synced. */
import { newUuid, type Uuid } from '../base/identity.ts';
import { byteOffset, micros } from '../base/units.ts';
import type { World } from '../base/world.ts';
import type { LogGeometry } from '../../log/geometry.ts';
import { formatLog } from '../../log/log.ts';
import type { VolumeDevices } from './devices.ts';
import type { Progress } from './report.ts';

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
