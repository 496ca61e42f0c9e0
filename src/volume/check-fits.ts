/** Whether devices, and the superblock on the log, are those of the volume that is to be opened. */
import { VarveError } from '../base/errors.ts';
import type { Uuid } from '../base/identity.ts';
import { kibibytes, type ByteCount } from '../base/units.ts';
import type { OpenedLog } from '../../log/log.ts';
import { undoGeometry } from '../../log/undo-survey.ts';
import { finalBytes, sumsBytes, undoSegmentBytes, type VolumeDevices } from './devices.ts';

/** Beside its payload a request brings headers, edges and a lineage record, and waits for their room. */
const RING_BYTES_MIN = kibibytes(64);

/** What the volume is known as. */
interface Expected {
  readonly uuid: Uuid;
  readonly size: ByteCount;
  readonly ringBytes: ByteCount;
}

/** @throws VarveError VOLUME_FOREIGN, RING_BAD */
export function checkFits(
  options: Expected,
  superblock: OpenedLog['superblock'],
  devices: VolumeDevices,
): void {
  const { geometry, volume } = superblock;
  if (volume !== options.uuid) {
    throw new VarveError('VOLUME_FOREIGN', `the log is of volume ${volume}, not ${options.uuid}`);
  }
  if (geometry.size !== options.size) {
    throw new VarveError(
      'VOLUME_FOREIGN',
      `the log is for ${geometry.size} bytes, not ${options.size}`,
    );
  }
  if (devices.final.size < finalBytes(options.size)) {
    throw new VarveError(
      'VOLUME_FOREIGN',
      `${devices.final.name} is truncated: got ${devices.final.size} bytes, expected ${finalBytes(options.size)}`,
    );
  }
  if (devices.sums.size < sumsBytes(options.size)) {
    throw new VarveError('VOLUME_FOREIGN', `${devices.sums.name} is truncated`);
  }
  const { name, size } = devices.undo;
  const { slotCount } = undoGeometry(size, undoSegmentBytes(geometry));
  if (slotCount < superblock.undoSlots) {
    const what = `${superblock.undoSlots} slots were used, and it has room for ${slotCount}`;
    throw new VarveError('VOLUME_FOREIGN', `${name} is truncated: ${what}`);
  }
  const ringBytesMin = Math.max(2 * geometry.requestBytesMax, RING_BYTES_MIN);
  if (options.ringBytes < ringBytesMin) {
    throw new VarveError(
      'RING_BAD',
      `got ${options.ringBytes} bytes, at least ${ringBytesMin} are needed`,
    );
  }
}
