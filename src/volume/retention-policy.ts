/**
 * Retention: which moments are kept when they leave the window. Values in, values out.
 *
 * The newest moment of each hour is a candidate for an automatic snapshot. Each rule keeps those of
 * its newest periods, the last one of each; a snapshot may serve several rules, and goes when it
 * serves none.
 *
 * Invariant: what is kept of candidates is the same whether they came one by one, or all at once.
 */
import { VarveError } from '../base/errors.ts';
import { DAY_US, HOUR_US, periodOf, WEEK_US } from '../base/periods.ts';
import { byteCount, micros, type ByteCount, type Generation, type Micros } from '../base/units.ts';

/** 0 of anything: no such rule. */
export interface RetentionPolicy {
  /** So long every write should stay openable, as far as the log holds it. */
  readonly everyWriteUs: Micros;
  /** Of so many hours, days and weeks the last moment is kept. */
  readonly hourly: number;
  readonly daily: number;
  readonly weekly: number;
  /** What is held of blocks that were replaced; automatic snapshots go where it would be more. */
  readonly maxBytes: ByteCount;
}

/** What is not named stays as it is. */
export type RetentionChange = {
  readonly [K in keyof RetentionPolicy]?: RetentionPolicy[K] | undefined;
};

export const NO_RETENTION: RetentionPolicy = {
  everyWriteUs: micros(0),
  hourly: 0,
  daily: 0,
  weekly: 0,
  maxBytes: byteCount(0),
};

export const RULES = ['hourly', 'daily', 'weekly'] as const;
export type Rule = (typeof RULES)[number];
/** More snapshots of a kind make no finer history, but a larger catalogue. */
export const RULE_COUNT_MAX = 1000;
/** No log holds every write for longer. */
export const EVERY_WRITE_US_MAX = micros(366 * DAY_US);

const PERIODS: Readonly<Record<Rule, number>> = { hourly: HOUR_US, daily: DAY_US, weekly: WEEK_US };

/** @throws VarveError RETENTION_BAD */
export function changedPolicy(policy: RetentionPolicy, change: RetentionChange): RetentionPolicy {
  const next = {
    everyWriteUs: change.everyWriteUs ?? policy.everyWriteUs,
    hourly: change.hourly ?? policy.hourly,
    daily: change.daily ?? policy.daily,
    weekly: change.weekly ?? policy.weekly,
    maxBytes: change.maxBytes ?? policy.maxBytes,
  };
  for (const rule of RULES) {
    if (next[rule] <= RULE_COUNT_MAX) continue;
    throw new VarveError('RETENTION_BAD', `${rule}: got ${next[rule]}, at most ${RULE_COUNT_MAX}`);
  }
  if (next.everyWriteUs > EVERY_WRITE_US_MAX) {
    throw new VarveError('RETENTION_BAD', 'every write: at most 366 days');
  }
  return next;
}

/** Whether any automatic snapshots are wanted. */
export function hasRules(policy: RetentionPolicy): boolean {
  return RULES.some((rule) => policy[rule] > 0);
}

interface Candidate {
  readonly generation: Generation;
  /** When it was the newest. */
  readonly wallUs: Micros;
}

/**
 * @param candidates - ascending by generation, each the last of its hour
 * @param currentWallUs - of the oldest moment behind them: its hour, day and week have not ended
 * @returns which rules keep each generation; the others are not needed
 */
export function keptBy(
  policy: RetentionPolicy,
  candidates: readonly Candidate[],
  currentWallUs: Micros,
): ReadonlyMap<Generation, readonly Rule[]> {
  const kept = new Map<Generation, Rule[]>();
  for (const rule of RULES) {
    for (const { generation } of newest(policy[rule], PERIODS[rule], candidates, currentWallUs)) {
      const rules = kept.get(generation);
      if (rules === undefined) kept.set(generation, [rule]);
      else rules.push(rule);
    }
  }
  return kept;
}

function newest(
  count: number,
  periodUs: number,
  candidates: readonly Candidate[],
  currentWallUs: Micros,
): readonly Candidate[] {
  const current = periodOf(currentWallUs, periodUs);
  const seen = new Set<number>();
  const found: Candidate[] = [];
  for (const candidate of candidates.toReversed()) {
    const period = periodOf(candidate.wallUs, periodUs);
    // Of the day that goes on: its last moment is still to come. Where the clock was set back to an
    // earlier one, that one counts, but its last moment is another.
    if (period === current && seen.size === 0) continue;
    if (seen.has(period)) continue;
    seen.add(period);
    if (seen.size > count) break;
    if (period !== current) found.push(candidate);
  }
  return found;
}
