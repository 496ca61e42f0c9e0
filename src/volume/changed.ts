/**
 * Which blocks changed between two moments, also below the horizon: what the index has let go, the
 * before-images of the older moment tell.
 */
import { VarveError } from '../base/errors.ts';
import {
  block as blockOf,
  blockCount,
  type Block,
  type BlockCount,
  type Generation,
} from '../base/units.ts';
import { endOfImage } from '../../log/before-image.ts';
import type { Changed, ChangedRun, WalkLimits } from '../../index/run-walk.ts';
import type { Core } from './core.ts';

/** Blocks of which before-images are looked for at once. */
const CHUNK_BLOCKS = 4096;

/** A part of the disk, between two moments. */
export interface ChangedQuery {
  readonly first: Block;
  readonly count: BlockCount;
  /** Of the window, or pinned. */
  readonly since: Generation;
  readonly at: Generation;
}

/**
 * Runs of blocks with, and without, a version in (since, at].
 * @throws VarveError DEVICE_IO, BLOCK_CORRUPT, VOLUME_CORRUPT when sums or before-images can't be
 *   read, or are lost
 */
export async function changedRuns(
  core: Core,
  query: ChangedQuery,
  limits: WalkLimits,
): Promise<Changed> {
  const { first, count, since, at } = query;
  const { settled } = core;
  if (since >= settled) return core.index.changed(first, count, since, at, limits);
  const known =
    at > settled
      ? core.index.changed(first, count, settled, at, limits)
      : unchanged(first, blockCount(Math.min(count, limits.probesMax)));
  const runs: ChangedRun[] = [];
  for (const run of known.runs) {
    if (run.changed) push(runs, run);
    else {
      const end = run.start + run.count;
      for (let from: number = run.start; from < end; from += CHUNK_BLOCKS) {
        const part = blockCount(Math.min(CHUNK_BLOCKS, end - from));
        const inside = { ...query, first: blockOf(from), count: part };
        for (const one of await replaced(core, inside)) push(runs, one);
        if (runs.length > limits.runsMax) break;
      }
    }
    if (runs.length > limits.runsMax) break;
  }
  runs.length = Math.min(runs.length, limits.runsMax);
  const last = runs.at(-1);
  return { runs, next: last === undefined ? known.next : blockOf(last.start + last.count) };
}

function unchanged(start: Block, count: BlockCount): Changed {
  return { runs: [{ start, count, changed: false }], next: blockOf(start + count) };
}

/** Whatever was replaced since an older moment has an image that it sees; home's stamps tell of it too. */
async function replaced(core: Core, query: ChangedQuery): Promise<readonly ChangedRun[]> {
  const { first, count, since, at } = query;
  // Before images are looked for: what a round replaced before that has its image by now.
  const stamps = await core.final.sidecar.sums(first, count);
  const isReplaced = new Uint8Array(count);
  const isKnown = new Uint8Array(count);
  for (const { image } of await core.undo.overlapping(first, count, since)) {
    const [from, to] = [Math.max(0, image.block - first), endOfImage(image) - first];
    isKnown.fill(1, from, to);
    if (image.until <= at) isReplaced.fill(1, from, to);
  }
  const runs: ChangedRun[] = [];
  stamps.forEach(({ generation }, i) => {
    const block = blockOf(first + i);
    if (generation > since && isKnown[i] === 0) {
      if (generation > at) {
        const lost = `block ${block}: what it was at generation ${since} is lost`;
        throw new VarveError('VOLUME_CORRUPT', `${lost}, and whether it changed up to ${at}`);
      }
      isReplaced[i] = 1;
    }
    push(runs, { start: block, count: blockCount(1), changed: isReplaced[i] === 1 });
  });
  return runs;
}

function push(runs: ChangedRun[], run: ChangedRun): void {
  const last = runs.at(-1);
  if (last === undefined || last.changed !== run.changed) runs.push(run);
  else runs[runs.length - 1] = { ...last, count: blockCount(last.count + run.count) };
}
