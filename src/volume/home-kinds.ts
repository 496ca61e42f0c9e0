/**
 * What blocks are that no version of the window tells of: by final storage's sums, what the volume is
 * based on, and before-images.
 */
import {
  block as blockOf,
  BLOCK_BYTES,
  type Block,
  type ByteOffset,
  type Generation,
} from '../base/units.ts';
import { UnreadableError } from '../base/unreadable.ts';
import { SUM_ALLOCATED, SUM_DATA, SUM_LOST, SUM_NEVER } from '../format/layouts.ts';
import { RANGE_ALLOCATE, RANGE_TRIM, type RangeKind } from '../../index/found.ts';
import { endOfImage } from '../../log/before-image.ts';
import { runsOf, type BaseBlocks } from './base-disk.ts';
import type { Core } from './core.ts';

/** Zeros that are looked at in one read: 1 MiB. */
const LOOK_BLOCKS = 256;

/** `data`, or the kind of a range of zeros. */
export type BlockKind = 'data' | RangeKind;

/**
 * What zeros are believed by. A page of sums whose write was lost says "never written" of data: whoever
 * puts zeros because of that looks at what is there.
 */
export type ZerosBy = 'sums' | 'content';

export interface HomeQuery {
  readonly first: Block;
  readonly count: number;
  /** The moment. */
  readonly at: Generation;
  readonly zerosBy: ZerosBy;
}

/**
 * One for each of `count` blocks from `first` on, as they were at the moment `at`.
 * @throws VarveError BLOCK_CORRUPT, VOLUME_CORRUPT, DEVICE_IO
 */
export function homeKinds(core: Core, query: HomeQuery): Promise<BlockKind[]> {
  return core.final.withBase((base) => kindsOver(core, base, query));
}

async function kindsOver(
  core: Core,
  base: BaseBlocks | undefined,
  { first, count, at, zerosBy }: HomeQuery,
): Promise<BlockKind[]> {
  const sums = await core.final.sidecar.kinds(first, count, at);
  const kinds = Array.from(sums, kindOfSum);
  if (base !== undefined) {
    for (const run of runsOf(first, count, (i) => sums[i] === SUM_NEVER)) {
      const below = await base.kinds(run.first, run.count);
      below.forEach((kind, i) => (kinds[run.at + i] = kind));
    }
  }
  if (zerosBy === 'content') await lookAtZeros(core, first, kinds);
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

/** Zeros that can't be read are taken for data: whoever reads it is told. */
async function lookAtZeros({ final }: Core, first: Block, kinds: BlockKind[]): Promise<void> {
  const scratch = new Uint8Array(Math.min(LOOK_BLOCKS, kinds.length) * BLOCK_BYTES);
  const placeOf = (offset: ByteOffset): number => offset / BLOCK_BYTES - first;
  for (const run of runsOf(first, kinds.length, (i) => kinds[i] !== 'data')) {
    for (let done = 0; done < run.count; done += LOOK_BLOCKS) {
      const from = blockOf(run.first + done);
      const part = scratch.subarray(0, Math.min(LOOK_BLOCKS, run.count - done) * BLOCK_BYTES);
      try {
        await final.read(from, part);
      } catch (error) {
        if (!(error instanceof UnreadableError)) throw error;
        for (const { offset, length } of error.ranges) {
          kinds.fill('data', placeOf(offset), placeOf(offset) + length / BLOCK_BYTES);
        }
      }
    }
  }
}

/** What was lost is taken for data, as is what has lost its image: whoever reads it is told. */
function kindOfSum(kind: number): BlockKind {
  if (kind === SUM_DATA || kind === SUM_LOST) return 'data';
  return kind === SUM_ALLOCATED ? RANGE_ALLOCATE : RANGE_TRIM;
}
