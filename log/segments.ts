/**
 * The table of segments: which slot of the log device holds which part of the stream. The only
 * place that knows where an LSN lies.
 *
 * Invariants:
 *   - Sequences grow and none is given out twice, so that of two segments that go on from the same
 *     position the newer one is known. Each live segment begins in the stream where the one before
 *     it ends; only the newest is open.
 *   - A slot holds at most one live segment; a slot that is free is in the free list once.
 *   - What is given up after a failed sync keeps its slots until it is durable elsewhere, if slots
 *     suffice: a process that is killed before that leaves it to the page cache.
 */
import { assert } from '../src/base/assert.ts';
import {
  BLOCK_BYTES,
  byteOffset,
  segmentSequence,
  slot as slotOf,
  type ByteOffset,
  type Checksum,
  type Generation,
  type Lsn,
  type SegmentSequence,
  type Slot,
} from '../src/base/units.ts';
import { slotOffset, type LogGeometry } from './geometry.ts';

export interface Segment {
  readonly sequence: SegmentSequence;
  readonly slot: Slot;
  readonly firstLsn: Lsn;
  /** Checksum of the last header before it. */
  readonly chain: Checksum;
  /** Its header block, until that is written. */
  header: Uint8Array | undefined;
  /** End in the stream; undefined while it is open. */
  endLsn: Lsn | undefined;
  /** Newest request that begins in it or before it. */
  lastGeneration: Generation;
  /** Bytes of its headers' used parts: the body of its summary. */
  summaryBytes: number;
  /** Copies of those used parts; undefined once the summary was given up or written. */
  summary: Uint8Array[] | undefined;
  batches: number;
}

/** What of a segment lay behind a cut: from there, or from its beginning, to `endLsn`. */
export interface Part {
  readonly segment: Segment;
  /** Undefined: it was the open one. */
  readonly endLsn: Lsn | undefined;
}

export class SegmentTable {
  readonly geometry: LogGeometry;
  readonly #live: Segment[] = [];
  readonly #free: Slot[] = [];
  /** Of what was given up, and is not durable elsewhere yet. */
  readonly #held: Slot[] = [];
  #nextSequence: SegmentSequence;

  /** @param next - a sequence above every one that was used */
  constructor(geometry: LogGeometry, live: readonly Segment[], next: SegmentSequence) {
    this.geometry = geometry;
    this.#nextSequence = next;
    this.#live.push(...live);
    const taken = new Set(live.map((segment) => segment.slot));
    assert(taken.size === live.length, 'a slot holds at most one live segment');
    const after = (live.at(-1)?.slot ?? -1) + 1;
    for (let i = 0; i < geometry.slotCount; i++) {
      const slot = slotOf((after + i) % geometry.slotCount);
      if (!taken.has(slot)) this.#free.push(slot);
    }
    this.check();
  }

  get live(): readonly Segment[] {
    return this.#live;
  }

  get freeSlots(): number {
    return this.#free.length;
  }

  get newest(): Segment | undefined {
    return this.#live.at(-1);
  }

  get oldest(): Segment | undefined {
    return this.#live[0];
  }

  /** @param header - makes the header block, once sequence and slot are known */
  open(
    segment: Omit<Segment, 'slot' | 'sequence' | 'header'>,
    header: (sequence: SegmentSequence, slot: Slot) => Uint8Array,
  ): Segment {
    const before = this.newest;
    assert(before === undefined || before.endLsn === segment.firstLsn, 'segments meet');
    const slot = this.#free.shift();
    assert(slot !== undefined, 'a free slot was reserved before a segment opens');
    const sequence = this.#nextSequence;
    this.#nextSequence = segmentSequence(sequence + 1);
    const opened = { ...segment, slot, sequence, header: header(sequence, slot) };
    this.#live.push(opened);
    return opened;
  }

  /** Gives back the slots of all segments before `sequence`. @returns the segments that went */
  recycle(sequence: SegmentSequence): readonly Segment[] {
    const gone: Segment[] = [];
    while (this.#live[0] !== undefined && this.#live[0].sequence < sequence) {
      const segment = this.#live.shift();
      if (segment === undefined) break;
      assert(segment.endLsn !== undefined, 'an open segment is not recycled');
      gone.push(segment);
      this.#free.push(segment.slot);
    }
    return gone;
  }

  /** What `cut` at `from` would take out of the table. */
  behind(from: Lsn): readonly Part[] {
    return this.#live
      .filter(({ endLsn }) => endLsn === undefined || endLsn > from)
      .map((segment) => ({ segment, endLsn: segment.endLsn }));
  }

  /** Whether what lies behind `from` finds other slots: its own count, but last. */
  canMove(from: Lsn): boolean {
    const parts = this.behind(from);
    const own = parts.filter(({ segment }) => segment.firstLsn >= from).length;
    return parts.length <= this.#free.length + own;
  }

  /**
   * Ends the table at `from`: what lay behind it has no place any more. Slots that held nothing
   * else are free again with `moved`, behind all others, so that a slot that failed is tried last; at
   * once where others don't suffice, or when what they held was written again itself.
   */
  cut(from: Lsn): readonly Part[] {
    const parts = this.behind(from);
    const holds = this.#held.length === 0 && parts.length <= this.#free.length;
    for (const { segment } of parts) {
      if (segment.firstLsn >= from) {
        assert(this.#live.pop() !== undefined, 'a segment behind the cut is live');
        (holds ? this.#held : this.#free).push(segment.slot);
      } else {
        assert(segment.header === undefined, 'a segment that is durable in part has its header');
        segment.endLsn = from;
        // Its batches are read one by one: a summary that it may have lists more than counts.
        segment.summary = undefined;
      }
    }
    return parts;
  }

  /** What was cut is durable in other slots. */
  moved(): void {
    this.#free.push(...this.#held.splice(0));
  }

  /** The live segment that holds `position`. */
  find(position: Lsn): Segment {
    let low = 0;
    let high = this.#live.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if ((this.#live[middle]?.firstLsn ?? 0) <= position) low = middle;
      else high = middle - 1;
    }
    const segment = this.#live[low];
    assert(
      segment !== undefined && segment.firstLsn <= position,
      'a position that is read lies in a live segment',
    );
    assert(segment.endLsn === undefined || position < segment.endLsn, 'and before its end');
    return segment;
  }

  place(segment: Segment, position: Lsn): ByteOffset {
    const inside = BLOCK_BYTES + (position - segment.firstLsn);
    assert(inside < this.geometry.segmentBytes, 'a position lies inside its slot');
    return byteOffset(slotOffset(this.geometry, segment.slot) + inside);
  }

  check(): void {
    let previous: Segment | undefined;
    for (const segment of this.#live) {
      if (previous !== undefined) {
        assert(segment.sequence > previous.sequence, 'sequences grow');
        assert(previous.endLsn === segment.firstLsn, 'segments meet in the stream');
        assert(segment.firstLsn >= previous.firstLsn, 'the stream only grows');
      }
      previous = segment;
    }
    assert(
      previous === undefined || previous.sequence < this.#nextSequence,
      'a new segment gets a new sequence',
    );
    const slots = [...this.#free, ...this.#held, ...this.#live.map((segment) => segment.slot)];
    assert(
      new Set(slots).size === slots.length && slots.length === this.geometry.slotCount,
      'every slot is free, held or live, once',
    );
  }
}
