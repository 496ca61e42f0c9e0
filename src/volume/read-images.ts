/** Blocks of a moment below the horizon that were replaced since: from their before-images. */
import { isVarveError } from '../base/errors.ts';
import { block as blockOf, BLOCK_BYTES, type Block, type Generation } from '../base/units.ts';
import type { UnreadableCode } from '../base/unreadable.ts';
import type { FoundImage } from '../../log/found-image.ts';
import type { Core } from './core.ts';

interface Reason {
  readonly why: string;
  readonly code: UnreadableCode;
}

export interface BadImage extends Reason {
  readonly block: Block;
}

export interface ReadImages {
  /**
   * Blocks without an image, as adjacent ones: they are what home says. What is later there had an
   * image that is lost.
   */
  readonly rest: readonly { readonly first: Block; readonly count: number }[];
  readonly bad: readonly BadImage[];
  /** Images that some of the rest may have could not be looked at. */
  readonly refusal: Reason | undefined;
}

/**
 * Fills those blocks of `buffer` that have an image whose span holds `at`.
 * @param buffer - whole blocks from `first` on
 */
export async function readImages(
  core: Core,
  first: Block,
  buffer: Uint8Array,
  at: Generation,
): Promise<ReadImages> {
  const count = buffer.length / BLOCK_BYTES;
  const rest: { first: Block; count: number }[] = [];
  const bad: BadImage[] = [];
  const before = { joins: core.undo.joins };
  const { copies: found, refusal } = await core.undo.find(first, count, at);
  for (let i = 0; i < count; i++) {
    const block = blockOf(first + i);
    const copies = found[i] ?? [];
    if (copies.length === 0) {
      const last = rest.at(-1);
      if (last !== undefined && last.first + last.count === block) last.count += 1;
      else rest.push({ first: block, count: 1 });
      continue;
    }
    const content = buffer.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
    let problem = await readOne(core, block, copies, content);
    // Its segment was freed under the read: it was joined with others elsewhere.
    for (let { joins } = before; problem !== undefined && joins !== core.undo.joins;) {
      ({ joins } = core.undo);
      const [moved = []] = (await core.undo.find(block, 1, at)).copies;
      problem = await readOne(core, block, moved, content);
    }
    if (problem !== undefined) bad.push(problem);
  }
  return { rest, bad, refusal: refusal && reasonOf(refusal) };
}

async function readOne(
  core: Core,
  block: Block,
  copies: readonly FoundImage[],
  content: Uint8Array,
): Promise<BadImage | undefined> {
  let refused: BadImage | undefined;
  for (const copy of copies) {
    try {
      const bytes = await core.undo.read(copy, block);
      if (bytes !== undefined) {
        content.set(bytes);
        return undefined;
      }
    } catch (error) {
      refused = { block, ...reasonOf(error) };
    }
  }
  content.fill(0);
  const generation = copies[0]?.image.from ?? 0;
  const why = `block ${block}, generation ${generation}: its before-image fails its checksum`;
  return refused ?? { block, why, code: 'BLOCK_CORRUPT' };
}

function reasonOf(error: unknown): Reason {
  if (isVarveError(error, 'DEVICE_IO')) return { why: error.detail, code: 'DEVICE_IO' };
  if (isVarveError(error, 'VOLUME_CORRUPT')) return { why: error.detail, code: 'BLOCK_CORRUPT' };
  throw error;
}
