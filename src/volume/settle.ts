/**
 * The middle of a round: the newest version of each block at or before the target goes to its
 * home location, with its checksum; holes are punched for trims.
 *
 * Invariants:
 *   - Ranges come first and blocks after them: a block that is newer than a range is not lost.
 *   - What could be read neither from the log nor from another copy is stamped `lost`, never left
 *     with its old content. A page of sums that the device refuses three times is given up with all
 *     its sums, and written whole.
 *   - Everything is synced when it returns.
 */
import { crc32c } from '../base/crc32c.ts';
import { isVarveError, type VarveError } from '../base/errors.ts';
import { inParallel } from '../base/parallel.ts';
import {
  block as blockOf,
  BLOCK_BYTES,
  checksum as checksumOf,
  generation as generationOf,
  lsn as lsnOf,
  type Block,
  type Generation,
  type Lsn,
} from '../base/units.ts';
import { bindChecksum, volumeSeed } from '../format/block-checksum.ts';
import { SUM_ALLOCATED, SUM_DATA, SUM_LOST, SUM_ZERO } from '../format/layouts.ts';
import { markLost, type Sum } from '../format/sums.ts';
import { RANGE_ALLOCATE } from '../../index/found.ts';
import { NO_BLANK_PARTS, type BlankParts } from './blank-parts.ts';
import type { Witness } from './catalogue-entries.ts';
import type { Core } from './core.ts';
import { findBlankParts } from './find-blank-parts.ts';
import { lastLook, type LastLook, type RefusedKind } from './last-look.ts';
import type { OtherCopies, Version } from './other-copies.ts';

/** Blocks in memory at once: 4 MiB. */
const CHUNK_BLOCKS = 1024;
const READS_AT_ONCE = 16;
/** Fewer: reads of clients come between. */
const WRITES_AT_ONCE = 4;
const ZERO_CHUNK = new Uint8Array(256 * BLOCK_BYTES);

/** Positions in the sorted list. */
interface LogRun {
  readonly first: number;
  readonly end: number;
}

export type Newest = ReturnType<Core['index']['newestUpTo']>;

/** What a round is going to do. */
export interface RoundPlan {
  readonly newest: Newest;
  /** Nothing was kept of it: it is left alone. */
  readonly blank: BlankParts;
}

/** Runs a step of a round, which can be made again as often as it fails. */
export type Attempt = (step: () => Promise<void>) => Promise<void>;

export interface Means {
  readonly attempt: Attempt;
  /** Of what is kept for pins: UNDO_FULL where others may go for it. */
  readonly attemptKept: Attempt;
  /** For versions that the log has lost. */
  readonly copies: OtherCopies;
  /**
   * A device could not read something.
   * @param first - its first block: each has its own attempts
   * @returns whether that is lost; else the round fails, to be made again: a device may come back,
   *   and what is stamped `lost` does not
   */
  readonly givesUp: (kind: RefusedKind, first: Block) => boolean;
  /** So many bytes are about to be kept for pins: others go where that is over the limit. */
  readonly makeRoom: (bytes: () => number) => Promise<void>;
}

/**
 * @param plan - of the same target, where it is known
 * @returns how many blocks were written
 */
export async function settleBlocks(
  core: Core,
  target: Generation,
  means: Means,
  plan?: RoundPlan,
): Promise<number> {
  const { attempt } = means;
  const newest = plan?.newest ?? (await planRound(core, target));
  // Who makes a round again has not put its images, and one may have rotted.
  await settleRanges(core, target, means, plan?.blank);
  const buffer = new Uint8Array(Math.min(newest.length, CHUNK_BLOCKS) * BLOCK_BYTES);
  for (let from = 0; from < newest.length; from += CHUNK_BLOCKS) {
    const to = Math.min(newest.length, from + CHUNK_BLOCKS);
    const content = buffer.subarray(0, (to - from) * BLOCK_BYTES);
    await attempt(() => settleChunk(core, means, newest, from, to, content));
  }
  await core.final.syncFinal('final');
  await core.final.sidecar.sync('sums');
  core.catalogue.witnesses = witnessesOf(core, target, newest);
  return newest.length;
}

/** Blocks that this round wrote; when it only trimmed, those of the round before that are left. */
function witnessesOf(core: Core, target: Generation, newest: Newest): readonly Witness[] {
  if (newest.length === 0) {
    const ranges = core.index.rangesUpTo(target);
    return core.catalogue.witnesses.filter(
      ({ block }) => !ranges.some(({ start, count }) => block >= start && block < start + count),
    );
  }
  const step = Math.max(1, Math.ceil(newest.length / Math.max(1, core.catalogue.witnessesMax)));
  const witnesses: Witness[] = [];
  for (let i = 0; i < newest.length; i += step) {
    const block = blockOf(newest.blocks[i] ?? 0);
    witnesses.push({ block, generation: generationOf(newest.generations[i] ?? 0) });
  }
  return witnesses;
}

