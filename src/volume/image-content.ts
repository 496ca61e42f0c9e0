/**
 * What before-images hold, read from home or log and verified: many in few reads, since a round
 * replaces blocks that lie close to each other.
 *
 * Invariant: what fails its checksum, or is refused, was looked at by itself before another copy is
 * asked; what nobody can read is the mark of a lost block, never something else.
 */
import { crc32c } from '../base/crc32c.ts';
import { isVarveError, type VarveError } from '../base/errors.ts';
import { inParallel } from '../base/parallel.ts';
import {
  block as blockOf,
  BLOCK_BYTES,
  lsn as lsnOf,
  type Block,
  type Checksum,
  type Generation,
  type Lsn,
} from '../base/units.ts';
import { isUnreadable } from '../base/unreadable.ts';
import { bindChecksum, volumeSeed } from '../format/block-checksum.ts';
import { markLost } from '../format/sums.ts';
import type { Core } from './core.ts';
import { lastLook, type Refused } from './last-look.ts';
import type { Version } from './other-copies.ts';
import type { Means } from './settle.ts';

/** Where what a version was can be had. */
export interface Source {
  readonly checksum: Checksum;
  /** Undefined: at home. */
  readonly lsn: Lsn | undefined;
  /** Nobody knows what it was. */
  readonly isLost?: boolean;
  /** Of what is neither at home nor in the log: what the base has. */
  readonly content?: Uint8Array | undefined;
}

export interface Wanted {
  readonly block: Block;
  readonly generation: Generation;
  /** Undefined: zeros, which need nothing. */
  readonly source: Source | undefined;
}

/** Reads at once. */
const PARALLEL = 16;
/** What is read along between two blocks costs less than another read. */
const GAP_BYTES = 8 * BLOCK_BYTES;
/** One read; with as many at once as there are workers, this is their memory. */
const SPAN_BYTES = 64 * BLOCK_BYTES;

/** Blocks that one read brings. */
interface Span {
  readonly start: number;
  end: number;
  /** Undefined: at home. */
  readonly segment: number | undefined;
  readonly members: { readonly at: number; readonly position: number }[];
}

export class ImageContent {
  readonly #core: Core;
  readonly #means: Means;
  readonly #seed: number;
  /** What `of` gave last lies here. */
  #slab = new Uint8Array(0);

  constructor(core: Core, means: Means) {
    this.#core = core;
    this.#means = means;
    this.#seed = volumeSeed(core.uuid);
  }

  /**
   * @returns in the same order, until it is called again; undefined for zeros
   * @throws VarveError DEVICE_IO where a device fails, unless it is given up
   */
  async of(wanted: readonly Wanted[]): Promise<readonly (Uint8Array | undefined)[]> {
    const contents = await this.#together(wanted);
    await inParallel(wanted, PARALLEL, async ({ block, generation, source }, i) => {
      if (source === undefined || contents[i] !== undefined) return;
      contents[i] = await this.#one(block, generation, source);
    });
    return contents;
  }

  /** What can be had with few reads. */
  async #together(wanted: readonly Wanted[]): Promise<(Uint8Array | undefined)[]> {
    const contents = wanted.map(() => undefined as Uint8Array | undefined);
    const spans = [...this.#homeSpans(wanted), ...this.#logSpans(wanted)];
    if (this.#slab.length < wanted.length * BLOCK_BYTES) {
      this.#slab = new Uint8Array(wanted.length * BLOCK_BYTES);
    }
    const slab = this.#slab;
    await inParallel(spans, PARALLEL, async ({ start, end, segment, members }) => {
      if (members.length === 1) return;
      const bytes = new Uint8Array(end - start);
      try {
        if (segment === undefined)
          await this.#core.final.readRaw(blockOf(start / BLOCK_BYTES), bytes);
        else await this.#core.log.readSlot(lsnOf(start), bytes);
      } catch (error) {
        if (!isUnreadable(error)) throw error;
        return;
      }
      for (const { at, position } of members) {
        const one = wanted[at];
        const read = bytes.subarray(position - start, position - start + BLOCK_BYTES);
        if (one?.source === undefined || !this.#fits(read, one.block, one.generation, one.source))
          continue;
        const content = slab.subarray(at * BLOCK_BYTES, (at + 1) * BLOCK_BYTES);
        content.set(read);
        contents[at] = content;
      }
    });
    return contents;
  }

  #homeSpans(wanted: readonly Wanted[]): readonly Span[] {
    return spansOf(
      wanted.flatMap(({ block, source }, at) => {
        const isHome = source !== undefined && source.lsn === undefined;
        if (!isHome || source.isLost === true || source.content !== undefined) return [];
        return [{ at, position: block * BLOCK_BYTES, segment: undefined }];
      }),
    );
  }

