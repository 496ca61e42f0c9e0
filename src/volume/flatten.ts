/**
 * Making a volume independent of what it is based on: what was never written is copied to its home
 * location, under the generation from before all others. No moment changes by that, and no history
 * is made; clients are served meanwhile.
 *
 * Invariants:
 *   - Content is synced before its sum says that it is there: until then the base is read, and home
 *     holds zeros or parts of the copy.
 *   - Only what was never written is copied, while nobody else changes home. A sum alone does not say
 *     so: home is read beside the base, and what is neither zeros nor a part of the copy stays.
 *   - What can't be copied does not keep the rest from it, and the base stays. A base that is refused
 *     ends it: nothing of the base is taken for zeros that may be damage.
 *   - After a crash or a failure it is begun again, and copies no content twice. But a sum that it finds
 *     need not be durable, nor its page whole: pages with sums of copies are written again, and synced.
 */
import { crc32c } from '../base/crc32c.ts';
import { isVarveError, VarveError } from '../base/errors.ts';
import {
  block as blockOf,
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  generation as generationOf,
  type Block,
} from '../base/units.ts';
import { mergedRanges, UnreadableError, type UnreadableRange } from '../base/unreadable.ts';
import { isZero } from '../device/zeros.ts';
import { bindChecksum, volumeSeed } from '../format/block-checksum.ts';
import { SUM_DATA, SUM_NEVER } from '../format/layouts.ts';
import type { Sum } from '../format/sums.ts';
import { runsOf } from './base-disk.ts';
import type { Core } from './core.ts';
import type { Progress } from './report.ts';
import { pageOf, SINCE_COPY } from './sums-page.ts';

/** Copied between two syncs; rounds wait for so long. */
const CHUNK_BLOCKS = 2048;
const FIRST = generationOf(0);
/** So many ranges of blocks are named. */
const NAMED_MAX = 8;
const NEXT =
  'nothing else is missing, and the base stays; run `varve scrub NAME`, which mends what the log still ' +
  'has, write or trim what is left, and flatten again when that has gone home';

interface Change {
  readonly block: Block;
  readonly sum: Sum;
}

/**
 * Copies what is missing; the caller has made it durable that this is under way. The base may go when
 * it settles, and not before.
 * @param progress - of the blocks of the volume, in bytes; what it throws ends the copy
 * @param chunkBlocks - between two syncs, for tests
 * @returns how many blocks were copied
 * @throws VarveError BLOCK_CORRUPT naming what could not be copied, after all else was; DISK_FULL,
 *   DEVICE_IO, CLOSED
 */
export async function copyBase(
  core: Core,
  progress: Progress,
  chunkBlocks = CHUNK_BLOCKS,
): Promise<number> {
  core.final.beginCopy();
  let copied = 0;
  const left: UnreadableRange[] = [];
  for (let first = 0; first < core.blocks; first += chunkBlocks) {
    core.needWritable();
    progress(first * BLOCK_BYTES, core.size);
    const count = Math.min(chunkBlocks, core.blocks - first);
    copied += await core.home.run(() => copyChunk(core, blockOf(first), count, left));
    await core.yieldTurn();
  }
  progress(core.size, core.size);
  if (left.length > 0) throw leftError(left);
  return copied;
}

/** Names what stays as it is. */
function leftError(left: readonly UnreadableRange[]): VarveError {
  const merged = mergedRanges(left.toSorted((one, other) => one.offset - other.offset));
  const named = merged.slice(0, NAMED_MAX).map(({ offset, length }) => {
    const [first, count] = [offset / BLOCK_BYTES, length / BLOCK_BYTES];
    return count === 1 ? `${first}` : `${first} to ${first + count - 1}`;
  });
  const more = merged.length > NAMED_MAX ? `, and ${merged.length - NAMED_MAX} more ranges` : '';
  const cause = new UnreadableError('BLOCK_CORRUPT', merged);
  const count = merged.reduce((sum, { length }) => sum + length, 0) / BLOCK_BYTES;
  const detail = `${count} blocks are damaged, first ${merged[0]?.why}`;
  return new VarveError('BLOCK_CORRUPT', `${detail}; all: ${named.join(', ')}${more}`, {
    cause,
    next: NEXT,
  });
}

