/**
 * What a range holds, as NBD's metadata contexts see it.
 *
 *   base:allocation            zeros and holes
 *   qemu:dirty-bitmap:LABEL    changed since the snapshot LABEL (bit 0)
 *   varve:changed-since:MOMENT the same for any moment that can be opened
 *   varve:space                bit 0: there is little room left for what snapshots keep; when it is
 *                              full, rounds stop, and writes may be refused with ENOSPC
 */
import { isVarveError, VarveError } from '../base/errors.ts';
import {
  block as blockOf,
  BLOCK_BYTES,
  blockCount,
  byteCount,
  type Block,
  type ByteCount,
  type ByteOffset,
  type Generation,
} from '../base/units.ts';
import { STATE_HOLE, STATE_ZERO, type StatusRun } from '../device/block-device.ts';
import { FOUND_DATA, FOUND_NONE, RANGE_ALLOCATE } from '../../index/found.ts';
import { changedRuns } from './changed.ts';
import type { Core } from './core.ts';
import { homeKinds, type BlockKind } from './home-kinds.ts';
import type { Moments } from './moments.ts';
import { snapshotsInOrder } from './snapshot-info.ts';

export const BASE_ALLOCATION = 'base:allocation';
const DIRTY_BITMAP = 'qemu:dirty-bitmap:';
const CHANGED_SINCE = 'varve:changed-since:';
const SPACE = 'varve:space';
const WILDCARDS: ReadonlySet<string> = new Set(['base:', 'qemu:', DIRTY_BITMAP, 'varve:']);
/** Blocks looked at for one answer: bounds its time. */
const PROBES_MAX = 65_536;
/** Blocks of which it is told one by one what they are at home: bounds its memory. */
const PART_BLOCKS = 1024;

export class Status {
  readonly #core: Core;
  readonly #moments: Moments;

  constructor(core: Core, moments: Moments) {
    this.#core = core;
    this.#moments = moments;
  }

  /** Names that match a query; a query that ends in a colon lists all below it. */
  contexts(query: string | undefined, at: Generation): readonly string[] {
    const isList = query === undefined || WILDCARDS.has(query);
    if (isList) return this.#all(at).filter((name) => name.startsWith(query ?? ''));
    return this.#isKnown(query, at) ? [query] : [];
  }

  #all(at: Generation): readonly string[] {
    const labels = snapshotsInOrder(this.#core)
      .filter(({ generation }) => generation <= at)
      .map(({ label }) => DIRTY_BITMAP + label);
    return [BASE_ALLOCATION, ...labels, SPACE];
  }

