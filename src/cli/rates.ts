/** What volumes do in a second, from two looks at their counters. Pure. */
import { sizeText } from '../control/size-text.ts';
import type { VolumeInfo } from '../volume/report.ts';
import { spanText } from './numbers.ts';

/** A volume as it was at a time. */
export interface Look {
  readonly name: string;
  /** Microseconds of a clock that only goes forward. */
  readonly atUs: number;
  /** Microseconds since 1970. */
  readonly wallUs: number;
  readonly info: VolumeInfo;
}

/** What was done in each second between two looks. */
export interface Rates {
  readonly reads: number;
  readonly readBytes: number;
  readonly writes: number;
  readonly writeBytes: number;
  readonly trims: number;
  readonly flushes: number;
}

export interface Load {
  readonly name: string;
  /** Microseconds since 1970. */
  readonly wallUs: number;
  readonly perSecond: Rates;
  readonly generation: number;
  readonly logUsedBytes: number;
  readonly logSizeBytes: number;
  readonly ringUsedBytes: number;
  readonly ringSizeBytes: number;
  /** From the horizon to now. */
  readonly windowUs: number;
  /** What stops writes, or soon will. */
  readonly trouble: string | undefined;
}

/** Of the undo device; beyond this it is told of, because writes stop when it is full. */
const FILL_TOLD = 0.75;

function trimsOf({ counters }: VolumeInfo): number {
  return counters.trims + counters.zeroes;
}

function troubleOf({ failure, undo, snapshots }: VolumeInfo): string | undefined {
  if (failure !== undefined) return failure;
  const isFull = snapshots.length > 0 && undo.usedBytes > undo.sizeBytes * FILL_TOLD;
  if (!isFull) return undefined;
  const part = Math.round((undo.usedBytes / undo.sizeBytes) * 100);
  return `what snapshots keep fills ${part} % of the undo device; writes stop when it is full`;
}

/** @param before - of the same volume; counters that began anew since then give no rate */
export function loadOf(before: Look, now: Look): Load {
  const seconds = (now.atUs - before.atUs) / 1e6;
  const rate = (count: (info: VolumeInfo) => number): number => {
    const done = count(now.info) - count(before.info);
    return seconds > 0 && done > 0 ? done / seconds : 0;
  };
  const { log, ring, head, horizon } = now.info;
  return {
    name: now.name,
    wallUs: now.wallUs,
    perSecond: {
      reads: rate(({ counters }) => counters.reads),
      readBytes: rate(({ counters }) => counters.readBytes),
      writes: rate(({ counters }) => counters.writes),
      writeBytes: rate(({ counters }) => counters.writeBytes),
      trims: rate(trimsOf),
      flushes: rate(({ counters }) => counters.flushes),
    },
    generation: head.generation,
    logUsedBytes: log.usedBytes,
    logSizeBytes: log.sizeBytes,
    ringUsedBytes: ring.usedBytes,
    ringSizeBytes: ring.sizeBytes,
    windowUs: Math.max(0, now.wallUs - horizon.wallUs),
    trouble: troubleOf(now.info),
  };
}

/** A count a second: small ones with a digit behind the point. */
export function rateText(rate: number): string {
  return rate > 0 && rate < 10 ? rate.toFixed(1) : String(Math.round(rate));
}

export const LOAD_COLUMNS = [
  { head: 'NAME' },
  { head: 'READS/s', align: 'right' },
  { head: 'READ/s', align: 'right' },
  { head: 'WRITES/s', align: 'right' },
  { head: 'WRITTEN/s', align: 'right' },
  { head: 'TRIMS/s', align: 'right' },
  { head: 'FLUSHES/s', align: 'right' },
  { head: 'LOG', align: 'right' },
  { head: 'RING', align: 'right' },
  { head: 'WINDOW', align: 'right' },
  { head: 'GENERATION', align: 'right' },
] as const;

function percent(used: number, size: number): string {
  return `${Math.round((used / size) * 100)} %`;
}

export function loadCells(load: Load): readonly string[] {
  const { perSecond } = load;
  return [
    load.name,
    rateText(perSecond.reads),
    sizeText(Math.round(perSecond.readBytes)),
    rateText(perSecond.writes),
    sizeText(Math.round(perSecond.writeBytes)),
    rateText(perSecond.trims),
    rateText(perSecond.flushes),
    percent(load.logUsedBytes, load.logSizeBytes),
    percent(load.ringUsedBytes, load.ringSizeBytes),
    spanText(load.windowUs),
    String(load.generation),
  ];
}
