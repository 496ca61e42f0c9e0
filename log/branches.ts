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
 */
import type { Checksum, Lsn } from '../src/base/units.ts';
import { endOf } from './batch.ts';
import type { SlotReader } from './scan.ts';
import type { ReadSegmentHeader } from './summary.ts';

/** A position inside a segment, or at its end. */
export interface Place {
  readonly segment: ReadSegmentHeader;
  readonly end: Lsn;
  /** Checksum of the header before `end`. */
  readonly chain: Checksum;
}

/** What lies behind all that is claimed counts only where nothing is claimed beyond the fork. */
function worthOf(reach: Lsn, fork: Lsn, claimed: Lsn): number {
  return claimed > fork ? Math.min(reach, claimed) : reach;
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
    return (await this.#best(several, from.end, claimed))?.segment;
  }

  /**
   * Whether what was laid out again from there takes the place of what follows in the segment.
   * @throws VarveError DEVICE_IO
   */
  async isOvertaken(place: Place, claimed: Lsn): Promise<boolean> {
    const several = this.#following(place.end, place.chain, place.segment);
    if (several.length === 0) return false;
    const own = await this.#reach(place.segment, place.end, place.chain);
    if (own === place.end) return true;
    const best = await this.#best(several, place.end, claimed);
    return best !== undefined && best.worth >= worthOf(own, place.end, claimed);
  }

  /** @param several - that go on from `from`, by sequence */
  async #best(
    several: readonly ReadSegmentHeader[],
    from: Lsn,
    claimed: Lsn,
  ): Promise<{ readonly segment: ReadSegmentHeader; readonly worth: number } | undefined> {
    let best: { readonly segment: ReadSegmentHeader; readonly worth: number } | undefined;
    for (const segment of several) {
      const reach = await this.#reach(segment, segment.firstLsn, segment.checksum);
      const worth = worthOf(reach, from, claimed);
      if (best === undefined || worth >= best.worth) best = { segment, worth };
    }
    return best;
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
      const batch = await this.#reader.batchAt(segment, position);
      if (batch?.header.chain === chain && (await this.#reader.isWhole(segment, batch))) {
        position = endOf(batch);
        chain = batch.checksum;
        continue;
      }
      const next = position === from ? undefined : this.#following(position, chain, segment).at(-1);
      if (next === undefined) return position;
      segment = next;
      chain = next.checksum;
    }
  }
}
