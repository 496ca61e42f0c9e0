/**
 * The write path: requests of any offset and length become one generation each, whole or not at
 * all, in the order in which they find room.
 *
 * Invariants:
 *   - `put` runs without an await: generation, ring and index change together.
 *   - A partial block was merged with the newest version, and that is still the newest when it is
 *     put; else it is read again. Content that can't be verified is never merged.
 *   - Who waits for room waits in order of arrival; nobody overtakes.
 *   - Nothing of a client that is gone is put: it would lie over what others have written since.
 */
import { assert } from '../base/assert.ts';
import { crc32c } from '../base/crc32c.ts';
import { VarveError } from '../base/errors.ts';
import { newUuid } from '../base/identity.ts';
import { Mutex } from '../base/mutex.ts';
import {
  block as blockOf,
  BLOCK_BYTES,
  blockCount,
  byteOffset,
  type Block,
  type BlockCount,
  type ByteCount,
  type ByteOffset,
  type Generation,
} from '../base/units.ts';
import type { Done, ZeroOptions } from '../device/block-device.ts';
import { KIND_ALLOCATE, KIND_TRIM, KIND_ZERO } from '../format/layouts.ts';
import { RANGE_ALLOCATE, RANGE_TRIM, RANGE_ZERO, type RangeKind } from '../../index/found.ts';
import { lineageEntry, recordBlock, type Lineage } from './catalogue-entries.ts';
import type { Core } from './core.ts';
import { LATEST, type Reader } from './reader.ts';
import { RANGE_RECORDS_MAX } from './water.ts';

/** A block that a request covers in part: its bytes, and where they go. */
interface Edge {
  readonly block: Block;
  /** Where in the block the new bytes begin. */
  readonly at: number;
  readonly bytes: Uint8Array;
  /** All that the disk has of its last block: what was there before does not matter. */
  readonly isWhole?: boolean;
}

interface Range {
  readonly kind: number;
  readonly start: Block;
  readonly count: BlockCount;
}

/** A request, taken apart. */
interface Parts {
  readonly edges: readonly Edge[];
  /** Whole blocks. */
  readonly first: Block;
  readonly body: Uint8Array;
  readonly range: Range | undefined;
  readonly fua: boolean;
  readonly by: Writer;
}

/** A session of the live disk. */
export interface Client {
  /** Nobody waits for its answers any more. */
  readonly isGone: boolean;
}

/** Who asks: while a stream is received, clients are refused. */
export type Writer = Client | 'receive' | 'rollback';

interface Merged {
  readonly block: Block;
  readonly content: Uint8Array;
  /** Newest version when it was read; 0: none in the window. */
  readonly version: Generation;
}

/** What a rollback puts: content, or zeros of a kind of entry. */
export type PutBack = {
  readonly first: Block;
  readonly count: BlockCount;
  readonly by: Writer;
} & ({ readonly kind: undefined; readonly body: Uint8Array } | { readonly kind: number });

/** Whether there is room, or what it is that has to free some. */
type Room = 'yes' | 'ring' | 'log';

const NOTHING = new Uint8Array(0);
const RANGE_KINDS: ReadonlyMap<number, RangeKind> = new Map([
  [KIND_TRIM, RANGE_TRIM],
  [KIND_ZERO, RANGE_ZERO],
  [KIND_ALLOCATE, RANGE_ALLOCATE],
]);

export function rangeKindOf(kind: number): RangeKind {
  const found = RANGE_KINDS.get(kind);
  assert(found !== undefined, 'a range entry is trim, zero or allocate');
  return found;
}

export class Appender {
  readonly #core: Core;
  readonly #reader: Reader;
  /** Starts a round if one can free something. @returns whether waiting makes sense */
  readonly #makeRoom: () => boolean;
  /** Why rounds can't go on at present. */
  readonly #failedRound: () => VarveError | undefined;
  readonly #admission = new Mutex();
  #resume: (() => void) | undefined;
  /** Requests of clients that are not put yet. */
  #waiting = 0;
  #onQuiet: () => void = () => undefined;
  #lineageStarted = false;
  #lastFlush: Generation;
  /** The newest flush has no mark yet: there was no room, and the next request brings it. */
  #markOwed = false;
  #crcs = new Uint32Array(64);
  payloadBytes = 0;
  /** Requests with a range, and what the ranges covered. */
  trims = 0;
  trimmedBytes = 0;

