/** A history drawn for a terminal: a line an interval, with bars in which a burst is seen. Pure. */
import { sizeText } from '../control/size-text.ts';
import { timeText } from '../volume/moment.ts';
import type { HistoryInterval } from '../volume/report.ts';

export interface Drawing {
  readonly name: string;
  readonly intervals: readonly HistoryInterval[];
  /** Characters in a line. */
  readonly width: number;
  /** A time to be pointed at. */
  readonly aroundUs?: number | undefined;
}

const EIGHTHS = ' ▏▎▍▌▋▊▉';
const BAR_MIN = 8;
const BAR_MAX = 40;
const SECOND_US = 1_000_000;

/** `part` of `whole` in so many characters; what is more than nothing is seen. */
export function bar(part: number, whole: number, width: number): string {
  if (part <= 0 || whole <= 0) return ' '.repeat(width);
  const eighths = Math.max(1, Math.round((part / whole) * width * 8));
  const full = Math.floor(eighths / 8);
  const rest = eighths % 8 === 0 ? '' : (EIGHTHS[eighths % 8] ?? '');
  return `${'█'.repeat(full)}${rest}`.padEnd(width);
}

/** Of a time, what changes within a history: the clock, or more. */
function clockText(wallUs: HistoryInterval['fromWallUs'], intervalUs: number): string {
  const text = timeText(wallUs);
  return intervalUs < SECOND_US ? text.slice(11, 23) : text.slice(11, 19);
}

function durationText(us: number): string {
  if (us < SECOND_US) return `${Number((us / 1000).toFixed(1))} ms`;
  if (us < 120 * SECOND_US) return `${Number((us / SECOND_US).toFixed(1))} s`;
  if (us < 7200 * SECOND_US) return `${Number((us / 60 / SECOND_US).toFixed(1))} min`;
  return `${Number((us / 3600 / SECOND_US).toFixed(1))} h`;
}

interface Row {
  readonly mark: string;
  readonly clock: string;
  readonly writes: string;
  readonly trims: string;
  readonly flushes: string;
  readonly moment: string;
}

function widest(rows: readonly Row[], cell: (row: Row) => string): number {
  return Math.max(...rows.map((row) => cell(row).length));
}

export function historyBars({ name, intervals, width, aroundUs }: Drawing): string {
  const [first, last] = [intervals[0], intervals.at(-1)];
  if (first === undefined || last === undefined) return `${name} has no history in that time`;
  const intervalUs = first.toWallUs - first.fromWallUs;
  const rows = intervals.map((interval): Row => {
    const { fromWallUs, toWallUs, writes, bytes, trims, trimmedBytes, flushes } = interval;
    const isAround = aroundUs !== undefined && aroundUs >= fromWallUs && aroundUs < toWallUs;
    return {
      mark: isAround ? '>' : ' ',
      clock: clockText(fromWallUs, intervalUs),
      writes: writes === 0 ? '' : `${writes}, ${sizeText(bytes)}`,
      trims: trims === 0 ? '' : `${trims}, ${sizeText(trimmedBytes)}`,
      flushes: flushes === 0 ? '' : String(flushes),
      moment: `${name}@gen=${interval.generation}`,
    };
  });
  const head: Row = {
    mark: ' ',
    clock: 'FROM',
    writes: 'WRITES',
    trims: 'TRIMS',
    flushes: 'FLUSHES',
    moment: 'MOMENT AT THE END',
  };
  const all = [head, ...rows];
  const clock = widest(all, (row) => row.clock);
  const writes = widest(all, (row) => row.writes);
  const trims = widest(all, (row) => row.trims);
  const moment = widest(all, (row) => row.moment);
  // Marks, gaps and the column of flushes take 21 characters more.
  const left = width - clock - writes - trims - moment - 21;
  const barWidth = Math.min(BAR_MAX, Math.max(BAR_MIN, Math.floor(left / 2)));
  const most = (count: (interval: HistoryInterval) => number): number =>
    Math.max(...intervals.map((interval) => count(interval)));
  const [writesMost, trimsMost] = [most((one) => one.writes), most((one) => one.trims)];
  const lines = all.map((row, i) => {
    const interval = intervals[i - 1];
    const cells = [
      `${row.mark} ${row.clock.padEnd(clock)}`,
      `${bar(interval?.writes ?? 0, writesMost, barWidth)} ${row.writes.padEnd(writes)}`,
      `${bar(interval?.trims ?? 0, trimsMost, barWidth)} ${row.trims.padEnd(trims)}`,
      row.flushes.padStart(head.flushes.length),
      row.moment,
    ];
    return cells.join('  ').trimEnd();
  });
  const span = `${timeText(first.fromWallUs)} to ${timeText(last.toWallUs)}`;
  return [`${name}, ${span}, ${durationText(intervalUs)} a line`, '', ...lines].join('\n');
}
