/**
 * Where else a version of a block still is, when the copy that was read is damaged: the read cache,
 * final storage, or the log device, also in slots that were recycled and not overwritten yet.
 *
 * Invariants:
 *   - A copy is the version that was asked for, by the checksum that binds its block and
 *     generation: never an older one.
 *   - One search of the log device runs at a time. One for the same version is not repeated, but
 *     for one that met reads which the device refused: that one is, after a while.
 */
import { LRUCache } from 'lru-cache';
import { crc32c } from '../base/crc32c.ts';
import { Mutex } from '../base/mutex.ts';
import { BLOCK_BYTES, generation as generationOf, type Block } from '../base/units.ts';
import { isUnreadable } from '../base/unreadable.ts';
import { bindChecksum, volumeSeed } from '../format/block-checksum.ts';
import { SUM_DATA } from '../format/layouts.ts';
import { Leftovers, type WantedVersion } from '../../log/leftovers.ts';
import { TolerantReads } from '../../log/slots.ts';
import type { Core } from './core.ts';
import { settledTruths, type Truth } from './settled-truth.ts';

/** Versions known not to be on the log device; one that was not found never comes back. */
const MISSED_MAX = 4096;

/** While the device refuses reads, a version may only not have been seen: it is looked for again. */
const RETRY_US = 10_000_000;

export interface Version extends WantedVersion {
  readonly block: Block;
}

/** Where a copy was found. */
export type CopyPlace = 'the cache' | 'final storage' | 'the log';

export type OnCopy = (block: Block, content: Uint8Array, place: CopyPlace) => void;

export class OtherCopies {
  readonly #core: Core;
  readonly #seed: number;
  readonly #leftovers: Leftovers;
  readonly #searching = new Mutex();
  readonly #reads: TolerantReads;
  /** By version: until when it need not be looked for, in microseconds of the monotonic clock. */
  readonly #missed = new LRUCache<string, number>({ max: MISSED_MAX });

  constructor(core: Core) {
    this.#core = core;
    this.#seed = volumeSeed(core.uuid);
    this.#reads = new TolerantReads(core.log.device);
    this.#leftovers = new Leftovers(core.log.device, core.log.geometry, core.uuid);
  }

  /** Whether these 4096 bytes are that version. */
  fits({ block, generation, checksum }: Version, content: Uint8Array): boolean {
    return bindChecksum(crc32c(content), this.#seed, block, generation) === checksum;
  }

  /**
   * Gives each version that is found elsewhere to `onCopy`, once.
   * @param versions - of different blocks; the index vouches for each
   * @param options - `thorough`: every slot of the log is looked at, also for what was missed before
   */
  async ofLog(
    versions: readonly Version[],
    onCopy: OnCopy,
    { thorough }: { readonly thorough: boolean },
  ): Promise<void> {
    const missing = new Map<Block, Version>();
    for (const version of versions) {
      const near = this.#cached(version) ?? (await this.#atHome(version));
      if (near !== undefined) onCopy(version.block, near.content, near.place);
      else if (thorough || !this.#isMissed(version)) missing.set(version.block, version);
    }
    if (missing.size === 0) return;
    await this.#searching.run(async () => {
      const wanted = new Map<Block, WantedVersion>(missing);
      const { refusals } = this.#leftovers;
      const generations = [...new Set([...missing.values()].map(({ generation }) => generation))];
      const slots = thorough
        ? this.#leftovers.allSlots()
        : await this.#leftovers.slotsOf(generations);
      await this.#leftovers.search(slots, wanted, (block, content) => {
        onCopy(block, content, 'the log');
      });
      const isCertain = this.#leftovers.refusals === refusals;
      for (const block of wanted.keys()) this.#miss(missing.get(block), isCertain);
    });
  }

  /**
   * The same for blocks of final storage. Only their sums name these versions, and a sum may be
   * stale, because its last write was lost: so the log has to prove that none is newer.
   */
  async ofHome(versions: readonly Version[], onCopy: OnCopy): Promise<void> {
    const missing = new Map<Block, Version>();
    for (const version of versions) {
      const near = this.#cached(version) ?? (await this.#atHome(version));
      if (near !== undefined) onCopy(version.block, near.content, near.place);
      else if (!this.#isMissed(version)) missing.set(version.block, version);
    }
    if (missing.size === 0) return;
    await this.#searching.run(async () => {
      const oldest = Math.min(...[...missing.values()].map(({ generation }) => generation));
      const truths = await settledTruths(this.#core, new Set(missing.keys()), generationOf(oldest));
      for (const version of missing.values()) {
        const { refusals } = this.#reads;
        const truth = truths.of(version.block);
        const isProven =
          truth?.generation === version.generation && truth.checksum === version.checksum;
        const content = isProven ? await this.payloadOf(version, truth) : undefined;
        const isCertain = truths.isCertain && this.#reads.refusals === refusals;
        if (content === undefined) this.#miss(version, isCertain);
        else onCopy(version.block, content, 'the log');
      }
    });
  }

  /** What the log holds where it says that this version is; undefined when it is damaged, too. */
  async payloadOf(version: Version, truth: Truth): Promise<Uint8Array | undefined> {
    if (truth.payloadAt === undefined) return undefined;
    const content = await this.#reads.read(truth.payloadAt, BLOCK_BYTES);
    return content !== undefined && this.fits(version, content) ? content : undefined;
  }

  #isMissed(version: Version): boolean {
    return this.#core.world.clock.monotonicUs() < (this.#missed.get(keyOf(version)) ?? 0);
  }

  #miss(version: Version | undefined, isCertain: boolean): void {
    if (version === undefined) return;
    const until = isCertain ? Infinity : this.#core.world.clock.monotonicUs() + RETRY_US;
    this.#missed.set(keyOf(version), until);
  }

  #cached(version: Version): { content: Uint8Array; place: CopyPlace } | undefined {
    const content = this.#core.cache.atHome(version.block, version.generation);
    if (content === undefined || !this.fits(version, content)) return undefined;
    return { content, place: 'the cache' };
  }

  async #atHome(version: Version): Promise<{ content: Uint8Array; place: CopyPlace } | undefined> {
    const { final } = this.#core;
    const { block, generation, checksum } = version;
    // A scrub asks for what a header on the device says, which may be anything.
    if (block >= final.blocks) return undefined;
    try {
      const sum = await final.sidecar.sum(block);
      if (sum.kind !== SUM_DATA || sum.generation !== generation || sum.checksum !== checksum) {
        return undefined;
      }
      const content = new Uint8Array(BLOCK_BYTES);
      await final.readRaw(block, content);
      return this.fits(version, content) ? { content, place: 'final storage' } : undefined;
    } catch (error) {
      if (isUnreadable(error)) return undefined;
      throw error;
    }
  }
}

function keyOf({ block, generation, checksum }: Version): string {
  return `${block}:${generation}:${checksum}`;
}
