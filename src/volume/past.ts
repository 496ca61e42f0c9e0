/**
 * What changed, and when: questions about the moments of a volume, answered in pages.
 *
 * Invariants:
 *   - An answer is of moments that can be opened while it is made up, or it is MOMENT_OUTSIDE; so
 *     whoever goes through many pages keeps the oldest of them open meanwhile.
 *   - Whatever is looked at, a page costs a bounded time without a turn for others.
 */
import { VarveError } from '../base/errors.ts';
import {
  block as blockOf,
  BLOCK_BYTES,
  blockCount,
  byteCount,
  byteOffset,
  generation as generationOf,
  type ByteOffset,
  type Generation,
} from '../base/units.ts';
import { STATE_ZERO } from '../device/block-device.ts';
import { versionsPage } from './block-past.ts';
import { changedRuns } from './changed.ts';
import type { Core } from './core.ts';
import type { Moments } from './moments.ts';
import {
  PAGE_MAX,
  PATTERN_BYTES_MAX,
  type Became,
  type ChangedPage,
  type ChangedQuery,
  type ChangedRange,
  type PastWindow,
  type SearchPage,
  type SearchQuery,
  type SentPoint,
  type VersionsPage,
  type VersionsQuery,
} from './past-report.ts';
import type { Reader } from './reader.ts';
import type { PointInTime, Progress } from './report.ts';
import { Search } from './search.ts';
import { BASE_ALLOCATION, type Status } from './status.ts';

/** Blocks looked at for one page: some milliseconds. */
const PROBES_MAX = 65_536;
/** A page ends after so long, wherever it is then. */
const PAGE_US = 20_000;

interface BecameQuery {
  readonly from: ByteOffset;
  readonly end: number;
  readonly at: Generation;
  readonly max: number;
  readonly untilUs: number;
}

export interface PastParts {
  readonly moments: Moments;
  readonly status: Status;
  readonly reader: Reader;
  /** A pin is gone: space may be free again. */
  readonly onUnpin: () => void;
}

export class VolumePast {
  readonly #core: Core;
  readonly #parts: PastParts;

  constructor(core: Core, parts: PastParts) {
    this.#core = core;
    this.#parts = parts;
  }

  window(): PastWindow {
    const { size, oldestMoment: horizon, timeline, log } = this.#core;
    const head = this.#newest;
    // What is accepted has its time once its batch is sealed.
    log.stream.seal();
    return {
      size,
      horizon,
      head: { generation: head, wallUs: timeline.wallAt(head) },
    };
  }

  /**
   * @param moment - what stands behind the `@`; default: now
   * @throws VarveError MOMENT_*
   */
  point(moment?: string): PointInTime {
    const { generation, wallUs } = this.#parts.moments.resolve(moment ?? `gen=${this.#newest}`);
    return { generation, wallUs };
  }

  /**
   * @param moment - what stands behind the `@`; default: now
   * @throws VarveError MOMENT_*
   */
  sent(moment?: string): SentPoint {
    const { uuid: volume, size } = this.#core;
    const resolved = this.#parts.moments.resolve(moment ?? `gen=${this.#newest}`);
    const { generation, wallUs } = resolved;
    const named = this.#parts.moments.snapshots().filter((one) => one.generation === generation);
    const snapshot = named.find((one) => one.label === moment) ?? named[0];
    // A snapshot remembers its lineage for longer than the list of lineages does.
    const { lineage, label } = snapshot ?? { ...resolved, label: undefined };
    return { volume, size, generation, lineage, wallUs, label };
  }

  /**
   * Ranges whose blocks were written, trimmed or zeroed between two moments, and what they are at
   * the second one. A block that was rewritten with the same bytes counts as changed; below the horizon
   * a trim of what was never written, or blank again, may not.
   * @throws VarveError MOMENT_OUTSIDE, USAGE
   */
  async changed(query: ChangedQuery): Promise<ChangedPage> {
    const core = this.#core;
    needPage(query.rangesMax);
    const since = generationOf(Math.min(query.from, query.to));
    const at = generationOf(Math.max(query.from, query.to));
    this.#needOpenable(since, at);
    if (query.offset >= core.size) return { ranges: [], next: undefined };
    const first = blockOf(Math.floor(query.offset / BLOCK_BYTES));
    const count = blockCount(core.blocks - first);
    const limits = { runsMax: query.rangesMax, probesMax: PROBES_MAX };
    const { runs, next } = await changedRuns(core, { first, count, since, at }, limits);
    const ranges: ChangedRange[] = [];
    const untilUs = core.world.clock.monotonicUs() + PAGE_US;
    let reached: number = next * BLOCK_BYTES;
    for (const run of runs) {
      if (!run.changed) continue;
      const from = byteOffset(run.start * BLOCK_BYTES);
      const end = Math.min(core.size, (run.start + run.count) * BLOCK_BYTES);
      const [to, max] = [query.to, query.rangesMax];
      const stopped = await this.#became(ranges, { from, end, at: to, max, untilUs });
      if (stopped < end || core.world.clock.monotonicUs() > untilUs) {
        reached = stopped;
        break;
      }
    }
    this.#needOpenable(since, at);
    return { ranges, next: reached < core.size ? byteOffset(reached) : undefined };
  }

