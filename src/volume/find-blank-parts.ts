/**
 * What a round leaves alone of trims and zeroes: whole pages of checksums that say "never written" of
 * blocks which no request of the round wrote. They read as zeros before and after it, at home and at
 * every moment: nothing is kept of them, and nothing is said of them.
 *
 * Invariants:
 *   - What is left alone has no data among its versions of the round, and no zeros that are to be
 *     allocated: each version of it reads as zeros, and its sums do not tell them apart.
 *   - Over a base nothing is: there "never written" is what the base has.
 *   - A page is blank only if it was read as blank twice: a read may go astray.
 */
import { block as blockOf, type Generation } from '../base/units.ts';
import { RANGE_ALLOCATE } from '../../index/found.ts';
import { BlankParts, NO_BLANK_PARTS, united, type Part } from './blank-parts.ts';
import type { Core } from './core.ts';
import { SUMS_PAGE_BLOCKS } from './sums-page.ts';

/** Of these: further ones are treated as what is not blank. */
const PARTS_MAX = 65_536;

/** @throws VarveError DEVICE_IO */
export async function findBlankParts(core: Core, target: Generation): Promise<BlankParts> {
  if (core.final.hasBase) return NO_BLANK_PARTS;
  const parts: Part[] = [];
  for (const range of rangesOfZeros(core, target)) {
    const from = Math.ceil(range.start / SUMS_PAGE_BLOCKS);
    const to = Math.floor(range.end / SUMS_PAGE_BLOCKS);
    if (to <= from) continue;
    for await (const run of core.final.sidecar.blankRuns(from, to)) {
      if (!run.isBlank) continue;
      const start = run.from * SUMS_PAGE_BLOCKS;
      for (const part of bareParts(core, start, run.to * SUMS_PAGE_BLOCKS)) {
        if (parts.length < PARTS_MAX) parts.push(part);
      }
      await core.yieldTurn();
    }
  }
  return new BlankParts(parts);
}

/** Blocks that the round makes zeros, and allocates nowhere; ascending, apart from each other. */
function rangesOfZeros(core: Core, target: Generation): readonly Part[] {
  const { settled, blocks } = core;
  const ranges = core.index.rangesUpTo(target).filter(({ generation }) => generation > settled);
  const ends = (kind: boolean): readonly Part[] =>
    ranges
      .filter((range) => (range.kind === RANGE_ALLOCATE) === kind)
      .map(({ start, count }) => ({ start, end: Math.min(start + count, blocks) }));
  const allocated = new BlankParts(united(ends(true)));
  return united(ends(false)).flatMap(({ start, end }) => [...allocated.others(start, end)]);
}

/** Whole pages of blocks that the window has no data of. */
function* bareParts(core: Core, start: number, end: number): Generator<Part> {
  for (let at = start; at < end;) {
    const until = core.index.bareUntil(blockOf(at), blockOf(end));
    const stop = at + Math.floor((until - at) / SUMS_PAGE_BLOCKS) * SUMS_PAGE_BLOCKS;
    if (stop > at) yield { start: at, end: stop };
    at = stop < end ? stop + SUMS_PAGE_BLOCKS : end;
  }
}
