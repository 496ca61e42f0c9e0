/**
 * A search for a pattern in the versions that blocks had between two moments.
 *
 * Only blocks that changed between them are read, each distinct version once, and beside them the
 * edges of their neighbours, which have one version; or all blocks, when places that have the
 * pattern all the time are asked for as well.
 *
 * Invariants:
 *   - What is kept in memory is bounded by the limits below, however many versions there are.
 *   - The older moment is pinned meanwhile; when a round passes it for want of space, the search ends.
 *   - A version that can't be read is counted, and taken for one without the pattern.
 */
import { VarveError } from '../base/errors.ts';
import {
  block as blockOf,
  BLOCK_BYTES,
  blockCount,
  byteCount,
  byteOffset,
  generation as generationOf,
  type Block,
  type Generation,
} from '../base/units.ts';
import { isUnreadable, UnreadableError } from '../base/unreadable.ts';
import { STATE_ZERO } from '../device/block-device.ts';
import { FOUND_ZERO } from '../../index/found.ts';
import type { PinHandle } from '../../index/pins.ts';
import type { Core, PinReason } from './core.ts';
import type { SearchPage, SearchQuery, Spell } from './past-report.ts';
import { Pattern } from './pattern.ts';
import type { Reader } from './reader.ts';
import type { PointInTime, Progress } from './report.ts';
import { common, Spells, type Span } from './spells.ts';
import { BASE_ALLOCATION, type Status } from './status.ts';

/** Blocks read at once. */
const CHUNK_BLOCKS = 64;
/** Spans that one block may have, inside it and over its edge: what a page names beyond its limit. */
const BLOCK_SPELLS_MAX = 1000;
const VERSIONS_MAX = 256;
const WALK = { runsMax: 1000, probesMax: 65_536 };
/** Blocks of which it is asked at once whether they are zeros. */
const ZEROS_BLOCKS_MAX = 4096;
/** Others get a turn after so long. */
const TURN_US = 8000;

/** Blocks that changed, or did not: [start, end). */
interface Run {
  readonly start: number;
  readonly end: number;
  readonly changed: boolean;
  /** Also what did not change is read. */
  readonly throughout: boolean;
}

/** A block at both moments, where it can be read; of an edge only the first and last bytes count. */
interface Contents {
  readonly newest: Buffer | undefined;
  readonly oldest: Buffer | undefined;
  readonly isEdge: boolean;
}

/** What is known of the block before: the splits with which it ended, and when. */
interface Before {
  readonly block: number;
  readonly tails: Spells;
}

export interface SearchOptions {
  readonly core: Core;
  readonly reader: Reader;
  readonly status: Status;
  readonly query: SearchQuery;
  readonly progress: Progress;
}

export class Search {
  readonly #core: Core;
  readonly #reader: Reader;
  readonly #status: Status;
  readonly #query: SearchQuery;
  readonly #progress: Progress;
  readonly #pattern: Pattern;
  readonly #zeros = Buffer.alloc(BLOCK_BYTES);
  readonly #single = Buffer.alloc(BLOCK_BYTES);
  readonly #spells: Spell[] = [];
  #before: Before | undefined;
  /** Blocks before this one are known to hold data at the older moment. */
  #solidUntil = 0;
  #gone = false;
  #turnUs = 0;
  #versions = 0;
  #throughout = 0;
  #unreadable = 0;
  #left = 0;

  constructor({ core, reader, status, query, progress }: SearchOptions) {
    this.#core = core;
    this.#reader = reader;
    this.#status = status;
    this.#query = query;
    this.#progress = progress;
    this.#pattern = new Pattern(query.pattern);
  }