/** What a round writes. Sorts in steps: a quarter of a large log is a million versions. */
export async function planRound(core: Core, target: Generation): Promise<Newest> {
  const steps = core.index.newestUpToSteps(target);
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
    await core.yieldTurn();
  }
}

/** Trims and zeroes, in generation order. */
async function settleRanges(
  core: Core,
  target: Generation,
  means: Means,
  blank: BlankParts | undefined,
): Promise<void> {
  const { attempt } = means;
  // While older moments are kept, what is later than they are says so: else a before-image that is
  // lost would read as zeros.
  const { generation: pin = target } = core.pins.smallest() ?? {};
  // And over a base always: "never written" is what that has.
  const isKept = (first: Block, count: number): Promise<boolean> =>
    core.final.withBase(async (base) => {
      if (pin < target && (blank === undefined || core.undo.mayHave(first, count))) return true;
      return base !== undefined && (await base.mayHave(first, count));
    });
  const isAsked = pin < target || core.final.hasBase;
  const ofSums = lastLookAtSums(core, means);
  const left = blank ?? (isAsked ? await findBlankParts(core, target) : NO_BLANK_PARTS);
  for (const range of core.index.rangesUpTo(target)) {
    const end = Math.min(range.start + range.count, core.blocks);
    core.cache.dropHome(range.start, end - range.start);
    const isAllocated = range.kind === RANGE_ALLOCATE;
    const kind = isAllocated ? SUM_ALLOCATED : SUM_ZERO;
    const sum = { kind, generation: range.generation, checksum: checksumOf(0) };
    if (isAllocated) await writeZeros(core, range.start, end, attempt);
    // What is allocated is never left alone.
    for (const part of left.others(range.start, end)) {
      const [first, count] = [blockOf(part.start), part.end - part.start];
      if (!isAllocated) await attempt(() => core.final.punch(first, count));
      await attempt(() =>
        core.final.sidecar.fill(first, count, sum, ofSums, isAsked ? isKept : undefined),
      );
    }
  }
}

async function writeZeros(core: Core, start: number, end: number, attempt: Attempt): Promise<void> {
  const step = ZERO_CHUNK.length / BLOCK_BYTES;
  for (let at = start; at < end; at += step) {
    const chunk = ZERO_CHUNK.subarray(0, Math.min(step, end - at) * BLOCK_BYTES);
    await attempt(() => core.final.write(blockOf(at), [chunk]));
  }
}

/** Versions [from, to) of the sorted list: read, verify, write in runs, then their sums. */
async function settleChunk(
  core: Core,
  means: Means,
  newest: Newest,
  from: number,
  to: number,
  buffer: Uint8Array,
): Promise<void> {
  const changes: { block: Block; sum: Sum }[] = [];
  const good = await readVersions(core, means, newest, from, to, buffer);
  const runs: { readonly first: Block; readonly bytes: Uint8Array }[] = [];
  let runStart = from;
  for (let i = from; i < to; i++) {
    const block = blockOf(newest.blocks[i] ?? 0);
    core.cache.dropHome(block, 1);
    const isGood = good[i - from] === 1;
    if (!isGood) markLost(buffer.subarray((i - from) * BLOCK_BYTES, (i + 1 - from) * BLOCK_BYTES));
    changes.push({ block, sum: sumOf(newest, i, isGood) });
    const next = i + 1 < to ? newest.blocks[i + 1] : undefined;
    if (next === block + 1) continue;
    const bytes = buffer.subarray((runStart - from) * BLOCK_BYTES, (i + 1 - from) * BLOCK_BYTES);
    runs.push({ first: blockOf(newest.blocks[runStart] ?? 0), bytes });
    runStart = i + 1;
  }
  await inParallel(runs, WRITES_AT_ONCE, ({ first, bytes }) => core.final.write(first, [bytes]));
  await core.final.sidecar.write(changes, { lastLook: lastLookAtSums(core, means) });
}

/** Of pages of sums: without it one that the device refuses would end all writing for good. */
function lastLookAtSums({ final }: Core, { givesUp }: Means): LastLook {
  const isThere = (): Promise<boolean> => final.isThere();
  return (first, failure, read) =>
    lastLook({ kind: 'sums', first, failure, givesUp, isThere }, read);
}

function sumOf(newest: Newest, i: number, good: boolean): Sum {
  return {
    kind: good ? SUM_DATA : SUM_LOST,
    generation: generationOf(newest.generations[i] ?? 0),
    checksum: good ? checksumOf(newest.checksums[i] ?? 0) : checksumOf(0),
  };
}

