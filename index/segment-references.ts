/**
 * Which segment a version lies in, and who still needs it: live versions and readers per segment.
 *
 * Invariants:
 *   - Segments are open in LSN order and sequence order; the first LSN of the next one is the end
 *     of one, so an LSN lies in exactly one segment, or in one that was dropped.
 *   - `live` is the number of versions in the index whose LSN lies in the segment.
 *   - A segment with live versions or readers is not dropped.
 */
import { assert } from '../src/base/assert.ts';
import { lsn as toLsn, type Lsn, type SegmentSequence } from '../src/base/units.ts';

interface Segment {
  readonly sequence: SegmentSequence;
  readonly lsnFirst: Lsn;
  /** The first LSN after it; Infinity for the newest. */
  lsnEnd: Lsn;
  live: number;
  readers: number;
}

export interface MovedSegment {
  readonly from: SegmentSequence;
  readonly to: SegmentSequence;
  readonly firstLsn: Lsn;
  /** Live versions in it. */
  readonly versions: number;
}

const LSN_OPEN = toLsn(Infinity);

export class SegmentReferences {
  /** Oldest first. */
  readonly #segments: Segment[] = [];
  readonly #bySequence = new Map<SegmentSequence, Segment>();
  /** Versions leave oldest first: the segment of the last one that left. */
  #leaving: Segment | undefined;
  #newest: Segment | undefined;

  get count(): number {
    return this.#segments.length;
  }

  open(sequence: SegmentSequence, lsnFirst: Lsn): void {
    const last = this.#newest;
    if (last !== undefined) {
      assert(sequence > last.sequence, 'segments are opened in sequence order');
      assert(lsnFirst > last.lsnFirst, 'segments are opened in LSN order');
      if (last.lsnEnd === LSN_OPEN) last.lsnEnd = lsnFirst;
    }
    const segment: Segment = { sequence, lsnFirst, lsnEnd: LSN_OPEN, live: 0, readers: 0 };
    this.#newest = segment;
    this.#segments.push(segment);
    this.#bySequence.set(sequence, segment);
  }

  /** Forgets a segment that is about to be recycled. */
  drop(sequence: SegmentSequence): void {
    const segment = this.#get(sequence);
    assert(segment.live === 0, 'a segment with live versions is not recycled');
    assert(segment.readers === 0, 'a segment with readers is not recycled');
    this.#segments.splice(this.#segments.indexOf(segment), 1);
    this.#bySequence.delete(sequence);
    if (this.#leaving === segment) this.#leaving = undefined;
    if (this.#newest === segment) this.#newest = this.#segments[this.#segments.length - 1];
  }

  /**
   * The stream from `from` on was laid out again: what lay there in old segments lies in new ones.
   * Nobody reads those parts from their slots yet, because the ring holds them.
   */
  reslot(from: Lsn, moves: readonly MovedSegment[]): void {
    for (const { from: old, versions } of moves) {
      const segment = this.#get(old);
      assert(segment.live >= versions, 'versions that move were counted where they lay');
      segment.live -= versions;
      if (segment.lsnFirst >= from) this.drop(old);
      else segment.lsnEnd = from;
    }
    for (const { to, firstLsn, versions } of moves) {
      this.open(to, firstLsn);
      this.#get(to).live = versions;
    }
  }

  /** The segment that holds this LSN. */
  segmentOf(lsn: Lsn): SegmentSequence {
    return this.#segmentAt(lsn).sequence;
  }

  /** The first LSN of a segment. */
  lsnFirst(sequence: SegmentSequence): Lsn {
    return this.#get(sequence).lsnFirst;
  }

  versionAdded(lsn: Lsn): void {
    const newest = this.#newest;
    if (newest !== undefined && lsn >= newest.lsnFirst && lsn < newest.lsnEnd) newest.live++;
    else this.#segmentAt(lsn).live++;
  }

  versionDropped(lsn: Lsn): void {
    let segment = this.#leaving;
    if (segment === undefined || lsn < segment.lsnFirst || lsn >= segment.lsnEnd) {
      segment = this.#segmentAt(lsn);
      this.#leaving = segment;
    }
    assert(segment.live > 0, 'a version that leaves a segment was counted there');
    segment.live--;
  }

  /** A reader needs the segment's slot until it releases it. */
  acquire(sequence: SegmentSequence): void {
    this.#get(sequence).readers++;
  }

  release(sequence: SegmentSequence): void {
    const segment = this.#get(sequence);
    assert(segment.readers > 0, 'a reader releases what it acquired');
    segment.readers--;
  }

  readers(sequence: SegmentSequence): number {
    return this.#get(sequence).readers;
  }

  live(sequence: SegmentSequence): number {
    return this.#get(sequence).live;
  }

  has(sequence: SegmentSequence): boolean {
    return this.#bySequence.has(sequence);
  }

  /** @param recount - live versions per segment, counted from the index; absent means none */
  check(recount: ReadonlyMap<SegmentSequence, number>): void {
    let before: Segment | undefined;
    for (const segment of this.#segments) {
      assert(
        segment.live === (recount.get(segment.sequence) ?? 0),
        'a segment counts its live versions',
      );
      assert(segment.readers >= 0, 'readers are not negative');
      if (before !== undefined) {
        assert(before.sequence < segment.sequence, 'segments are in sequence order');
        assert(before.lsnEnd <= segment.lsnFirst, 'segments do not overlap');
      }
      before = segment;
    }
    for (const sequence of recount.keys()) assert(this.has(sequence), 'a live version is readable');
    assert(this.#bySequence.size === this.#segments.length, 'a segment is known by its sequence');
  }

  #get(sequence: SegmentSequence): Segment {
    const segment = this.#bySequence.get(sequence);
    assert(segment !== undefined, 'the segment is open');
    return segment;
  }

  #segmentAt(lsn: Lsn): Segment {
    let low = 0;
    let high = this.#segments.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#segments[middle]!.lsnFirst <= lsn) low = middle + 1;
      else high = middle;
    }
    const segment = this.#segments[low - 1];
    assert(segment !== undefined && lsn < segment.lsnEnd, 'an LSN lies in an open segment');
    return segment;
  }
}