  /** Once. */
  async run(onUnpin: () => void): Promise<SearchPage> {
    const core = this.#core;
    const end = (): void => {
      this.#gone = true;
      core.unpin(pin);
    };
    const pin: PinHandle<PinReason> = core.pinOpen(this.#query.from, end);
    // What is accepted has its time once its batch is sealed.
    core.log.stream.seal();
    try {
      const next = await this.#walk();
      return {
        spells: this.#spells,
        next: next === undefined ? undefined : byteOffset(next),
        versions: this.#versions,
        throughout: this.#throughout,
        unreadable: this.#unreadable,
        left: this.#left,
      };
    } finally {
      if (!this.#gone) {
        core.unpin(pin);
        onUnpin();
      }
    }
  }

  /** @returns where the next page begins */
  async #walk(): Promise<number | undefined> {
    const { end, next, from, to, throughout } = this.#query;
    const { index, blocks } = this.#core;
    // The block before gives its edge, and the one behind as well.
    const first = Math.max(0, Math.floor(next / BLOCK_BYTES) - 1);
    const last = Math.min(blocks, Math.ceil(end / BLOCK_BYTES) + 1);
    for (let at = first; at < last;) {
      this.#needHeld();
      const walk = index.changed(blockOf(at), blockCount(last - at), from, to, WALK);
      for (const { start, count, changed } of walk.runs) {
        const full = await this.#run({ start, end: start + count, changed, throughout });
        if (full !== undefined) return full * BLOCK_BYTES;
      }
      at = walk.next;
    }
    return undefined;
  }

