/** A disk beside its model, block by block. */
import { assert } from '../../src/base/assert.ts';
import { BLOCK_BYTES } from '../../src/base/units.ts';
import type { VolumeModel } from './volume-model.ts';

/** @param told - what was read, for whoever looks for what broke it */
export function needSame(
  got: Uint8Array,
  model: VolumeModel,
  generation: number,
  told: string,
): void {
  const expected = model.bytesAt(0, got.length, generation);
  for (let block = 0; block < model.blocks; block++) {
    const [from, to] = [block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES];
    const isSame = Buffer.compare(got.subarray(from, to), expected.subarray(from, to)) === 0;
    assert(isSame, `block ${block} of ${told} is as it was at generation ${generation}`);
  }
}
