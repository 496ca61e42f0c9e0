/** When a round is due, and how far it goes. Changes nothing. */
import { generation as generationOf, gibibytes, type Generation } from '../base/units.ts';
import type { Segment } from '../../log/segments.ts';
import type { Core } from './core.ts';
import { CRITICAL_WATER, HIGH_WATER, LOW_WATER, RANGE_RECORDS_MAX } from './water.ts';

/** Stream that one round settles at most: bounds its memory. */
const ROUND_BYTES_MAX = gibibytes(1);

interface Urge {
  /** Somebody waits: open moments don't count, nor how long every write should stay openable. */
  readonly urgent: boolean;
  /** Writes after this one should stay openable; undefined: any may go. */
  readonly youngFrom: Generation | undefined;
}

function fillOf({ log }: Core): number {
  return 1 - log.segments.freeSlots / log.geometry.slotCount;
}

function hasManyRanges({ index }: Core): boolean {
  return index.rangeRecords >= RANGE_RECORDS_MAX / 2;
}

/** The log or the index is past its mark. */
export function isPressed(core: Core): boolean {
  return fillOf(core) >= HIGH_WATER || hasManyRanges(core);
}

/**
 * Nothing of a closed segment is needed once `upTo` is settled. A record that is not durable yet
 * is in no checkpoint, so its segment has to stay.
 */
export function isDone(core: Core, { endLsn, lastGeneration }: Segment, upTo: number): boolean {
  return endLsn !== undefined && lastGeneration <= upTo && endLsn <= core.recordedLsn;
}

/** The generation that the next round settles, or undefined when it would free nothing. */
export function roundTarget(core: Core, { urgent, youngFrom }: Urge): Generation | undefined {
  const { log, settled, index } = core;
  // The index keeps to its limit all the same.
  const young = hasManyRanges(core) ? Infinity : (youngFrom ?? Infinity);
  const limit = limitOf(core, urgent, young);
  const wantedOf = (water: number): number =>
    Math.max(1, Math.floor(log.geometry.slotCount * (1 - water)));
  let target: Generation | undefined;
  let free = log.segments.freeSlots;
  const first = log.superblock.tailLsn;
  for (const segment of log.segments.live) {
    if (segment.endLsn === undefined || !isDone(core, segment, limit)) break;
    if (segment.sequence < log.superblock.tailSequence) continue;
    // Not always ascending: a request that was never finished was given no number, and its segment
    // counts it all the same.
    target = generationOf(Math.max(target ?? 0, segment.lastGeneration));
    free += 1;
    const wanted = wantedOf(target < young ? LOW_WATER : HIGH_WATER);
    if (free >= wanted || segment.endLsn - first >= ROUND_BYTES_MAX) break;
  }
  if (target === undefined && hasManyRanges(core)) {
    const middle = index.rangesUpTo(limit).at(RANGE_RECORDS_MAX / 4);
    if (middle !== undefined) target = middle.generation;
  }
  return target === undefined ? undefined : generationOf(Math.max(target, settled));
}

/** How far it may go. */
function limitOf(core: Core, urgent: boolean, young: number): Generation {
  const { durable } = core.log.writer;
  const limits = [durable.generation, core.heldBack ?? Infinity];
  if (!urgent && fillOf(core) < CRITICAL_WATER) limits.push(core.oldestOpen ?? Infinity, young);
  return generationOf(Math.min(...limits));
}