  constructor(
    core: Core,
    reader: Reader,
    rounds: { makeRoom: () => boolean; failure: () => VarveError | undefined },
  ) {
    this.#core = core;
    this.#reader = reader;
    this.#makeRoom = rounds.makeRoom;
    this.#failedRound = rounds.failure;
    this.#lastFlush = core.head;
  }

  write(offset: ByteOffset, source: Uint8Array, fua: boolean, by: Writer): Done {
    const core = this.#core;
    core.needWritable();
    core.counters.writes += 1;
    core.counters.writeBytes += source.length;
    if (source.length === 0) return undefined;
    const parts = splitWrite(offset, source, fua, { size: core.size, by });
    if (parts.edges.length === 0 && !this.#admission.busy) {
      this.#checksum(parts.body);
      if (this.#roomFor(parts) === 'yes') {
        this.#put(parts, []);
        return this.#acknowledge(fua);
      }
    }
    return this.#writeSlowly(parts);
  }

  /** Whole blocks only; what a trim covers in part stays. */
  trim(offset: ByteOffset, length: ByteCount, fua: boolean, by: Writer): Done {
    this.#core.needWritable();
    this.#core.counters.trims += 1;
    const first = Math.ceil(offset / BLOCK_BYTES);
    const volumeEnd = offset + length >= this.#core.size;
    const end = volumeEnd ? this.#core.blocks : Math.floor((offset + length) / BLOCK_BYTES);
    if (end <= first) return undefined;
    const range = { kind: KIND_TRIM, start: blockOf(first), count: blockCount(end - first) };
    return this.#putRange({ edges: [], first: range.start, body: NOTHING, range, fua, by });
  }

  zero(offset: ByteOffset, length: ByteCount, options: ZeroOptions, by: Writer): Done {
    this.#core.needWritable();
    this.#core.counters.zeroes += 1;
    if (length === 0) return undefined;
    return this.#putRange(splitZero(offset, length, options, { size: this.#core.size, by }));
  }

