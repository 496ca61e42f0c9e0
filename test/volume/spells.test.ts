/** Spans of generations: joined where they adjoin, cut where two have to hold at once. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { common, Spells, type Span } from '../../src/volume/spells.ts';

const GENERATIONS = 40;
const so = fc.array(fc.boolean(), { minLength: GENERATIONS, maxLength: GENERATIONS });

/** Told newest first, one generation at a time. */
function spansOf(states: readonly boolean[]): readonly Span[] {
  const spells = new Spells(1000);
  for (let at = states.length - 1; at >= 0; at--)
    if (states[at] === true) spells.add(7, at, at + 1);
  return spells.of(7);
}

function statesOf(spans: readonly Span[]): boolean[] {
  return Array.from({ length: GENERATIONS }, (_, at) => {
    return spans.some(({ since, until }) => since <= at && at < until);
  });
}

describe('spans', () => {
  it('are those of the generations that were told, apart and newest first', () => {
    fc.assert(
      fc.property(so, (states) => {
        const spans = spansOf(states);
        expect(statesOf(spans)).toEqual(states);
        for (const [i, { since }] of spans.entries()) {
          expect(spans[i + 1]?.until ?? -1).toBeLessThan(since);
        }
      }),
    );
  });

  it('that two things have in common are those of both', () => {
    fc.assert(
      fc.property(so, so, (one, other) => {
        const both = common(spansOf(one), spansOf(other));
        expect(statesOf(both)).toEqual(one.map((is, at) => is && other[at] === true));
        expect(both).toEqual(spansOf(statesOf(both)));
      }),
    );
  });

  it('beyond the limit are counted', () => {
    const spells = new Spells(2);
    for (const at of [9, 7, 5, 3]) spells.add(at, at, at + 1);
    spells.add(9, 8, 9);
    expect([...spells.all()]).toEqual([
      [7, [{ since: 7, until: 8 }]],
      [9, [{ since: 8, until: 10 }]],
    ]);
    expect(spells.left).toBe(2);
  });
});
