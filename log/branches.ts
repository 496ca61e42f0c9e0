/**
 * Which segment goes on from a position of the stream. A failed sync has what lay behind it laid
 * out again under newer sequences, so several may: the process can have ended before all of it was.
 *
 * Invariants:
 *   - A segment goes on only from the checksum that it is chained to, and from an older sequence.
 *   - Where something states to be durable beyond the fork, the newest branch that has all of that
 *     counts: an opening may have decided for an older one and gone on there, and the erasing of
 *     the newer one may not have lasted. Headers tell that, since a payload may have rotted; and the
 *     newest one is that which leads into the newest segment.
 *   - Where nothing does, the one whose whole batches lead furthest counts, the newest of equals.
 */
import { assert } from '../src/base/assert.ts';
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
    return (await this.#best(several.map(beginningOf), from.end, claimed)).segment;
  }

  /**
   * Whether what was laid out again from there takes the place of what follows in the segment.
   * @throws VarveError DEVICE_IO
   */
  async isOvertaken(place: Place, claimed: Lsn): Promise<boolean> {
    const several = this.#following(place.end, place.chain, place.segment);
    if (several.length === 0) return false;
    if ((await this.#reach(place, claimed)).end === place.end) return true;
    const best = await this.#best([place, ...several.map(beginningOf)], place.end, claimed);
    return best !== place;
  }

  /** @param places - where branches go on from `fork`, by sequence */
  async #best(places: readonly Place[], fork: Lsn, claimed: Lsn): Promise<Place> {
    let best:
      { readonly place: Place; readonly worth: number; readonly newest: number } | undefined;
    for (const place of places) {
      const { end, newest } = await this.#reach(place, claimed);
      const worth = worthOf(end, fork, claimed);
      const isBetter =
        best === undefined || worth > best.worth || (worth === best.worth && newest >= best.newest);
      if (isBetter) best = { place, worth, newest };
    }
    assert(best !== undefined, 'a branch goes on');
    return best.place;
  }

  #following(
    position: Lsn,
    chain: Checksum,
    before?: ReadSegmentHeader,
  ): readonly ReadSegmentHeader[] {
    const here = this.#beginnings.get(position) ?? [];
    return here.filter((one) => one.chain === chain && one.sequence > (before?.sequence ?? 0));
  }

  /**
   * How far batches lead from a place on; takes nothing.
   * @param claimed - up to here their headers are enough: a payload may have rotted
   * @returns where that ends, and the sequence of the last segment on the way
   */
  async #reach(from: Place, claimed: Lsn): Promise<{ readonly end: Lsn; readonly newest: number }> {
    let { segment, end: position, chain } = from;
    let newest: number = segment.sequence;
    for (;;) {
      const batch = await this.#reader.batchAt(segment, position);
      const leadsOn =
        batch?.header.chain === chain &&
        (endOf(batch) <= claimed || (await this.#reader.isWhole(segment, batch)));
      if (leadsOn) {
        position = endOf(batch);
        chain = batch.checksum;
        newest = segment.sequence;
        continue;
      }
      const isBeginning = position === from.end;
      const next = isBeginning ? undefined : this.#following(position, chain, segment).at(-1);
      if (next === undefined) return { end: position, newest };
      segment = next;
      chain = next.checksum;
    }
  }
}

function beginningOf(segment: ReadSegmentHeader): Place {
  return { segment, end: segment.firstLsn, chain: segment.checksum };
}
