/** A history as a person sees it on a terminal. */
import { describe, expect, it } from 'vitest';
import { byteCount, generation, micros } from '../../src/base/units.ts';
import { bar, historyBars } from '../../src/cli/history-bars.ts';
import type { HistoryInterval } from '../../src/volume/report.ts';

const NOON_US = Date.parse('2026-11-21T12:00:00Z') * 1000;
const SECOND_US = 1_000_000;

function interval(second: number, counts: Partial<HistoryInterval>): HistoryInterval {
  return {
    fromWallUs: micros(NOON_US + second * SECOND_US),
    toWallUs: micros(NOON_US + (second + 10) * SECOND_US),
    generation: generation(100 + second),
    writes: 0,
    bytes: byteCount(0),
    trims: 0,
    trimmedBytes: byteCount(0),
    flushes: 0,
    rollbacks: [],
    ...counts,
  };
}

const INTERVALS = [
  interval(0, { writes: 40, bytes: byteCount(163_840), flushes: 2 }),
  interval(10, {}),
  interval(20, {
    writes: 4,
    bytes: byteCount(16_384),
    trims: 300,
    trimmedBytes: byteCount(2 ** 30),
  }),
  interval(30, { writes: 1, bytes: byteCount(4096), trims: 1, trimmedBytes: byteCount(4096) }),
];

describe('a bar', () => {
  it('is as long as its part, to an eighth of a character, and never empty for something', () => {
    expect(bar(10, 10, 4)).toBe('████');
    expect(bar(5, 10, 4)).toBe('██  ');
    expect(bar(3, 10, 4)).toBe('█▎  ');
    expect(bar(1, 100_000, 4)).toBe('▏   ');
    expect(bar(0, 10, 4)).toBe('    ');
    expect(bar(0, 0, 4)).toBe('    ');
  });
});

describe('a history', () => {
  it('shows a burst, what it was, and the moment behind it', () => {
    const aroundUs = NOON_US + 25 * SECOND_US;
    const lines = historyBars({ name: 'disk', intervals: INTERVALS, width: 120, aroundUs }).split(
      '\n',
    );
    expect(lines[0]).toContain('10 s a line');
    expect(lines[2]).toMatch(/FROM +WRITES +TRIMS +FLUSHES +MOMENT AT THE END$/);
    expect(lines[3]).toMatch(/^ {2}12:00:00 {2}█+ 40, 160 KiB +2 +disk@gen=100$/);
    expect(lines[4]).toMatch(/^ {2}12:00:10 +disk@gen=110$/);
    expect(lines[5]).toMatch(
      /^> 12:00:20 {2}█+[▏▎▍▌▋▊▉]? +4, 16 KiB +█+ 300, 1 GiB +disk@gen=120$/,
    );
    expect(lines[6]).toContain('▏');
    expect(lines).toHaveLength(7);
  });

  it('keeps to the width where that is wide enough, and has columns that stand', () => {
    for (const width of [90, 100, 132, 200]) {
      const lines = historyBars({ name: 'disk', intervals: INTERVALS, width }).split('\n').slice(2);
      expect(Math.max(...lines.map(({ length }) => length))).toBeLessThanOrEqual(width);
      const places = lines.map((line) => Math.max(line.indexOf('disk@'), line.indexOf('MOMENT')));
      expect(new Set(places).size).toBe(1);
    }
  });

  it('of nothing says so', () => {
    expect(historyBars({ name: 'disk', intervals: [], width: 80 })).toContain('no history');
  });
});
