/**
 * Writing again, in its place, what the log device has lost and memory still knows.
 *
 * Invariants:
 *   - Only bytes that were durable there before are written, with the content that they had.
 *   - A superblock copy is mended from the newest superblock, one copy at a time, each synced before
 *     the next: one good copy always stays.
 */
import { isVarveError } from '../src/base/errors.ts';
import { BLOCK_BYTES, byteOffset, type ByteOffset } from '../src/base/units.ts';
import { SUPERBLOCK_BLOCKS } from '../src/format/layouts.ts';
import type { Log } from './log.ts';
import { decodeSuperblock, encodeSuperblock, type Superblock } from './superblock.ts';

/**
 * Writes and syncs.
 * @returns false when the device refuses the write: it is as damaged as before
 * @throws VarveError VOLUME_FAILED after a failed sync
 */
export async function mendLog(log: Log, at: ByteOffset, bytes: Uint8Array): Promise<boolean> {
  let isWritten = false;
  await log.writer.keep('repair', async () => {
    isWritten = false;
    try {
      await log.device.write(at, [bytes]);
      isWritten = true;
    } catch (error) {
      if (!isVarveError(error, 'DEVICE_IO')) throw error;
    }
  });
  return isWritten;
}

export interface CopyProblem {
  /** The block on the device where the copy lies. */
  readonly place: number;
  readonly why: string;
  readonly isMended: boolean;
}

/** Compares both superblock copies with what was written last, and mends them if asked to. */
export async function mendSuperblocks(
  log: Log,
  { repair }: { readonly repair: boolean },
): Promise<readonly CopyProblem[]> {
  return await log.undisturbed(async (current) => {
    const problems: CopyProblem[] = [];
    for (const place of SUPERBLOCK_BLOCKS) {
      const why = await problemOf(log, place, current);
      if (why === undefined) continue;
      const at = byteOffset(place * BLOCK_BYTES);
      const isMended = repair && (await mendLog(log, at, encodeSuperblock(current)));
      problems.push({ place, why, isMended });
    }
    return problems;
  });
}

/** The copy written last has to be the current one; the other an older one of this volume. */
async function problemOf(
  log: Log,
  place: number,
  current: Superblock,
): Promise<string | undefined> {
  const bytes = new Uint8Array(BLOCK_BYTES);
  let found: Superblock | undefined;
  try {
    await log.device.read(byteOffset(place * BLOCK_BYTES), bytes);
    found = decodeSuperblock(bytes);
  } catch (error) {
    if (!isVarveError(error)) throw error;
    return error.detail;
  }
  if (found === undefined) return 'it fails its checksum';
  if (found.volume !== current.volume) return `it is of volume ${found.volume}`;
  const isNewest = place === SUPERBLOCK_BLOCKS[current.sequence % 2 === 0 ? 0 : 1];
  if (isNewest && found.sequence !== current.sequence) {
    return `got sequence ${found.sequence}, expected ${current.sequence}`;
  }
  if (found.sequence > current.sequence) return `its sequence ${found.sequence} was never written`;
  return undefined;
}
