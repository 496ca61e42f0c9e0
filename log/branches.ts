/**
 * Which segment goes on from a position of the stream. A failed sync has what lay behind it laid
 * out again under newer sequences, so several may: the process can have ended before all of it was.
 *
 * Invariants:
 *   - A segment goes on only from the checksum that it is chained to, and from an older sequence.
 *   - Where something states to be durable beyond the fork, the newest branch that has all of that
 *     counts: an opening may have decided for an older one and gone on there, and the erasing of
 *     the newer one may not have lasted.
 *   - Where nothing does, the one whose whole batches lead furthest counts, the newest of equals.
 *   - Before a branch is taken to end at a batch, it is read a second time.
 */
import type { Checksum, Lsn } from '../src/base/units.ts';
import { endOf, type Batch } from './batch.ts';
import type { SlotReader } from './scan.ts';
import type { ReadSegmentHeader } from './summary.ts';

/** A position inside a segment, or at its end. */
export interface Place {
  readonly segment: ReadSegmentHeader;
  readonly end: Lsn;
  /** Checksum of the header before `end`. */
  readonly chain: Checksum;
}

export class Branches {
  readonly #reader: SlotReader;
  /** Segments by the position where they begin, in order of their sequences. */
  readonly #beginnings = new Map<Lsn, ReadSegmentHeader[]>();

  /** @param segments - by sequence */
  constructor(reader: SlotReader, segments: readonly ReadSegmentHeader[]) {
    this.#reader = reader;
    for (const header of segments) {
      const same = this.#beginnings.get(header.firstLsn);
      if (same === undefined) this.#beginnings.set(header.firstLsn, [header]);
      else same.push(header);
    }
  }

  /**
   * The segment that goes on from there.
   * @param claimed - up to where something states that it was durable
   * @throws VarveError DEVICE_IO
   */
  async next(
    from: { readonly end: Lsn; readonly chain: Checksum; readonly segment?: ReadSegmentHeader },
    claimed: Lsn,
  ): Promise<ReadSegmentHeader | undefined> {
    const several = this.#following(from.end, from.chain, from.segment);
    if (several.length <= 1) return several.at(-1);
    if (claimed > from.end) return (await this.#reaching(several, claimed)) ?? several.at(-1);
    let furthest: { readonly segment: ReadSegmentHeader; readonly end: Lsn } | undefined;
    for (const segment of several) {
      const end = await this.#reach(segment, segment.firstLsn, segment.checksum);
      if (furthest === undefined || end >= furthest.end) furthest = { segment, end };
    }
    return furthest?.segment;
  }

  /**
   * Whether what was laid out again from there takes the place of what follows in the segment.
   * @throws VarveError DEVICE_IO
   */
  async isOvertaken(place: Place, claimed: Lsn): Promise<boolean> {
    const next = await this.next(place, claimed);
    if (next === undefined) return false;
    const own = await this.#reach(place.segment, place.end, place.chain);
    if (own === place.end) return true;
    const reach = await this.#reach(next, next.firstLsn, next.checksum);
    return claimed > place.end ? reach >= claimed || own < claimed : reach >= own;
  }

  /** The newest that has all that something states to be durable. */
  async #reaching(
    several: readonly ReadSegmentHeader[],
    claimed: Lsn,
  ): Promise<ReadSegmentHeader | undefined> {
    for (const segment of [...several].reverse()) {
      const end = await this.#reach(segment, segment.firstLsn, segment.checksum);
      if (end >= claimed) return segment;
    }
    return undefined;
  }

  #following(
    position: Lsn,
    chain: Checksum,
    before?: ReadSegmentHeader,
  ): readonly ReadSegmentHeader[] {
    const here = this.#beginnings.get(position) ?? [];
    return here.filter((one) => one.chain === chain && one.sequence > (before?.sequence ?? 0));
  }

  /** How far whole batches lead from a position in a segment on; takes nothing. */
  async #reach(first: ReadSegmentHeader, from: Lsn, after: Checksum): Promise<Lsn> {
    let segment = first;
    let position = from;
    let chain = after;
    for (;;) {
      const next = position === from ? undefined : this.#following(position, chain, segment).at(-1);
      let batch = await this.#wholeAt(segment, position, chain);
      if (batch === undefined && next === undefined) {
        this.#reader.forget();
        batch = await this.#wholeAt(segment, position, chain);
      }
      if (batch !== undefined) {
        position = endOf(batch);
        chain = batch.checksum;
      } else if (next !== undefined) {
        segment = next;
        chain = next.checksum;
      } else return position;
    }
  }

  async #wholeAt(
    segment: ReadSegmentHeader,
    position: Lsn,
    chain: Checksum,
  ): Promise<Batch | undefined> {
    const batch = await this.#reader.batchAt(segment, position);
    if (batch?.header.chain !== chain) return undefined;
    return (await this.#reader.isWhole(segment, batch)) ? batch : undefined;
  }
}