  /** Costs the same however many snapshots there are: anybody may ask, for very many names. */
  #isKnown(name: string, at: Generation): boolean {
    if (name === BASE_ALLOCATION || name === SPACE) return true;
    if (name.startsWith(DIRTY_BITMAP)) {
      const snapshot = this.#core.catalogue.snapshots.get(name.slice(DIRTY_BITMAP.length));
      return snapshot !== undefined && snapshot.generation <= at;
    }
    return name.startsWith(CHANGED_SINCE) && this.#sinceOf(name, at) !== undefined;
  }

  /** A name that goes on to mean what this one means now. */
  fixed(context: string): string {
    if (!context.startsWith(DIRTY_BITMAP) && !context.startsWith(CHANGED_SINCE)) return context;
    const since = this.#sinceOf(context, this.#core.head);
    return since === undefined ? context : `${CHANGED_SINCE}gen=${since}`;
  }

  #sinceOf(name: string, at: Generation): Generation | undefined {
    const prefix = name.startsWith(DIRTY_BITMAP) ? DIRTY_BITMAP : CHANGED_SINCE;
    const since = this.#moments.find(name.slice(prefix.length));
    return since !== undefined && since <= at ? since : undefined;
  }

  async runs(
    context: string,
    offset: ByteOffset,
    length: ByteCount,
    runsMax: number,
    at: Generation,
  ): Promise<readonly StatusRun[]> {
    if (context === SPACE) {
      return [{ length, flags: this.#core.undo.isNearlyFull ? 1 : 0 }];
    }
    const first = blockOf(Math.floor(offset / BLOCK_BYTES));
    const end = Math.ceil((offset + length) / BLOCK_BYTES);
    const blocks =
      context === BASE_ALLOCATION
        ? await this.#allocation(first, end, runsMax, at)
        : await this.#changed(context, first, end, runsMax, at);
    return inBytes(blocks, offset, length);
  }

  async #changed(
    context: string,
    first: Block,
    end: number,
    runsMax: number,
    at: Generation,
  ): Promise<BlockRun[]> {
    const since = this.#sinceOf(context, at);
    if (since === undefined) {
      throw new VarveError('MOMENT_OUTSIDE', `${context}: it can no longer be opened`);
    }
    const limits = { runsMax, probesMax: PROBES_MAX };
    const query = { first, count: blockCount(end - first), since, at };
    const found = await changedRuns(this.#core, query, limits);
    return found.runs.map(({ count, changed }) => ({ count, flags: changed ? 1 : 0 }));
  }

  async #allocation(
    first: Block,
    end: number,
    runsMax: number,
    at: Generation,
  ): Promise<BlockRun[]> {
    const limits = { runsMax, probesMax: PROBES_MAX };
    const { index } = this.#core;
    const found = index.runs(first, blockCount(end - first), at, limits);
    const out: BlockRun[] = [];
    let probes = 0;
    for (const run of found.runs) {
      if (run.found === FOUND_DATA) push(out, run.count, 0);
      else if (run.found !== FOUND_NONE) {
        push(out, run.count, flagsOf(run.rangeKind));
      } else {
        const count = Math.min(run.count, PROBES_MAX - probes);
        probes += count;
        for (let done = 0; done < count && out.length <= runsMax; done += PART_BLOCKS) {
          const part = Math.min(PART_BLOCKS, count - done);
          const kinds = await this.#atHome(blockOf(run.start + done), part, at);
          for (const flags of kinds) push(out, 1, flags);
        }
        if (count < run.count) break;
      }
      if (out.length > runsMax) break;
    }
    return out.slice(0, runsMax);
  }

  async #atHome(first: Block, count: number, at: Generation): Promise<readonly number[]> {
    try {
      const kinds = await homeKinds(this.#core, { first, count, at, zerosBy: 'sums' });
      return kinds.map(flagsOf);
    } catch (error) {
      // Whoever reads these blocks is told what is wrong with them.
      const isDamaged =
        isVarveError(error, 'BLOCK_CORRUPT') || isVarveError(error, 'VOLUME_CORRUPT');
      if (isDamaged) return Array.from({ length: count }, () => 0);
      throw error;
    }
  }
}

function flagsOf(kind: BlockKind): number {
  if (kind === 'data') return 0;
  return kind === RANGE_ALLOCATE ? STATE_ZERO : STATE_ZERO | STATE_HOLE;
}

interface BlockRun {
  count: number;
  readonly flags: number;
}

function push(runs: BlockRun[], count: number, flags: number): void {
  const last = runs.at(-1);
  if (last !== undefined && last.flags === flags) last.count += count;
  else runs.push({ count, flags });
}

/** Runs of whole blocks, cut to the bytes that were asked for. */
function inBytes(runs: readonly BlockRun[], offset: ByteOffset, length: ByteCount): StatusRun[] {
  const out: StatusRun[] = [];
  let at = Math.floor(offset / BLOCK_BYTES) * BLOCK_BYTES;
  for (const { count, flags } of runs) {
    const from = Math.max(at, offset);
    at += count * BLOCK_BYTES;
    const to = Math.min(at, offset + length);
    if (to > from) out.push({ length: byteCount(to - from), flags });
  }
  return out;
}