  flush(): Done {
    const core = this.#core;
    if (core.closed) throw new VarveError('CLOSED', 'the volume is closed');
    if (core.failure !== undefined) throw core.failure;
    core.counters.flushes += 1;
    if (core.readOnly) return undefined;
    const { stream } = core.log;
    const head = core.head;
    // Only a flush after new requests is a boundary that somebody may want to go back to.
    if (head > this.#lastFlush) {
      this.#lastFlush = head;
      this.#markOwed = true;
    }
    if (this.#markOwed && stream.room(0, 1, false) === 'yes') this.#putMark();
    return this.settle();
  }

  /** Makes durable what was put, as a flush does; no boundary that anybody asked for. */
  settle(): Done {
    const { writer } = this.#core.log;
    const end = writer.contentEnd;
    return end <= writer.durable.lsn ? undefined : writer.waitDurable(end);
  }

  /**
   * Has catalogue records put in their turn; they wait for room as a write does.
   * @throws VarveError LOG_FULL and others, as a write
   */
  async record(put: () => void, count = 1): Promise<void> {
    await this.#admission.run(async () => {
      await this.#waitForRoom(() => this.#core.log.stream.room(count, count, false), put);
    });
  }

  /**
   * Whole blocks, or a range of zeros, as a request of the volume's own. It waits for room, and not
   * until it is durable.
   * @throws VarveError as a write
   */
  async putBack(what: PutBack): Promise<void> {
    const { first, count, kind, by } = what;
    const isData = kind === undefined;
    const body = isData ? what.body : NOTHING;
    const range = isData ? undefined : { kind, start: first, count };
    const parts: Parts = { edges: [], first, body, range, fua: false, by };
    await this.#admission.run(async () => {
      const put = (): void => {
        this.#checksum(body);
        this.#put(parts, []);
      };
      await this.#waitForRoom(() => this.#roomFor(parts), put);
    });
    this.#core.log.writer.linger();
  }

  /** Settles when every request that waits for something was put, or has failed. */
  async quiet(): Promise<void> {
    while (this.#waiting > 0) {
      await new Promise<void>((resume) => {
        this.#onQuiet = resume;
      });
    }
  }

  /** After a sync, a round or a failure: who waits for room looks again. */
  wake(): void {
    this.#resume?.();
    this.#resume = undefined;
  }

  #putRange(parts: Parts): Done {
    if (parts.edges.length === 0 && !this.#admission.busy && this.#roomFor(parts) === 'yes') {
      this.#put(parts, []);
      return this.#acknowledge(parts.fua);
    }
    return this.#writeSlowly(parts);
  }

  #roomFor(parts: Parts): Room {
    const payloads = parts.body.length / BLOCK_BYTES + parts.edges.length;
    const ranges = parts.range === undefined ? 0 : 1;
    if (ranges === 1 && this.#core.index.rangeRecords >= RANGE_RECORDS_MAX) return 'log';
    // The first write of an opening brings a lineage record, and closes the open batch for it.
    const more = (this.#lineageStarted ? 0 : 2) + (this.#markOwed ? 1 : 0);
    return this.#core.log.stream.room(payloads + more, payloads + ranges + more, false);
  }

  async #writeSlowly(parts: Parts): Promise<void> {
    this.#waiting += 1;
    try {
      await this.#putInTurn(parts);
    } finally {
      this.#waiting -= 1;
      if (this.#waiting === 0) this.#onQuiet();
    }
    await this.#acknowledge(parts.fua);
  }

  async #putInTurn(parts: Parts): Promise<void> {
    const early = await this.#mergeAll(parts.edges);
    await this.#admission.run(async () => {
      const roomFor = (): Room => this.#roomFor(parts);
      await this.#waitForRoom(roomFor);
      let merged = early;
      // While this request holds the admission nothing else is put, so one more reading is enough.
      // A flush or a catalogue record may still take room, so that is looked at again as well.
      while (this.#isStale(merged) || this.#roomFor(parts) !== 'yes') {
        if (this.#isStale(merged)) merged = await this.#mergeAll(parts.edges);
        await this.#waitForRoom(roomFor);
      }
      this.#checksum(parts.body);
      this.#put(parts, merged);
    });
  }

  #isStale(merged: readonly Merged[]): boolean {
    return merged.some(({ block, version }) => this.#newest(block) !== version);
  }

  async #mergeAll(edges: readonly Edge[]): Promise<readonly Merged[]> {
    const merged: Merged[] = [];
    for (const edge of edges) merged.push(await this.#merge(edge));
    return merged;
  }

  /** @param put - with the room: who awaits this may find that others have taken it */
  async #waitForRoom(roomFor: () => Room, put: () => void = () => undefined): Promise<void> {
    const { log } = this.#core;
    for (;;) {
      this.#core.needWritable();
      const room = roomFor();
      if (room === 'yes') {
        put();
        return;
      }
      if (room === 'ring') log.writer.requestDurable(log.stream.nextLsn);
      else if (!this.#makeRoom()) throw this.#full();
      await new Promise<void>((resume) => {
        this.#resume = resume;
      });
    }
  }

  #full(): VarveError {
    const failure = this.#failedRound();
    if (failure !== undefined) return failure;
    const held = this.#core.heldBack;
    if (held === undefined) return new VarveError('LOG_FULL', 'no segment can be recycled');
    return new VarveError('LOG_FULL', `a rollback to generation ${held} stops recycling`);
  }

  #newest(block: Block): Generation {
    const { index } = this.#core;
    return index.find(block, LATEST) === 0 ? this.#core.settled : index.foundGeneration;
  }

  async #merge(edge: Edge): Promise<Merged> {
    const content = new Uint8Array(BLOCK_BYTES);
    const version = this.#newest(edge.block);
    if (edge.isWhole !== true)
      await this.#reader.read(byteOffset(edge.block * BLOCK_BYTES), content, LATEST);
    content.set(edge.bytes, edge.at);
    return { block: edge.block, content, version };
  }

  #checksum(body: Uint8Array): void {
    const count = body.length / BLOCK_BYTES;
    if (this.#crcs.length < count) this.#crcs = new Uint32Array(count * 2);
    if (count === 1) {
      this.#crcs[0] = crc32c(body);
      return;
    }
    for (let i = 0; i < count; i++) {
      this.#crcs[i] = crc32c(body.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES));
    }
  }

  /** One step without an await: generation, ring, index. */
  #put(parts: Parts, merged: readonly Merged[]): void {
    const core = this.#core;
    const { stream } = core.log;
    // Asked last of all: it may have waited while its client went, or a receive began.
    const { by } = parts;
    if (typeof by === 'object') {
      if (by.isGone) throw new VarveError('CLOSED', 'the client went before this was written');
      core.needNoReceive('it takes no writes');
    }
    if (this.#markOwed) this.#putMark();
    if (!this.#lineageStarted) this.#startLineage();
    const { body, range, fua, first } = parts;
    const bodyCount = body.length / BLOCK_BYTES;
    let left = bodyCount + merged.length + (range === undefined ? 0 : 1);
    const generation = stream.beginRequest();
    for (const { block, content } of merged) {
      left -= 1;
      const position = stream.putData(block, content, 0, crc32c(content), left === 0, fua);
      core.index.putBlock(block, generation, position, stream.lastChecksum);
    }
    for (let i = 0; i < bodyCount; i++) {
      left -= 1;
      const block = blockOf(first + i);
      const crc = this.#crcs[i] ?? 0;
      const position = stream.putData(block, body, i * BLOCK_BYTES, crc, left === 0, fua);
      core.index.putBlock(block, generation, position, stream.lastChecksum);
    }
    if (range !== undefined) {
      stream.putRange(range.kind, range.start, range.count, true, fua);
      core.index.putRange(range.start, range.count, generation, rangeKindOf(range.kind));
      this.trims += 1;
      this.trimmedBytes += range.count * BLOCK_BYTES;
    }
    this.payloadBytes += (bodyCount + merged.length) * BLOCK_BYTES;
  }

  #putMark(): void {
    const core = this.#core;
    core.log.stream.putFlush();
    core.timeline.addFlush(core.head);
    this.#markOwed = false;
  }

  /** Generations that a crash took are never confused with those that are given out now. */
  #startLineage(): void {
    const core = this.#core;
    const { stream } = core.log;
    const lineage: Lineage = {
      uuid: newUuid(core.world.random),
      parent: stream.lineage,
      parentGeneration: core.head,
      createdWallUs: core.world.clock.wallUs(),
    };
    stream.startLineage(lineage.uuid);
    const entry = lineageEntry(lineage);
    stream.putRecord(recordBlock(entry));
    core.catalogue.apply(entry);
    this.#lineageStarted = true;
  }

  #acknowledge(fua: boolean): Done {
    const { writer, stream } = this.#core.log;
    const end = stream.nextLsn;
    if (fua || this.#core.writeMode === 'through') return writer.waitDurable(end);
    writer.linger();
    return this.#core.writeMode === 'written' ? writer.waitWritten(end) : undefined;
  }
}