  /** @returns the block that the next page begins with, when this one is full */
  async #run({ start, end, changed, throughout }: Run): Promise<number | undefined> {
    if (changed || throughout) {
      for (let at = start; at < end;) {
        const zerosEnd = await this.#zerosFrom(at, end);
        // Of blocks that were nothing but zeros the first and the last one are edges.
        const skips = zerosEnd - at > 2;
        const stop = skips ? at + 1 : Math.min(end, at + CHUNK_BLOCKS);
        const full = await this.#chunk(at, stop, changed);
        if (full !== undefined) return full;
        at = skips ? zerosEnd - 1 : stop;
      }
      return undefined;
    }
    // Of what did not change only the edges count.
    await this.#chunk(start, start + 1, changed);
    if (end - 1 > start) await this.#chunk(end - 1, end, changed);
    return undefined;
  }

  /**
   * Making a file system trims all of a disk: what was blank before, and was never written, holds no
   * pattern at any moment.
   * @returns the end of the blocks that were zeros all the time; `start` when it was not
   */
  async #zerosFrom(start: number, end: number): Promise<number> {
    if (this.#pattern.isZeros || start < this.#solidUntil) return start;
    const { index } = this.#core;
    const bare = index.bareUntil(blockOf(start), blockOf(Math.min(end, start + ZEROS_BLOCKS_MAX)));
    if (bare <= start) return start;
    const offset = byteOffset(start * BLOCK_BYTES);
    const length = byteCount((bare - start) * BLOCK_BYTES);
    const [run] = await this.#status.runs(BASE_ALLOCATION, offset, length, 1, this.#query.from);
    await this.#turn();
    if (run === undefined) return start;
    const runEnd = start + Math.floor(run.length / BLOCK_BYTES);
    if ((run.flags & STATE_ZERO) !== 0) return runEnd;
    this.#solidUntil = runEnd;
    return start;
  }

  /** @returns the block that the next page begins with, when this one is full */
  async #chunk(start: number, end: number, changed: boolean): Promise<number | undefined> {
    const { offset, end: last, from, to, spellsMax, throughout } = this.#query;
    const newest = await this.#read(start, end, to);
    const oldest = changed ? await this.#read(start, end, from) : newest;
    for (let block = start; block < end; block++) {
      const at = block - start;
      const isEdge = !changed && !throughout;
      await this.#block(blockOf(block), { newest: newest[at], oldest: oldest[at], isEdge });
      // Behind the last block there is its edge to be looked at, and nothing for a page of its own.
      const isLast = (block + 1) * BLOCK_BYTES >= last;
      if (this.#spells.length >= spellsMax && !isLast) return block + 1;
    }
    this.#progress(Math.min(end * BLOCK_BYTES, last) - offset, last - offset);
    return undefined;
  }

  /** The blocks at a generation, each undefined when it can't be read. */
  async #read(start: number, end: number, at: Generation): Promise<(Buffer | undefined)[]> {
    const bytes = Buffer.alloc((end - start) * BLOCK_BYTES);
    const found: (Buffer | undefined)[] = [];
    for (let i = 0; i < end - start; i++) {
      found.push(bytes.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES));
    }
    const from = byteOffset(start * BLOCK_BYTES);
    try {
      await this.#reader.read(from, bytes, at);
    } catch (error) {
      this.#needHeld();
      if (!(error instanceof UnreadableError)) throw error;
      for (const { offset, length } of error.ranges) {
        found.fill(
          undefined,
          (offset - from) / BLOCK_BYTES,
          (offset - from + length) / BLOCK_BYTES,
        );
      }
    }
    await this.#turn();
    return found;
  }

  async #block(block: Block, { newest, oldest, isEdge }: Contents): Promise<void> {
    const { from, to } = this.#query;
    const inside = new Spells(BLOCK_SPELLS_MAX);
    const heads = new Spells(BLOCK_SPELLS_MAX);
    const tails = new Spells(BLOCK_SPELLS_MAX);
    const see = (content: Buffer | undefined, since: number, until: number): void => {
      this.#versions += 1;
      if (content === undefined) {
        this.#unreadable += 1;
        return;
      }
      for (const place of this.#pattern.inside(content)) inside.add(place, since, until);
      for (const split of this.#pattern.atHead(content)) heads.add(split, since, until);
      for (const split of this.#pattern.atTail(content)) tails.add(split, since, until);
    };
    let until = Infinity;
    for (let next: Generation | undefined = to; next !== undefined && next > from;) {
      const page = this.#core.index.versionsOf(block, next, VERSIONS_MAX);
      next = page.next;
      for (const { generation, found } of page.versions) {
        if (generation <= from) {
          next = undefined;
          break;
        }
        const isNewest = until === Infinity;
        const content =
          found === FOUND_ZERO
            ? this.#zeros
            : isNewest
              ? newest
              : await this.#one(block, generation);
        see(content, generation, until);
        until = generation;
      }
    }
    see(oldest, -Infinity, until);
    // The block before the page was told on the page before; only its edge is needed.
    if (block >= Math.floor(this.#query.next / BLOCK_BYTES)) {
      this.#left += inside.left + heads.left;
      this.#tell(block, isEdge ? undefined : inside, heads);
    }
    this.#before = { block, tails };
  }

  async #one(block: Block, generation: Generation): Promise<Buffer | undefined> {
    try {
      await this.#reader.read(byteOffset(block * BLOCK_BYTES), this.#single, generation);
    } catch (error) {
      this.#needHeld();
      if (!isUnreadable(error)) throw error;
      return undefined;
    }
    await this.#turn();
    return this.#single;
  }

  /** What a block, and its edge with the one before, add to the page. */
  #tell(block: Block, inside: Spells | undefined, heads: Spells): void {
    const base = block * BLOCK_BYTES;
    const { length } = this.#pattern;
    if (this.#before?.block === block - 1) {
      const { tails } = this.#before;
      for (let split = length - 1; split >= 1; split--) {
        this.#add(base - split, common(tails.of(split), heads.of(split)));
      }
    }
    if (inside === undefined) return;
    for (const [place, spans] of inside.all()) this.#add(base + place, spans);
  }

  #add(place: number, spans: readonly Span[]): void {
    const { offset, end, throughout, to } = this.#query;
    if (place < offset || place >= end || place + this.#pattern.length > this.#core.size) return;
    for (const { since, until } of spans) {
      if (since === -Infinity && until === Infinity && !throughout) {
        this.#throughout += 1;
        continue;
      }
      this.#spells.push({
        offset: byteOffset(place),
        since: since === -Infinity ? undefined : this.#point(since),
        last: until === Infinity ? to : generationOf(until - 1),
        gone: until === Infinity ? undefined : this.#point(until),
      });
    }
  }

  #point(at: number): PointInTime {
    const generation = generationOf(at);
    return { generation, wallUs: this.#core.timeline.wallAt(generation) };
  }

  #needHeld(): void {
    if (this.#core.closed) throw new VarveError('CLOSED', 'the volume is closed');
    if (this.#gone || this.#query.from < this.#core.horizon.generation)
      throw new VarveError('MOMENT_GONE', `generation ${this.#query.from}`);
  }

  async #turn(): Promise<void> {
    this.#needHeld();
    const nowUs = this.#core.world.clock.monotonicUs();
    if (nowUs - this.#turnUs < TURN_US) return;
    await this.#core.yieldTurn();
    this.#turnUs = this.#core.world.clock.monotonicUs();
    this.#needHeld();
  }
}
