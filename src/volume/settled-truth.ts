/**
 * What final storage has to hold, by the log: for some blocks, the newest settled version that the
 * log device still tells of, with proof that none is newer.
 */
import { bisect } from '../base/bisect.ts';
import {
  block as blockOf,
  checksum as checksumOf,
  type Block,
  type ByteOffset,
  type Checksum,
  type Generation,
} from '../base/units.ts';
import { KIND_ALLOCATE, KIND_DATA, SUM_ALLOCATED, SUM_DATA, SUM_ZERO } from '../format/layouts.ts';
import { LogHistory, type SettledEntry } from '../../log/history.ts';
import type { Core } from './core.ts';

const NO_CHECKSUM = checksumOf(0);

export interface Truth {
  /** SUM_DATA, SUM_ZERO or SUM_ALLOCATED. */
  readonly kind: number;
  readonly generation: Generation;
  /** Of data; else 0. */
  readonly checksum: Checksum;
  /** Of data: where the log device has it. */
  readonly payloadAt: ByteOffset | undefined;
}

/** A look-up that begins anew after a gap in the log. */
export class Truths {
  readonly #found = new Map<Block, Truth>();
  /** The log tells of everything since the volume was made: what it does not name was never written. */
  isWhole = false;
  /** No read of the log was refused meanwhile: what is missing is not there. */
  isCertain = true;

  of(block: Block): Truth | undefined {
    return this.#found.get(block);
  }

  get size(): number {
    return this.#found.size;
  }

  set(block: Block, truth: Truth): void {
    this.#found.set(block, truth);
  }

  clear(): void {
    this.#found.clear();
    this.isWhole = false;
  }
}

/**
 * Reads the headers of the log device from before `from` on.
 * @param wanted - blocks that are asked for
 * @returns nothing for blocks that the log does not tell of, or where it has a gap
 */
export async function settledTruths(
  core: Core,
  wanted: ReadonlySet<Block>,
  from?: Generation,
): Promise<Truths> {
  const truths = new Truths();
  const ascending = [...wanted].sort((a, b) => a - b);
  const history = new LogHistory(core.log.device, core.log.geometry, core.uuid);
  const result = await history.settled({
    superblock: core.log.superblock,
    live: core.log.segments.live.map((segment) => ({ ...segment })),
    from,
    onEntry: (found) => {
      if (found.entry.kind === KIND_DATA) {
        if (wanted.has(found.entry.block)) truths.set(found.entry.block, truthOf(found));
        return;
      }
      const { block: start, count } = found.entry;
      for (let i = firstAtLeast(ascending, start); i < ascending.length; i++) {
        const block = blockOf(ascending[i] ?? 0);
        if (block >= start + count) break;
        truths.set(block, truthOf(found));
      }
    },
    onGap: () => truths.clear(),
  });
  truths.isCertain = history.refusals === 0;
  if (result === undefined) truths.clear();
  else truths.isWhole = result.isWhole && from === undefined;
  return truths;
}

function truthOf({ entry, generation, payloadAt }: SettledEntry): Truth {
  const { kind, checksum } = entry;
  if (kind === KIND_DATA) return { kind: SUM_DATA, generation, checksum, payloadAt };
  const zeros = kind === KIND_ALLOCATE ? SUM_ALLOCATED : SUM_ZERO;
  return { kind: zeros, generation, checksum: NO_CHECKSUM, payloadAt: undefined };
}

function firstAtLeast(ascending: readonly number[], value: number): number {
  return bisect(ascending.length, (at) => (ascending[at] ?? 0) < value);
}
