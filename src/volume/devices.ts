/** What a volume lies on, and how large each part is. */
import { BLOCK_BYTES, byteCount, type ByteCount } from '../base/units.ts';
import type { LowerDevice } from '../device/lower-device.ts';
import { sumsBytes as sumsBytesOfBlocks } from '../format/sums.ts';
import type { LogGeometry } from '../../log/geometry.ts';

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
