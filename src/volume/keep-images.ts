/**
 * The step of a round before it overwrites anything at home: what pins below its end still need is
 * put on the undo device, and synced.
 *
 * Invariants:
 *   - A version is kept when a pin lies in its span: what is at home, and what the round passes over.
 *   - It happens before the horizon is durable, so a round that is made again keeps nothing: it was
 *     complete.
 *   - What can't be read is kept as an image that fails its checksum: an error, never something else.
 *   - Zeros are kept as such only where home has zeros: a page of sums whose write was lost says "never
 *     written" of data, and nothing else would tell once it is overwritten.
 *   - What the volume is based on is kept as data, from generation 0 on: history stands by itself.
 */
import { crc32c } from '../base/crc32c.ts';
import { isVarveError, VarveError } from '../base/errors.ts';
import {
  block as blockOf,
  BLOCK_BYTES,
  blockCount,
  checksum as checksumOf,
  generation as generationOf,
  type Block,
  type Generation,
} from '../base/units.ts';
import { isUnreadable } from '../base/unreadable.ts';
import { isZero } from '../device/zeros.ts';
import { bindChecksum, volumeSeed } from '../format/block-checksum.ts';
import { SUM_DATA, SUM_LOST } from '../format/layouts.ts';
import type { Sum } from '../format/sums.ts';
import { FOUND_DATA, FOUND_NONE, FOUND_ZERO } from '../../index/found.ts';
import { endOfImage, factOf, factsOf, type BeforeImage } from '../../log/before-image.ts';
import type { StatedImage } from '../../log/undo-log.ts';
import type { BlankParts } from './blank-parts.ts';
import type { Core } from './core.ts';
import { findBlankParts } from './find-blank-parts.ts';
import { ImageContent, type Source } from './image-content.ts';
import type { Keeping } from './keeping.ts';
import type { Means } from './settle.ts';
import { pageOf } from './sums-page.ts';

/** Of an image that nobody can read: the mark of a lost block has another checksum. */
const LOST_SUM = checksumOf(0);
/** Blocks looked at in one go; clients have their turn between. */
const CHUNK_BLOCKS = 256;
/** Blocks of zeros that are put together: each is remembered by itself when only a part is put. */
const ZEROS_MAX = 65_536;

interface Kept {
  readonly image: BeforeImage;
  readonly source: Source | undefined;
}

/**
 * Puts what pins below `target` need of what a round up to there replaces, and syncs. The horizon is
 * there already, so that no pin comes below it meanwhile.
 * @param newest - blocks of which the round writes data, ascending
 * @returns what the round has to leave alone, since nothing is kept of it
 * @throws VarveError UNDO_FULL, DISK_FULL, DEVICE_IO; what was put stays, and is not put again by a
 *   second call with the same target, unless pins came that need more
 */
export async function keepImages(
  core: Core,
  target: Generation,
  newest: { readonly length: number; readonly blocks: ArrayLike<number> },
  means: Means,
): Promise<BlankParts> {
  const { settled } = core;
  const { undo } = core;
  const isSame = core.keeping?.target === target && core.keeping.lostSyncs === undo.lostSyncs;
  if (core.keeping === undefined || !isSame || core.keeping.added.size > 0) {
    core.keeping = undefined;
    const there = await undo.restart();
    const { lostSyncs } = undo;
    const blank = await findBlankParts(core, target);
    core.keeping = {
      target,
      lostSyncs,
      blank,
      added: new Set(),
      steps: 0,
      there,
      put: new Set(),
      putStep: 0,
    };
  }
  const round = new Keeper(core, target, means, core.keeping);
  for (const range of core.index.rangesUpTo(target)) {
    if (range.generation <= settled) continue;
    const end = Math.min(range.start + range.count, core.blocks);
    // Each block once: with its newest range, unless data follows.
    const isOwn = (block: Block): boolean =>
      core.index.find(block, target) === FOUND_ZERO &&
      core.index.foundGeneration === range.generation;
    for (const part of core.keeping.blank.others(range.start, end)) {
      await round.blocks(part.start, part.end, isOwn);
    }
  }
  for (let i = 0; i < newest.length; i++) await round.one(blockOf(newest.blocks[i] ?? 0));
  await round.end();
  await undo.sync();
  // Whoever gave space back meanwhile may have synced, too, and in vain.
  if (undo.lostSyncs === core.keeping.lostSyncs) return core.keeping.blank;
  throw new VarveError('DEVICE_IO', 'a failed sync took back what was kept: it is kept again');
}

class Keeper {
  readonly #core: Core;
  readonly #target: Generation;
  readonly #means: Means;
  readonly #seed: number;
  readonly #progress: Keeping;
  readonly #content: ImageContent;
  #blocks: Block[] = [];
  /** Zeros of the steps before: many blocks, and little to put. */
  #zeros: readonly Kept[] = [];
  #step = 0;

