/**
 * Making a volume independent of what it is based on: what was never written is copied to its home
 * location, under the generation from before all others. No moment changes by that, and no history
 * is made; clients are served meanwhile.
 *
 * Invariants:
 *   - Content is synced before its sum says that it is there: until then the base is read, and home
 *     holds zeros or parts of the copy.
 *   - Only what was never written is copied, while nobody else changes home.
 *   - What the base can't read ends it: nothing of the base is taken for zeros that may be damage.
 *   - After a crash or a failure it is begun again, and copies no content twice. But a sum that it finds
 *     need not be durable, nor its page whole: pages with sums of copies are written again, and synced.
 */
import { crc32c } from '../base/crc32c.ts';
import { isVarveError, VarveError } from '../base/errors.ts';
import {
  block as blockOf,
  BLOCK_BYTES,
  generation as generationOf,
  type Block,
} from '../base/units.ts';
import { UnreadableError } from '../base/unreadable.ts';
import { isZero } from '../device/zeros.ts';
import { bindChecksum, volumeSeed } from '../format/block-checksum.ts';
import { SUM_DATA, SUM_NEVER } from '../format/layouts.ts';
import type { Sum } from '../format/sums.ts';
import { runsOf, type BaseBlocks } from './base-disk.ts';
import type { Core } from './core.ts';
import type { Progress } from './report.ts';
import { pageOf, SINCE_COPY } from './sidecar.ts';

/** Copied between two syncs; rounds wait for so long. */
const CHUNK_BLOCKS = 2048;
const FIRST = generationOf(0);
const SCRUB_FIRST =
  'run `varve scrub NAME`, which mends or gives up what can not be known, then flatten again';

interface Change {
  readonly block: Block;
  readonly sum: Sum;
}

/**
 * Copies what is missing; the caller has made it durable that this is under way.
 * @param progress - of the blocks of the volume, in bytes; what it throws ends the copy
 * @param chunkBlocks - between two syncs, for tests
 * @returns how many blocks were copied
 * @throws UnreadableError when the base can't be read; VarveError BLOCK_CORRUPT for damaged sums,
 *   DISK_FULL, DEVICE_IO, CLOSED
 */
export async function copyBase(
  core: Core,
  progress: Progress,
  chunkBlocks = CHUNK_BLOCKS,
): Promise<number> {
  core.final.beginCopy();
  let copied = 0;
  for (let first = 0; first < core.blocks; first += chunkBlocks) {
    core.needWritable();
    progress(first * BLOCK_BYTES, core.size);
    const count = Math.min(chunkBlocks, core.blocks - first);
    copied += await core.home.run(() => copyChunk(core, blockOf(first), count));
    await core.yieldTurn();
  }
  progress(core.size, core.size);
  return copied;
}

function copyChunk(core: Core, first: Block, count: number): Promise<number> {
  return core.final.withBase(async (base) => {
    if (base === undefined) return 0;
    const { final } = core;
    const isNever = await neverIn(core, first, count);
    const kinds = base.hidesDamage ? undefined : await base.kinds(first, count);
    const mayBeData = (i: number): boolean => kinds === undefined || kinds[i] === 'data';
    const changes: Change[] = [];
    for (const run of runsOf(first, count, (i) => isNever[i] === true && mayBeData(i))) {
      changes.push(...(await copyRun(core, base, run)));
    }
    const doubtful = await copiedPages(core, first, count);
    if (changes.length > 0) await final.syncFinal('final');
    await final.sidecar.write(changes, SINCE_COPY);
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

/** Which blocks were never written. What has lost its sum may have its content in the base alone. */
async function neverIn({ final }: Core, first: Block, count: number): Promise<boolean[]> {
  const isNever: boolean[] = [];
  const damaged: VarveError[] = [];
  for (let i = 0; i < count; i++) {
    try {
      isNever.push((await final.sidecar.sum(blockOf(first + i))).kind === SUM_NEVER);
    } catch (error) {
      if (!isVarveError(error, 'BLOCK_CORRUPT')) throw error;
      isNever.push(false);
      damaged.push(error);
    }
  }
  const [one] = damaged;
  if (one === undefined) return isNever;
  const detail = `checksums of ${damaged.length} blocks are damaged, first ${one.detail}`;
  throw new VarveError('BLOCK_CORRUPT', detail, { cause: one, next: SCRUB_FIRST });
}

async function copyRun(
  { final, uuid }: Core,
  base: BaseBlocks,
  { first, count }: { readonly first: Block; readonly count: number },
): Promise<readonly Change[]> {
  const content = new Uint8Array(count * BLOCK_BYTES);
  const bad = await base.read(first, content);
  if (bad !== undefined) throw new UnreadableError(bad.code, bad.ranges);
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