  /** @throws VarveError MOMENT_OUTSIDE, REQUEST_BAD, USAGE, DEVICE_IO */
  async versions(query: VersionsQuery): Promise<VersionsPage> {
    needPage(query.versionsMax);
    return await versionsPage(this.#core, query);
  }

  /**
   * Where and when a pattern was there: each version of a block that changed between two moments
   * is read once.
   * @throws VarveError MOMENT_OUTSIDE, MOMENT_GONE, REQUEST_BAD, USAGE; and what `progress` throws
   */
  async search(query: SearchQuery, progress: Progress): Promise<SearchPage> {
    needPage(query.spellsMax);
    const { length } = query.pattern;
    if (length < 1 || length > PATTERN_BYTES_MAX) {
      throw new VarveError('USAGE', `a pattern has 1 to ${PATTERN_BYTES_MAX} bytes, got ${length}`);
    }
    if (query.from > query.to) {
      throw new VarveError('USAGE', `from generation ${query.from} to ${query.to} is backwards`);
    }
    const { offset, next, end } = query;
    if (!(offset < end && offset <= next && next <= end && end <= this.#core.size)) {
      throw new VarveError('REQUEST_BAD', `bytes ${offset} to ${end} of ${this.#core.size}`);
    }
    this.#needWindow(query.from, query.to);
    const { reader, status, onUnpin } = this.#parts;
    return await new Search({ core: this.#core, reader, status, query, progress }).run(onUnpin);
  }

  /** The newest moment: what clients see, or saw before a rollback that has not ended. */
  get #newest(): Generation {
    return this.#core.catalogue.unfinished?.before ?? this.#core.shown;
  }

  /** Adds what [from, end) became. @returns where it stopped: at `end`, for `max` or for the time */
  async #became(
    ranges: ChangedRange[],
    { from, end, at, max, untilUs }: BecameQuery,
  ): Promise<number> {
    for (let offset: number = from; offset < end;) {
      const left = byteCount(end - offset);
      const part = byteOffset(offset);
      const runs = await this.#parts.status.runs(BASE_ALLOCATION, part, left, max, at);
      for (const { length, flags } of runs) {
        const became: Became = (flags & STATE_ZERO) === 0 ? 'data' : 'zeros';
        const last = ranges.at(-1);
        const adjoins = last !== undefined && last.offset + last.length === offset;
        if (adjoins && last.became === became) {
          ranges[ranges.length - 1] = { ...last, length: byteCount(last.length + length) };
        } else if (ranges.length < max) {
          ranges.push({ offset: byteOffset(offset), length, became });
        } else return offset;
        offset += length;
      }
      if (this.#core.world.clock.monotonicUs() > untilUs) return offset;
    }
    return end;
  }

  #needOpenable(from: Generation, to: Generation): void {
    if (!this.#core.isOpenable(from) || !this.#core.isOpenable(to)) throw this.#outside(from, to);
  }

  #needWindow(from: Generation, to: Generation): void {
    const { horizon, head } = this.#core;
    if (from < horizon.generation || to > head) throw this.#outside(from, to);
  }

  #outside(from: Generation, to: Generation): VarveError {
    const { horizon, head } = this.#core;
    const window = `gen=${horizon.generation} to gen=${head}`;
    return new VarveError('MOMENT_OUTSIDE', `gen=${from} to gen=${to}; the window is ${window}`);
  }
}

function needPage(rows: number): void {
  if (rows >= 1 && rows <= PAGE_MAX) return;
  throw new VarveError('USAGE', `a page has 1 to ${PAGE_MAX} rows, got ${rows}`);
}