/**
 * Fills `buffer` with versions [from, to) from ring or log.
 * @returns 1 for each that matched its checksum
 * @throws VarveError DEVICE_IO where the device fails, unless it is given up
 */
async function readVersions(
  core: Core,
  { copies, givesUp }: Means,
  newest: Newest,
  from: number,
  to: number,
  buffer: Uint8Array,
): Promise<Uint8Array> {
  const good = new Uint8Array(to - from);
  const seed = volumeSeed(core.uuid);
  const bad: Version[] = [];
  const places = new Map<number, number>();
  let failure: VarveError | undefined;
  const fits = (i: number): boolean => {
    const crc = crc32c(buffer.subarray((i - from) * BLOCK_BYTES, (i + 1 - from) * BLOCK_BYTES));
    const got = bindChecksum(crc, seed, newest.blocks[i] ?? 0, newest.generations[i] ?? 0);
    return got === newest.checksums[i];
  };
  await inParallel(logRuns(core, newest, from, to), READS_AT_ONCE, async ({ first, end }) => {
    const target = buffer.subarray((first - from) * BLOCK_BYTES, (end - from) * BLOCK_BYTES);
    failure = (await readReadable(core, lsnOf(newest.lsns[first] ?? 0), target)) ?? failure;
    for (let i = first; i < end; i++) {
      if (fits(i)) good[i - from] = 1;
      else {
        core.counters.readErrors += 1;
        bad.push({
          block: blockOf(newest.blocks[i] ?? 0),
          generation: generationOf(newest.generations[i] ?? 0),
          checksum: checksumOf(newest.checksums[i] ?? 0),
        });
        places.set(newest.blocks[i] ?? 0, i - from);
      }
    }
  });
  if (bad.length === 0) return good;
  const saved = (block: Block, content: Uint8Array): void => {
    const place = places.get(block) ?? 0;
    buffer.set(content, place * BLOCK_BYTES);
    good[place] = 1;
    core.counters.readRescues += 1;
  };
  await copies.ofLog(bad, saved, { thorough: true });
  if (failure !== undefined && good.includes(0)) {
    const first = blockOf(newest.blocks[from] ?? 0);
    const isThere = (): Promise<boolean> => core.log.isThere();
    await lastLook({ kind: 'chunk', first, failure, givesUp, isThere }, async () => {
      for (let isBack = true; isBack && good.includes(0);) {
        isBack = false;
        for (let i = from; i < to; i++) {
          if (good[i - from] === 1) continue;
          const target = buffer.subarray((i - from) * BLOCK_BYTES, (i + 1 - from) * BLOCK_BYTES);
          await readReadable(core, lsnOf(newest.lsns[i] ?? 0), target);
          if (!fits(i)) continue;
          good[i - from] = 1;
          isBack = true;
        }
      }
      return good.includes(0) ? undefined : good;
    });
  }
  return good;
}

/** Versions [from, to) as runs that are adjacent in one segment of the log. */
function logRuns(core: Core, newest: Newest, from: number, to: number): readonly LogRun[] {
  const runs: LogRun[] = [];
  for (let first = from; first < to;) {
    const position = newest.lsns[first] ?? 0;
    const segment = core.references.segmentOf(lsnOf(position));
    let end = first + 1;
    while (
      end < to &&
      newest.lsns[end] === position + (end - first) * BLOCK_BYTES &&
      core.references.segmentOf(lsnOf(newest.lsns[end] ?? 0)) === segment
    ) {
      end += 1;
    }
    runs.push({ first, end });
    first = end;
  }
  return runs;
}

/**
 * Blocks that the device can't read stay zero, and fail their checksum.
 * @returns why, if there are any
 */
async function readReadable(
  core: Core,
  position: Lsn,
  target: Uint8Array,
): Promise<VarveError | undefined> {
  try {
    await readPositions(core, position, target);
    return undefined;
  } catch (error) {
    if (!isVarveError(error, 'DEVICE_IO')) throw error;
    target.fill(0);
    if (target.length === BLOCK_BYTES) return error;
    let failure: VarveError | undefined;
    for (let at = 0; at < target.length; at += BLOCK_BYTES) {
      const part = target.subarray(at, at + BLOCK_BYTES);
      failure = (await readReadable(core, lsnOf(position + at), part)) ?? failure;
    }
    return failure;
  }
}

async function readPositions(core: Core, position: Lsn, target: Uint8Array): Promise<void> {
  const { ring } = core.log;
  const last = lsnOf(position + target.length - BLOCK_BYTES);
  if (ring.holds(position) && ring.holds(last)) {
    for (let at = 0; at < target.length; at += BLOCK_BYTES) {
      target.set(ring.blockAt(lsnOf(position + at)), at);
    }
    return;
  }
  await core.log.readSlot(position, target);
}