  constructor(core: Core, target: Generation, means: Means, progress: Keeping) {
    this.#core = core;
    this.#target = target;
    this.#means = means;
    this.#progress = progress;
    this.#content = new ImageContent(core, means);
    this.#seed = volumeSeed(core.uuid);
  }

  async blocks(start: number, end: number, isOwn: (block: Block) => boolean): Promise<void> {
    for (let at = start; at < end; at++) {
      const block = blockOf(at);
      if (isOwn(block)) await this.one(block);
      if (at % 65_536 === 0) await this.#core.yieldTurn();
    }
    await this.flush();
  }

  async one(block: Block): Promise<void> {
    this.#blocks.push(block);
    if (this.#blocks.length >= CHUNK_BLOCKS) await this.flush();
  }

  async flush(): Promise<void> {
    const blocks = this.#blocks;
    if (blocks.length === 0) return;
    this.#blocks = [];
    // The same blocks in the same order as when the round was begun: some were done then.
    this.#step += 1;
    if (this.#step <= this.#progress.steps) return;
    const found: Kept[] = [];
    const blank: BeforeImage[] = [];
    for (const block of blocks) await this.#versionsOf(block, found, blank);
    const { there, put } = this.#progress;
    const isFirst = there.size + put.size === 0;
    // An image that is there twice counts twice.
    const isMissing = ({ block, until }: BeforeImage): boolean => {
      if (isFirst) return true;
      const fact = factOf(block, until);
      return !there.has(fact) && !put.has(fact);
    };
    const missing = found.filter(({ image }) => isMissing(image));
    for (const run of adjacent(blank.filter(isMissing))) missing.push(...(await this.#looked(run)));
    const kept = joined([...this.#zeros, ...missing]);
    if (this.#isLittle(kept)) this.#zeros = kept;
    else await this.#putAll(kept);
    await this.#core.yieldTurn();
  }

  /** The last step. */
  async end(): Promise<void> {
    await this.flush();
    await this.#putAll(this.#zeros);
  }

  /** Less than a batch, and no content. */
  #isLittle(kept: readonly Kept[]): boolean {
    let blocks = 0;
    for (const { image, source } of kept) {
      if (source !== undefined) return false;
      blocks += image.count;
    }
    return kept.length < this.#core.undo.imagesMax && blocks < ZEROS_MAX;
  }

  /** All that is left of this step, and of those before it. */
  async #putAll(kept: readonly Kept[]): Promise<void> {
    const { put } = this.#progress;
    const { imagesMax } = this.#core.undo;
    for (let from = 0; from < kept.length; from += imagesMax) {
      const some = kept.slice(from, from + imagesMax);
      await this.#put(some);
      // With the last ones the step has ended.
      if (from + imagesMax >= kept.length) break;
      for (const { image } of some) for (const fact of factsOf(image)) put.add(fact);
      this.#progress.putStep = this.#step;
    }
    // Made again, it may come to its puts sooner: what was put of later steps is still to be told.
    if (this.#step >= this.#progress.putStep) put.clear();
    this.#zeros = [];
    this.#progress.steps = this.#step;
  }

  /**
   * Every version of a block that the round replaces, and that a pin sees.
   * @param blank - what home has to hold zeros for, or the base has
   */
  async #versionsOf(block: Block, into: Kept[], blank: BeforeImage[]): Promise<void> {
    const { index, settled, undo } = this.#core;
    let until: Generation | undefined;
    for (let at = this.#target; at > settled;) {
      const kind = index.find(block, at);
      if (kind === FOUND_NONE) break;
      const from = index.foundGeneration;
      if (until !== undefined && undo.isNeeded(from, until)) {
        const isData = kind === FOUND_DATA;
        into.push({
          image: {
            block,
            count: blockCount(1),
            from,
            until,
            checksum: isData ? index.foundChecksum : undefined,
          },
          source: isData ? { checksum: index.foundChecksum, lsn: index.foundLsn } : undefined,
        });
      }
      until = from;
      at = generationOf(from - 1);
    }
    if (until === undefined) return;
    const sum = await this.#sumOf(block);
    // What is later than the round before was not written by any round: that is damage.
    const isKnown = sum !== undefined && sum.generation <= settled;
    const from = isKnown ? sum.generation : generationOf(0);
    if (!undo.isNeeded(from, until)) return;
    const image = { block, count: blockCount(1), from, until, checksum: undefined };
    if (isKnown && sum.kind !== SUM_DATA && sum.kind !== SUM_LOST) {
      blank.push(image);
      return;
    }
    const isLost = !isKnown || sum.kind === SUM_LOST;
    const checksum = isLost ? LOST_SUM : sum.checksum;
    into.push({ image: { ...image, checksum }, source: { checksum, lsn: undefined, isLost } });
  }

  /**
   * Adjacent blocks that are zeros, or what the base has, by their sums: by what is there.
   * @param counted - who has the attempts: all of them together, or each would cost two more rounds
   */
  async #looked(
    images: readonly BeforeImage[],
    counted = images[0]?.block,
  ): Promise<readonly Kept[]> {
    const [first] = images;
    if (first === undefined || counted === undefined) return [];
    const content = new Uint8Array(images.length * BLOCK_BYTES);
    const read = async (): Promise<Uint8Array> => {
      await this.#core.final.read(first.block, content);
      return content;
    };
    try {
      await read();
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      // One by one: a block that is refused now may be there later, and its neighbour damaged.
      if (images.length > 1) {
        const each: Kept[] = [];
        for (const image of images) each.push(...(await this.#looked([image], counted)));
        return each;
      }
      const isRefused = isVarveError(error, 'DEVICE_IO');
      const found = isRefused
        ? await this.#content.again({ kind: 'home', first: counted, failure: error }, read)
        : undefined;
      if (found === undefined) {
        this.#core.counters.readErrors += 1;
        const source = { checksum: LOST_SUM, lsn: undefined, isLost: true };
        return [{ image: { ...first, checksum: LOST_SUM }, source }];
      }
    }
    return images.map((image, i): Kept => {
      const bytes = content.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
      if (isZero(bytes)) return { image, source: undefined };
      const checksum = bindChecksum(crc32c(bytes), this.#seed, image.block, image.from);
      const source = { checksum, lsn: undefined, content: bytes };
      return { image: { ...image, checksum }, source };
    });
  }

  async #sumOf(block: Block): Promise<Sum | undefined> {
    const { sidecar } = this.#core.final;
    try {
      return await sidecar.sum(block);
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      if (!isVarveError(error, 'DEVICE_IO')) return undefined;
      // The page has its attempts, and not each of its blocks.
      const { first } = sidecar.pageBlocks(pageOf(block));
      const refused = { kind: 'sums', first, failure: error } as const;
      return await this.#content.again(refused, () => sidecar.sum(block));
    }
  }

  async #put(kept: readonly Kept[]): Promise<void> {
    const { undo } = this.#core;
    const contents = await this.#content.of(
      kept.map(({ image, source }) => ({ block: image.block, generation: image.from, source })),
    );
    const stated = kept.map(({ image }, i): StatedImage => ({ image, content: contents[i] }));
    await this.#means.makeRoom(() => this.#heldBy(stated));
    await this.#means.attemptKept(async () => {
      // Pins may have gone while it waited for room.
      const isNeeded = ({ image: { from, until } }: StatedImage): boolean =>
        undo.isNeeded(from, until);
      await undo.put(stated.filter(isNeeded), this.#target);
    });
  }

  /** Bytes of what pins need by now. */
  #heldBy(stated: readonly StatedImage[]): number {
    const { undo } = this.#core;
    const isHeld = ({ image: { from, until }, content }: StatedImage): boolean =>
      content !== undefined && undo.isNeeded(from, until);
    return stated.filter(isHeld).length * BLOCK_BYTES;
  }
}

/** Adjacent blocks, in runs. @param images - ascending by block */
function adjacent(images: readonly BeforeImage[]): readonly (readonly BeforeImage[])[] {
  const runs: BeforeImage[][] = [];
  for (const image of images) {
    const run = runs.at(-1);
    const before = run?.at(-1);
    if (before !== undefined && before.block + 1 === image.block) run?.push(image);
    else runs.push([image]);
  }
  return runs;
}

/** In order of block; neighbours that were zeros over the same span become one image. */
function joined(found: readonly Kept[]): readonly Kept[] {
  const out = found.filter(({ source }) => source !== undefined);
  const zeros = found
    .filter(({ source }) => source === undefined)
    .sort(
      ({ image: a }, { image: b }) => a.from - b.from || a.until - b.until || a.block - b.block,
    );
  let last: BeforeImage | undefined;
  for (const { image } of zeros) {
    const isNext =
      last !== undefined &&
      last.from === image.from &&
      last.until === image.until &&
      endOfImage(last) === image.block;
    if (isNext && last !== undefined) {
      last = { ...last, count: blockCount(last.count + image.count) };
      out[out.length - 1] = { image: last, source: undefined };
    } else {
      last = image;
      out.push({ image, source: undefined });
    }
  }
  return out.sort(({ image: a }, { image: b }) => a.block - b.block || a.until - b.until);
}