/** Partial blocks at either end, whole blocks between. */
function splitWrite(
  offset: ByteOffset,
  source: Uint8Array,
  fua: boolean,
  { size, by }: { readonly size: ByteCount; readonly by: Writer },
): Parts {
  const edges: Edge[] = [];
  const isToEnd = offset + source.length === size;
  let at = 0;
  const into = offset % BLOCK_BYTES;
  const firstBlock = Math.floor(offset / BLOCK_BYTES);
  if (into !== 0 || source.length < BLOCK_BYTES) {
    at = Math.min(source.length, BLOCK_BYTES - into);
    const isWhole = into === 0 && isToEnd;
    edges.push({ block: blockOf(firstBlock), at: into, bytes: source.subarray(0, at), isWhole });
  }
  const first = blockOf((offset + at) / BLOCK_BYTES);
  const whole = Math.floor((source.length - at) / BLOCK_BYTES) * BLOCK_BYTES;
  if (at + whole < source.length) {
    const block = blockOf(first + whole / BLOCK_BYTES);
    edges.push({ block, at: 0, bytes: source.subarray(at + whole), isWhole: isToEnd });
  }
  const body = at === 0 && whole === source.length ? source : source.subarray(at, at + whole);
  return { edges, first, body, range: undefined, fua, by };
}

function splitZero(
  offset: ByteOffset,
  length: ByteCount,
  { fua, allocate }: ZeroOptions,
  { size, by }: { readonly size: ByteCount; readonly by: Writer },
): Parts {
  const end = offset + length;
  const first = Math.ceil(offset / BLOCK_BYTES);
  // The volume's last block may be a partial one: to its end is to the block's end.
  const last = end === size ? Math.ceil(end / BLOCK_BYTES) : Math.floor(end / BLOCK_BYTES);
  const edges: Edge[] = [];
  const edge = (block: number, from: number, to: number): void => {
    edges.push({ block: blockOf(block), at: from, bytes: new Uint8Array(to - from) });
  };
  if (first > last) {
    edge(last, offset - last * BLOCK_BYTES, end - last * BLOCK_BYTES);
  } else {
    if (first * BLOCK_BYTES > offset)
      edge(first - 1, offset - (first - 1) * BLOCK_BYTES, BLOCK_BYTES);
    if (end > last * BLOCK_BYTES) edge(last, 0, end - last * BLOCK_BYTES);
  }
  const kind = allocate ? KIND_ALLOCATE : KIND_ZERO;
  const range =
    last > first ? { kind, start: blockOf(first), count: blockCount(last - first) } : undefined;
  return { edges, first: blockOf(first), body: NOTHING, range, fua, by };
}
