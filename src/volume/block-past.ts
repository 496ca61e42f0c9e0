/**
 * The versions of one block as a person asks for them: those of the window, then what the block
 * held at the horizon.
 */
import { isVarveError, VarveError } from '../base/errors.ts';
import {
  block as blockOf,
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  generation as generationOf,
  type Block,
  type Generation,
} from '../base/units.ts';
import { SUM_DATA, SUM_LOST, SUM_NEVER } from '../format/layouts.ts';
import { FOUND_DATA, FOUND_NONE, RANGE_TRIM, type RangeKind } from '../../index/found.ts';
import type { Core } from './core.ts';
import type { VersionInfo, VersionKind, VersionsPage, VersionsQuery } from './past-report.ts';
import { seenBy } from './seen-by.ts';

/** What a block held at the horizon. */
interface Base {
  readonly kind: VersionKind;
  readonly generation: Generation | undefined;
}

/** @throws VarveError MOMENT_OUTSIDE, REQUEST_BAD, DEVICE_IO */
export async function versionsPage(core: Core, query: VersionsQuery): Promise<VersionsPage> {
  if (query.offset >= core.size) {
    throw new VarveError('REQUEST_BAD', `byte ${query.offset} of ${core.size}`);
  }
  const block = blockOf(Math.floor(query.offset / BLOCK_BYTES));
  // What is accepted has its time once its batch is sealed.
  core.log.stream.seal();
  for (;;) {
    const horizon = core.horizon.generation;
    const at = query.at ?? core.head;
    if (at < horizon || at > core.head) {
      throw new VarveError(
        'MOMENT_OUTSIDE',
        `generation ${at}; the window is gen=${horizon} to gen=${core.head}`,
      );
    }
    const listed = windowVersions(core, block, at, query.versionsMax);
    const base = listed.isWhole ? await baseOf(core, block, horizon) : undefined;
    // A round that passed meanwhile put something newer into its place.
    if (core.horizon.generation !== horizon) continue;
    const { versions } = listed;
    if (base !== undefined) versions.push(baseInfo(core, block, base));
    return { offset: byteOffset(block * BLOCK_BYTES), versions, next: listed.next };
  }
}

interface WindowVersions {
  readonly versions: VersionInfo[];
  readonly next: Generation | undefined;
  /** All of the window's are listed, and there is room for one more. */
  readonly isWhole: boolean;
}

function windowVersions(
  core: Core,
  block: Block,
  at: Generation,
  versionsMax: number,
): WindowVersions {
  const horizon = core.horizon.generation;
  const versions: VersionInfo[] = [];
  const page = core.index.versionsOf(block, at, versionsMax);
  for (const { generation, found, rangeKind, requestBlocks } of page.versions) {
    // While a round is under way the index still has what is older than the horizon.
    if (generation <= horizon) return { versions, next: undefined, isWhole: true };
    versions.push({
      kind: found === FOUND_DATA ? 'data' : zeroKind(rangeKind),
      generation,
      wallUs: core.timeline.wallAt(generation),
      requestBytes: byteCount(requestBlocks * BLOCK_BYTES),
      seenBy: seenBy(core, block, generation),
    });
  }
  if (versions.length < versionsMax) return { versions, next: undefined, isWhole: true };
  // The page is full: what the block held at the horizon comes on the next one.
  const next = Math.max(horizon, page.next ?? (versions.at(-1)?.generation ?? at) - 1);
  return { versions, next: generationOf(next), isWhole: false };
}

async function baseOf(core: Core, block: Block, horizon: Generation): Promise<Base> {
  const { index } = core;
  const found = index.find(block, horizon);
  if (found !== FOUND_NONE) {
    const kind = found === FOUND_DATA ? 'data' : zeroKind(index.foundRangeKind);
    return { kind, generation: index.foundGeneration };
  }
  try {
    const { kind, generation } = await core.final.sidecar.sum(block);
    if (kind === SUM_NEVER) {
      const isBased = await core.final.withBase(async (base) => base?.mayHave(block, 1));
      return { kind: isBased === true ? 'base' : 'blank', generation: undefined };
    }
    if (kind === SUM_DATA) return { kind: 'data', generation };
    return { kind: kind === SUM_LOST ? 'lost' : 'zero', generation };
  } catch (error) {
    if (!isVarveError(error, 'BLOCK_CORRUPT')) throw error;
    return { kind: 'unknown', generation: undefined };
  }
}

function baseInfo(core: Core, block: Block, { kind, generation }: Base): VersionInfo {
  const { generation: horizon, wallUs } = core.horizon;
  return {
    kind,
    generation,
    wallUs: generation === horizon && horizon > 0 ? wallUs : undefined,
    requestBytes: undefined,
    seenBy: seenBy(core, block, horizon),
  };
}

function zeroKind(kind: RangeKind): VersionKind {
  return kind === RANGE_TRIM ? 'trim' : 'zero';
}
