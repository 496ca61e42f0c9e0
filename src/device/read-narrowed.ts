/**
 * A read that failed, narrowed down to the blocks that the device refuses. A merged read fails as a
 * whole because of one bad sector; its halves are tried until what is bad stands alone.
 */
import { isVarveError, type VarveError } from '../base/errors.ts';
import { BLOCK_BYTES } from '../base/units.ts';

/**
 * Failed reads before the rest is given up: a dying device takes seconds for each. One bad block in
 * 32 MiB costs 14 of them.
 */
const FAILURES_MAX = 256;

/**
 * Fills whole blocks; those that can't be read are left as zeros.
 * @param read - fills `target` from byte `at` on, or fails with DEVICE_IO
 * @returns the refused blocks, by their position in `target`, with what the device said
 */
export async function readNarrowed(
  read: (at: number, target: Uint8Array) => Promise<void>,
  target: Uint8Array,
): Promise<ReadonlyMap<number, VarveError>> {
  const bad = new Map<number, VarveError>();
  // Depth first, in order: a stack of pieces whose top is the next one.
  const pieces: { readonly at: number; readonly length: number }[] = [
    { at: 0, length: target.length },
  ];
  let failures = 0;
  let last: VarveError | undefined;
  for (let piece = pieces.pop(); piece !== undefined; piece = pieces.pop()) {
    const { at, length } = piece;
    const part = target.subarray(at, at + length);
    const isGivenUp = failures >= FAILURES_MAX && last !== undefined;
    const error = isGivenUp ? last : await failureOf(read(at, part));
    if (error === undefined) continue;
    last = error;
    failures += 1;
    if (length > BLOCK_BYTES && !isGivenUp) {
      const half = Math.ceil(length / BLOCK_BYTES / 2) * BLOCK_BYTES;
      pieces.push({ at: at + half, length: length - half }, { at, length: half });
      continue;
    }
    part.fill(0);
    for (let i = at; i < at + length; i += BLOCK_BYTES) bad.set(i / BLOCK_BYTES, error);
  }
  return bad;
}

async function failureOf(reading: Promise<void>): Promise<VarveError | undefined> {
  try {
    await reading;
    return undefined;
  } catch (error) {
    if (isVarveError(error, 'DEVICE_IO')) return error;
    throw error;
  }
}