  #logSpans(wanted: readonly Wanted[]): readonly Span[] {
    const { log, references } = this.#core;
    return spansOf(
      wanted.flatMap(({ source }, at) => {
        const position = source?.lsn;
        if (position === undefined || log.ring.holds(position)) return [];
        return [{ at, position, segment: references.segmentOf(position) }];
      }),
    );
  }

  #fits(content: Uint8Array, block: Block, from: Generation, { checksum }: Source): boolean {
    return bindChecksum(crc32c(content), this.#seed, block, from) === checksum;
  }

  async #one(block: Block, from: Generation, source: Source): Promise<Uint8Array> {
    const { checksum, lsn, isLost = false, content: known } = source;
    if (known !== undefined) return known;
    const lost = new Uint8Array(BLOCK_BYTES);
    markLost(lost);
    if (isLost) return lost;
    const version: Version = { block, generation: from, checksum };
    const content = new Uint8Array(BLOCK_BYTES);
    let failure: VarveError | undefined;
    for (let look = 0; look < 2; look++) {
      try {
        if (lsn === undefined) await this.#core.final.readRaw(block, content);
        else await this.#readLog(lsn, content);
        if (this.#fits(content, block, from, source)) return content;
      } catch (error) {
        if (!isVarveError(error, 'DEVICE_IO')) throw error;
        failure = error;
      }
    }
    this.#core.counters.readErrors += 1;
    const saved: { content?: Uint8Array } = {};
    const onCopy = (_: Block, copy: Uint8Array): void => {
      saved.content = copy.slice();
      this.#core.counters.readRescues += 1;
    };
    const { copies } = this.#means;
    if (lsn === undefined) await copies.ofHome([version], onCopy);
    else await copies.ofLog([version], onCopy, { thorough: true });
    if (saved.content !== undefined) return saved.content;
    if (failure === undefined) return lost;
    const kind = lsn === undefined ? 'home' : 'log';
    const again = await this.again({ kind, first: block, failure }, async () => {
      if (lsn === undefined) await this.#core.final.readRaw(block, content);
      else await this.#readLog(lsn, content);
      return this.#fits(content, block, from, source) ? content : undefined;
    });
    return again ?? lost;
  }

  async #readLog(lsn: Lsn, content: Uint8Array): Promise<void> {
    const { log } = this.#core;
    if (log.ring.holds(lsn)) content.set(log.ring.blockAt(lsn));
    else await log.readSlot(lsn, content);
  }

  /**
   * A last look at what a device refused.
   * @returns undefined: it is given up
   * @throws VarveError `failure`: the round is to be made again
   */
  async again<T>(
    refused: Pick<Refused, 'kind' | 'first' | 'failure'>,
    read: () => Promise<T | undefined>,
  ): Promise<T | undefined> {
    const { final, log } = this.#core;
    const { givesUp } = this.#means;
    const isThere = (): Promise<boolean> => (refused.kind === 'log' ? log : final).isThere();
    return await lastLook({ ...refused, givesUp, isThere }, read);
  }
}

interface Placed {
  readonly at: number;
  /** In bytes: at home, or an LSN. */
  readonly position: number;
  readonly segment: number | undefined;
}

function spansOf(placed: readonly Placed[]): readonly Span[] {
  const spans: Span[] = [];
  for (const { at, position, segment } of [...placed].sort((a, b) => a.position - b.position)) {
    const last = spans.at(-1);
    const end = position + BLOCK_BYTES;
    const isNear =
      last !== undefined &&
      last.segment === segment &&
      position - last.end <= GAP_BYTES &&
      end - last.start <= SPAN_BYTES;
    if (isNear) {
      last.end = end;
      last.members.push({ at, position });
    } else spans.push({ start: position, end, segment, members: [{ at, position }] });
  }
  return spans;
}
