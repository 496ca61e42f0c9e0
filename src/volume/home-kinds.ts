/**
 * What blocks are that no version of the window tells of: by final storage's sums, what the volume is
 * based on, and before-images.
 */
import { block as blockOf, type Block, type Generation } from '../base/units.ts';
import { SUM_ALLOCATED, SUM_DATA, SUM_LOST, SUM_NEVER } from '../format/layouts.ts';
import { RANGE_ALLOCATE, RANGE_TRIM, type RangeKind } from '../../index/found.ts';
import { endOfImage } from '../../log/before-image.ts';
import { runsOf, type BaseBlocks } from './base-disk.ts';
import type { Core } from './core.ts';

/** `data`, or the kind of a range of zeros. */
export type BlockKind = 'data' | RangeKind;

/**
 * One for each of `count` blocks from `first` on, as they were at the moment `at`.
 * @throws VarveError BLOCK_CORRUPT, VOLUME_CORRUPT, DEVICE_IO
 */
export function homeKinds(
  core: Core,
  first: Block,
  count: number,
  at: Generation,
): Promise<BlockKind[]> {
  return core.final.withBase((base) => kindsOver(core, base, { first, count, at }));
}

async function kindsOver(
  core: Core,
  base: BaseBlocks | undefined,
  { first, count, at }: { readonly first: Block; readonly count: number; readonly at: Generation },
): Promise<BlockKind[]> {
  const sums = await core.final.sidecar.kinds(first, count, at);
  const kinds = Array.from(sums, kindOfSum);
  if (base !== undefined) {
    for (const run of runsOf(first, count, (i) => sums[i] === SUM_NEVER)) {
      const below = await base.kinds(run.first, run.count);
      below.forEach((kind, i) => (kinds[run.at + i] = kind));
    }
  }
  // After home was looked at: what a round replaced before that has its image by now.
  if (at >= core.horizon.generation) return kinds;
  const images = await core.undo.overlapping(blockOf(first), count, at);
  // What replaced a block first after the moment counts: it comes last.
  for (const { image } of images.toSorted((one, other) => other.image.until - one.image.until)) {
    const from = Math.max(0, image.block - first);
    kinds.fill(image.checksum === undefined ? RANGE_TRIM : 'data', from, endOfImage(image) - first);
  }
  return kinds;
}

/** What was lost is taken for data, as is what has lost its image: whoever reads it is told. */
function kindOfSum(kind: number): BlockKind {
  if (kind === SUM_DATA || kind === SUM_LOST) return 'data';
  return kind === SUM_ALLOCATED ? RANGE_ALLOCATE : RANGE_TRIM;
}
