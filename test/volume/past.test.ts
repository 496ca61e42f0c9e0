/** What changed and when, as a volume tells it, against the model and by single stories. */
import { describe, expect, test } from 'vitest';
import {
  block as blockOf,
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  micros,
} from '../../src/base/units.ts';
import type { SearchPage } from '../../src/volume/past-report.ts';
import type { HistoryInterval } from '../../src/volume/report.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { Bench, blocksOf, put } from '../crash/bench.ts';
import { runPast, type PastCounts } from './past-run.ts';

describe('the past of a volume', () => {
  test('is told as the model has it, over random lives', async () => {
    const total: Partial<PastCounts> = {};
    for (let seed = 1; seed <= 8; seed++) {
      const counts = await runPast({ seed });
      for (const [what, count] of Object.entries(counts)) {
        Object.assign(total, { [what]: (Reflect.get(total, what) ?? 0) + count });
      }
    }
    expect(total.diffs).toBeGreaterThan(50);
    expect(total.straddling).toBeGreaterThan(50);
    expect(total.belowHorizon).toBeGreaterThan(10);
  });
});

describe('a search', () => {
  const FIRST = byteOffset(0);
  const size = byteCount(1024 * BLOCK_BYTES);
  const pattern = Buffer.from('\0\0\0island\0\0\0');

  async function searched(volume: Volume): Promise<SearchPage> {
    const { horizon, head } = volume.past.window();
    const query = { pattern, from: horizon.generation, to: head.generation };
    const place = { offset: FIRST, end: byteOffset(size), next: FIRST };
    const options = { throughout: false, spellsMax: 1000 };
    return await volume.past.search({ ...query, ...place, ...options }, () => undefined);
  }

  test('passes over what was only ever trimmed, and minds its edges', async () => {
    const bench = await Bench.create(5, { size });
    await bench.use(async (volume) => {
      const live = volume.live();
      await live.trim(FIRST, volume.size, { fua: false });
      // Regions of the index have 256 blocks: the zeros beside these two lie in others.
      const places = [256 * BLOCK_BYTES - 9, 512 * BLOCK_BYTES - 3].map(byteOffset);
      await live.write(places[0] ?? FIRST, pattern.subarray(0, -3), { fua: false });
      await live.write(byteOffset(512 * BLOCK_BYTES), pattern.subarray(3), { fua: false });
      const page = await searched(volume);
      expect(page.spells.map(({ offset }) => offset)).toEqual(places);
      expect(page.next).toBeUndefined();
      // Two versions of each block in the two regions with data, and those of some edges.
      expect(page.versions).toBeGreaterThan(1024);
      expect(page.versions).toBeLessThan(1200);
    });
  });

  test('finds what was at home, and trimmed there', async () => {
    const bench = await Bench.create(6, { size });
    await bench.use(async (volume) => {
      const live = volume.live();
      const place = byteOffset(400 * BLOCK_BYTES + 7);
      // Behind more data than is read at once.
      for (let at = 300; at < 420; at += 10) await put(volume, at, blocksOf(at, 10));
      await live.write(place, pattern, { fua: false });
      const { head: written } = volume.core;
      for (let i = 0; volume.core.settled < written; i++) await put(volume, i % 16, blocksOf(i, 8));
      // Rounds that go on would take the window from under the search.
      await bench.world.sleep(1_000_000);
      await live.trim(FIRST, volume.size, { fua: false });
      expect(volume.core.index.bareUntil(blockOf(256), blockOf(512))).toBe(512);
      const { head } = volume.past.window();
      const { spells } = await searched(volume);
      expect(spells).toMatchObject([{ offset: place, gone: { generation: head.generation } }]);
    });
  });
});

describe('a history', () => {
  const NO = { fua: false };

  function countsOf(volume: Volume): Partial<HistoryInterval> | undefined {
    const [whole] = volume.history({ intervals: 1 });
    if (whole === undefined) return undefined;
    const { writes, bytes, trims, trimmedBytes, flushes } = whole;
    return { writes, bytes: byteCount(bytes), trims, trimmedBytes, flushes };
  }

  test('tells writes from trims and zeroes, also after the next opening', async () => {
    const bench = await Bench.create(3);
    const expected = {
      writes: 4,
      bytes: 6 * BLOCK_BYTES,
      trims: 3,
      trimmedBytes: 9 * BLOCK_BYTES,
      flushes: 1,
    };
    await bench.use(async (volume) => {
      const live = volume.live();
      for (const block of [1, 2, 3]) await put(volume, block, blocksOf(block));
      await bench.world.sleep(2_000_000);
      await live.trim(byteOffset(0), byteCount(4 * BLOCK_BYTES), NO);
      // Three whole blocks, and the edges of two others.
      await live.zero(byteOffset(100), byteCount(4 * BLOCK_BYTES), { fua: false, allocate: false });
      // All of it inside one block: that block is written.
      await live.zero(byteOffset(8 * BLOCK_BYTES), byteCount(100), { fua: true, allocate: true });
      await live.zero(byteOffset(0), byteCount(2 * BLOCK_BYTES), { fua: false, allocate: true });
      await live.flush();
      await bench.world.sleep(1000);
      expect(countsOf(volume)).toEqual(expected);
    });
    await bench.use(async (volume) => {
      expect(countsOf(volume)).toEqual(expected);
      await volume.live().trim(byteOffset(0), byteCount(BLOCK_BYTES), NO);
      await bench.world.sleep(1000);
      expect(countsOf(volume)).toMatchObject({ writes: 4, trims: 4 });
    });
  });

  // A request for a time before the window ended the server: `varve history disk --to -1w`.
  test('of a time before the window is empty', async () => {
    const bench = await Bench.create(4);
    await bench.use(async (volume) => {
      await put(volume, 1, blocksOf(1));
      expect(volume.history({ intervals: 3, toWallUs: micros(1) })).toEqual([]);
      expect(volume.history({ intervals: 3, fromWallUs: micros(0), toWallUs: micros(1) })).toEqual(
        [],
      );
    });
  });
});