/** @param left - takes what is damaged */
function copyChunk(
  core: Core,
  first: Block,
  count: number,
  left: UnreadableRange[],
): Promise<number> {
  return core.final.withBase(async (base) => {
    if (base === undefined) return 0;
    const { final } = core;
    const isNever = await neverIn(core, first, count, left);
    const kinds = base.hidesDamage ? undefined : await base.kinds(first, count);
    const mayBeData = (i: number): boolean => kinds === undefined || kinds[i] === 'data';
    const changes: Change[] = [];
    for (const run of runsOf(first, count, (i) => isNever[i] === true && mayBeData(i))) {
      changes.push(...(await copyRun(core, run, left)));
    }
    const doubtful = await copiedPages(core, first, count);
    if (changes.length > 0) await final.syncFinal('final');
    await final.sidecar.write(changes, { firstSince: SINCE_COPY, keepsDamaged: true });
    for (const number of doubtful) await final.sidecar.mendPage(number, new Map());
    if (changes.length > 0 || doubtful.length > 0) await final.sidecar.sync('sums');
    return changes.length;
  });
}

/** Pages in which an earlier copy left sums; of this one those that lie in two chunks. */
async function copiedPages({ final }: Core, first: Block, count: number): Promise<number[]> {
  const pages: number[] = [];
  for (let number = pageOf(first); number <= pageOf(blockOf(first + count - 1)); number++) {
    if (await final.sidecar.hasCopies(number)) pages.push(number);
  }
  return pages;
}

/**
 * Which blocks were never written. What has lost its sum may have its content in the base alone; what
 * a round is about to write again has its content in the log, and parts of it at home.
 */
async function neverIn(
  core: Core,
  first: Block,
  count: number,
  left: UnreadableRange[],
): Promise<boolean[]> {
  const isNever: boolean[] = [];
  for (let i = 0; i < count; i++) {
    const block = blockOf(first + i);
    isNever[i] = false;
    if (core.isRedone(block)) continue;
    try {
      isNever[i] = (await core.final.sidecar.sum(block)).kind === SUM_NEVER;
    } catch (error) {
      if (!isVarveError(error, 'BLOCK_CORRUPT')) throw error;
      const offset = byteOffset(block * BLOCK_BYTES);
      left.push({ offset, length: byteCount(BLOCK_BYTES), why: error.detail });
    }
  }
  return isNever;
}

async function copyRun(
  { final, uuid }: Core,
  { first, count }: { readonly first: Block; readonly count: number },
  left: UnreadableRange[],
): Promise<readonly Change[]> {
  const content = new Uint8Array(count * BLOCK_BYTES);
  try {
    await final.read(first, content);
  } catch (error) {
    if (!(error instanceof UnreadableError) || error.code === 'DEVICE_IO') throw error;
    // They are zeros now, which are not copied.
    left.push(...error.ranges);
  }
  const seed = volumeSeed(uuid);
  const part = (i: number, length = 1): Uint8Array =>
    content.subarray(i * BLOCK_BYTES, (i + length) * BLOCK_BYTES);
  const changes: Change[] = [];
  for (const run of runsOf(first, count, (i) => !isZero(part(i)))) {
    await final.write(run.first, [part(run.at, run.count)]);
    for (let i = 0; i < run.count; i++) {
      const block = blockOf(run.first + i);
      const checksum = bindChecksum(crc32c(part(run.at + i)), seed, block, FIRST);
      changes.push({ block, sum: { kind: SUM_DATA, generation: FIRST, checksum } });
    }
  }
  return changes;
}
