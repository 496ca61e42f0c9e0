/** What is allocated, block by block. */
import { BLOCK_BYTES, byteCount, byteOffset } from '../../src/base/units.ts';
import type { Volume } from '../../src/volume/volume.ts';

/** Flags of each block, at a moment or now. */
export async function allocationOf(
  volume: Volume,
  at: number | undefined,
): Promise<readonly number[]> {
  const isLive = at === undefined;
  const device = isLive ? volume.live() : volume.openMoment(await volume.resolve(`gen=${at}`));
  const flags: number[] = [];
  for (let offset = 0; offset < volume.size;) {
    const length = byteCount(volume.size - offset);
    for (const run of await device.status('base:allocation', byteOffset(offset), length, 1000)) {
      offset += run.length;
      while (flags.length * BLOCK_BYTES < offset) flags.push(run.flags);
    }
  }
  if (!isLive) await device.close();
  return flags;
}
