/** The index as the volume uses it: what is found at which moment, and what a round gets. */
import { describe, expect, it } from 'vitest';
import {
  BlockIndex,
  FOUND_DATA,
  FOUND_NONE,
  FOUND_ZERO,
  RANGE_ALLOCATE,
  RANGE_TRIM,
  RANGE_ZERO,
} from '../../index/block-index.ts';
import type { BlockVersions } from '../../index/block-versions.ts';
import { SegmentReferences } from '../../index/segment-references.ts';
import {
  block,
  blockCount,
  checksum,
  generation,
  lsn,
  segmentSequence,
  type BlockCount,
  type Generation,
} from '../../src/base/units.ts';

const BLOCKS = blockCount(2 ** 29);
const EVERYTHING = { runsMax: 1000, probesMax: 1_000_000 };

function newIndex(blocks: BlockCount = BLOCKS): BlockIndex {
  // Begins just below the wrap of version numbers.
  return new BlockIndex({ blocks, versionFirst: 0x0fff_0000 });
}

/** The payload of generation g lies at LSN g x 4096; its checksum is g. */
function write(index: BlockIndex, where: number, at: number): void {
  index.putBlock(block(where), generation(at), lsn(at * 4096), checksum(at));
}

function trim(index: BlockIndex, start: number, count: number, at: number): void {
  index.putRange(block(start), blockCount(count), generation(at), RANGE_TRIM);
}

function found(index: BlockIndex, where: number, at: number): string {
  const code = index.find(block(where), generation(at));
  if (code === FOUND_NONE) return 'none';
  if (code === FOUND_ZERO) return `zero ${index.foundRangeKind} of ${index.foundGeneration}`;
  expect(index.foundLsn).toBe(index.foundGeneration * 4096);
  expect(index.foundChecksum).toBe(checksum(index.foundGeneration));
  return `data of ${index.foundGeneration}`;
}

describe('any moment', () => {
  it('finds the newest version at or before a generation, and nothing before the first', () => {
    const index = newIndex();
    write(index, 7, 10);
    write(index, 8, 11);
    write(index, 7, 12);
    expect(found(index, 7, 9)).toBe('none');
    expect(found(index, 7, 10)).toBe('data of 10');
    expect(found(index, 7, 11)).toBe('data of 10');
    expect(found(index, 7, 12)).toBe('data of 12');
    expect(found(index, 7, 1000)).toBe('data of 12');
    expect(found(index, 9, 1000)).toBe('none');
    index.check();
  });

  it('tells blocks apart whose numbers differ only above 32 bits', () => {
    const index = newIndex(blockCount(2 ** 41));
    write(index, 5, 1);
    write(index, 5 + 2 ** 32, 2);
    write(index, 2 ** 41 - 1, 3);
    expect(found(index, 5, 9)).toBe('data of 1');
    expect(found(index, 5 + 2 ** 32, 9)).toBe('data of 2');
    expect(found(index, 5 + 2 ** 33, 9)).toBe('none');
    expect(found(index, 2 ** 41 - 1, 9)).toBe('data of 3');
    index.check();
  });

  it('keeps generations and LSNs far above 32 bits apart', () => {
    const index = newIndex();
    const far = 2 ** 52 - 2;
    index.putBlock(block(1), generation(far), lsn(2 ** 45), checksum(0xffff_ffff));
    index.putBlock(block(1), generation(far + 2 ** 31), lsn(2 ** 45 + 2 ** 43), checksum(1));
    expect(index.find(block(1), generation(far - 1))).toBe(FOUND_NONE);
    expect(index.find(block(1), generation(far + 2 ** 31 - 1))).toBe(FOUND_DATA);
    expect(index.foundLsn).toBe(2 ** 45);
    expect(index.foundChecksum).toBe(0xffff_ffff);
    expect(index.find(block(1), generation(far + 2 ** 31))).toBe(FOUND_DATA);
    expect(index.foundLsn).toBe(2 ** 45 + 2 ** 43);
    index.check();
  });

  it('reads an old moment of a block with many versions in few steps', () => {
    const index = newIndex();
    const versions = 300_000;
    for (let at = 1; at <= versions; at++) write(index, 3, at);
    const startMs = performance.now();
    for (let at = 1; at <= versions; at += 30) expect(found(index, 3, at)).toBe(`data of ${at}`);
    // By plain links these 10,000 reads would follow 1.5 thousand million links: many seconds.
    expect(performance.now() - startMs).toBeLessThan(2000);
    index.drop(generation(200_000));
    expect(found(index, 3, 200_000)).toBe('none');
    for (let at = 200_001; at <= versions; at += 1000) {
      expect(found(index, 3, at)).toBe(`data of ${at}`);
    }
    index.check();
  });
});

describe('trims and zeroes', () => {
  it('lets the newer of point and range win', () => {
    const index = newIndex();
    write(index, 5, 1);
    trim(index, 0, 10, 2);
    write(index, 6, 3);
    expect(found(index, 5, 1)).toBe('data of 1');
    expect(found(index, 5, 2)).toBe('zero 1 of 2');
    expect(found(index, 6, 3)).toBe('data of 3');
    expect(found(index, 6, 2)).toBe('zero 1 of 2');
    expect(found(index, 10, 3)).toBe('none');
    index.check();
  });

  it('splits a fragment that a later record cuts in the middle', () => {
    const index = newIndex();
    trim(index, 0, 100, 1);
    index.putRange(block(40), blockCount(20), generation(2), RANGE_ALLOCATE);
    index.putRange(block(45), blockCount(2), generation(3), RANGE_ZERO);
    expect(found(index, 39, 9)).toBe('zero 1 of 1');
    expect(found(index, 40, 9)).toBe('zero 3 of 2');
    expect(found(index, 45, 9)).toBe('zero 2 of 3');
    expect(found(index, 47, 9)).toBe('zero 3 of 2');
    expect(found(index, 60, 9)).toBe('zero 1 of 1');
    expect(found(index, 45, 2)).toBe('zero 3 of 2');
    expect(found(index, 45, 1)).toBe('zero 1 of 1');
    index.check();
  });

  it('takes a trim of the whole device as one record, and reads moments before it', () => {
    const index = newIndex();
    for (let at = 1; at <= 500; at++) trim(index, at * 10, 5, at);
    index.putRange(block(0), BLOCKS, generation(501), RANGE_TRIM);
    for (let at = 502; at <= 700; at++) trim(index, at * 10, 5, at);
    expect(index.rangeRecords).toBe(700);
    expect(found(index, 3000, 300)).toBe('zero 1 of 300');
    expect(found(index, 3000, 299)).toBe('none');
    expect(found(index, 3000, 501)).toBe('zero 1 of 501');
    expect(found(index, BLOCKS - 1, 700)).toBe('zero 1 of 501');
    expect(found(index, 6004, 700)).toBe('zero 1 of 600');
    index.drop(generation(600));
    expect(found(index, 3000, 700)).toBe('none');
    expect(found(index, 6104, 700)).toBe('zero 1 of 610');
    index.check();
  });

  it('forgets all records and goes on, wherever the last clone stood', () => {
    const index = newIndex();
    for (let at = 1; at <= 70; at++) trim(index, at, 3, at);
    index.drop(generation(70));
    expect(index.rangeRecords).toBe(0);
    for (let at = 71; at <= 90; at++) trim(index, at, 3, at);
    expect(found(index, 73, 71)).toBe('zero 1 of 71');
    expect(found(index, 74, 71)).toBe('none');
    index.check();
  });
});

describe('block status', () => {
  it('reports one run for an empty 2 TiB volume, after few looks', () => {
    const index = newIndex();
    const { runs, next } = index.runs(block(0), BLOCKS, generation(9), {
      runsMax: 10,
      probesMax: 65_536,
    });
    expect(runs).toEqual([{ start: 0, count: BLOCKS, found: FOUND_NONE, rangeKind: RANGE_TRIM }]);
    expect(next).toBe(BLOCKS);
  });

  it('merges neighbours and tells the kinds of zeros apart', () => {
    const index = newIndex();
    trim(index, 100, 50, 1);
    index.putRange(block(150), blockCount(50), generation(2), RANGE_ALLOCATE);
    trim(index, 200, 10, 3);
    trim(index, 210, 10, 4);
    write(index, 120, 5);
    write(index, 121, 6);
    const brief = index
      .runs(block(90), blockCount(200), generation(6), EVERYTHING)
      .runs.map((run) => [run.start, run.count, run.found, run.rangeKind]);
    expect(brief).toEqual([
      [90, 10, FOUND_NONE, RANGE_TRIM],
      [100, 20, FOUND_ZERO, RANGE_TRIM],
      [120, 2, FOUND_DATA, RANGE_TRIM],
      [122, 28, FOUND_ZERO, RANGE_TRIM],
      [150, 50, FOUND_ZERO, RANGE_ALLOCATE],
      [200, 20, FOUND_ZERO, RANGE_TRIM],
      [220, 70, FOUND_NONE, RANGE_TRIM],
    ]);
  });

  it('stops at its limits, and goes on where it stopped', () => {
    const index = newIndex();
    for (let at = 1; at <= 50; at++) write(index, at * 2, at);
    const first = index.runs(block(0), blockCount(101), generation(50), {
      runsMax: 3,
      probesMax: 1000,
    });
    expect(first.runs.map(({ start }) => start)).toEqual([0, 2, 3]);
    expect(first.next).toBe(4);
    const short = index.runs(first.next, blockCount(97), generation(50), {
      runsMax: 1000,
      probesMax: 1,
    });
    expect(short.runs).toEqual([{ start: 4, count: 1, found: FOUND_DATA, rangeKind: RANGE_TRIM }]);
    expect(short.next).toBe(5);
  });

  it('names what changed between two moments, and nothing else', () => {
    const index = newIndex();
    write(index, 10, 1);
    write(index, 11, 2);
    trim(index, 20, 5, 3);
    write(index, 11, 4);
    trim(index, 22, 1, 5);
    write(index, 12, 6);
    const changed = (since: number, at: number): unknown[] => {
      return index
        .changed(block(0), blockCount(1000), generation(since), generation(at), EVERYTHING)
        .runs.filter((run) => run.changed)
        .map(({ start, count }) => [start, count]);
    };
    expect(changed(3, 5)).toEqual([
      [11, 1],
      [22, 1],
    ]);
    expect(changed(0, 2)).toEqual([[10, 2]]);
    expect(changed(6, 6)).toEqual([]);
  });
});

describe('the versions of a block', () => {
  /** All pages of `limit`, one after the other. */
  function versionsOf(index: BlockIndex, where: number, at: number, limit: number): unknown[] {
    const all: unknown[] = [];
    for (let next: Generation | undefined = generation(at); next !== undefined;) {
      const page: BlockVersions = index.versionsOf(block(where), next, limit);
      expect(page.versions.length).toBeLessThanOrEqual(limit);
      for (const version of page.versions) {
        const what = version.found === FOUND_DATA ? 'data' : `zero ${version.rangeKind}`;
        all.push(`${version.generation}: ${what} of ${version.requestBlocks}`);
      }
      next = page.next;
    }
    return all;
  }

  it('come newest first, of the block itself and of ranges over it, page by page', () => {
    const index = newIndex();
    write(index, 10, 1);
    write(index, 11, 2);
    trim(index, 0, 100, 3);
    index.putBlock(block(10), generation(4), lsn(4 * 4096), checksum(4));
    index.putBlock(block(11), generation(4), lsn(5 * 4096), checksum(5));
    trim(index, 10, 2, 5);
    trim(index, 11, 5, 6);
    const all = ['5: zero 1 of 2', '4: data of 2', '3: zero 1 of 100', '1: data of 1'];
    for (const limit of [1, 2, 3, 100]) {
      expect(versionsOf(index, 10, 1000, limit)).toEqual(all);
      expect(versionsOf(index, 10, 4, limit)).toEqual(all.slice(1));
    }
    expect(versionsOf(index, 12, 1000, 1)).toEqual(['6: zero 1 of 5', '3: zero 1 of 100']);
    expect(versionsOf(index, 200, 1000, 1)).toEqual([]);
    expect(versionsOf(index, 10, 0, 1)).toEqual([]);
  });

  it('leave with what is settled', () => {
    const index = newIndex();
    write(index, 10, 1);
    trim(index, 10, 1, 2);
    write(index, 10, 3);
    index.drop(generation(1));
    expect(versionsOf(index, 10, 3, 5)).toEqual(['3: data of 1', '2: zero 1 of 1']);
    index.drop(generation(2));
    expect(versionsOf(index, 10, 3, 5)).toEqual(['3: data of 1']);
    index.drop(generation(3));
    expect(versionsOf(index, 10, 3, 5)).toEqual([]);
  });

  it('of a block that was written very often are found in pieces', () => {
    const index = newIndex();
    for (let at = 1; at <= 100_000; at++) write(index, 5, at);
    const { versions, next } = index.versionsOf(block(5), generation(60_000), 3);
    expect(versions.map((version) => version.generation)).toEqual([60_000, 59_999, 59_998]);
    expect(next).toBe(59_997);
  });
});

describe('a round', () => {
  it('gets the newest version of each block up to its target, in block order', () => {
    const index = newIndex();
    write(index, 30, 1);
    write(index, 10, 2);
    write(index, 30, 3);
    write(index, 20, 4);
    trim(index, 20, 1, 5);
    write(index, 10, 6);
    const newest = index.newestUpTo(generation(5));
    expect(Array.from(newest.blocks)).toEqual([10, 30]);
    expect(Array.from(newest.generations)).toEqual([2, 3]);
    expect(Array.from(newest.lsns)).toEqual([2 * 4096, 3 * 4096]);
    expect(Array.from(newest.checksums)).toEqual([2, 3]);
    expect(newest).toHaveLength(2);
    expect(index.newestUpTo(generation(4)).length).toBe(3);
    expect(index.rangesUpTo(generation(5))).toEqual([
      { start: 20, count: 1, generation: 5, kind: RANGE_TRIM },
    ]);
    expect(index.rangesUpTo(generation(4))).toEqual([]);
  });

  it('sorts a large round by block', () => {
    const index = newIndex(blockCount(2 ** 41));
    let where = 1;
    for (let at = 1; at <= 5000; at++) {
      where = (where * 48_271) % 2_147_483_647;
      write(index, where * 1000, at);
    }
    const { blocks } = index.newestUpTo(generation(5000));
    expect(blocks).toEqual(Float64Array.from(blocks).sort());
    expect(blocks).toHaveLength(5000);
  });

  it('is computed in steps while writes go on, and is that of its first step', () => {
    const index = newIndex();
    for (let at = 1; at <= 100; at++) write(index, at % 10, at);
    trim(index, 3, 1, 101);
    const steps = index.newestUpToSteps(generation(101));
    for (let at = 102; ; at++) {
      const step = steps.next();
      if (step.done === true) {
        expect(Array.from(step.value.blocks)).toEqual([0, 1, 2, 4, 5, 6, 7, 8, 9]);
        expect(Array.from(step.value.generations)).toEqual([100, 91, 92, 94, 95, 96, 97, 98, 99]);
        break;
      }
      write(index, at % 10, at);
      trim(index, 5, 1, at);
    }
    index.check();
  });

  it('forgets what was settled: points, ranges, references of segments', () => {
    const segments = new SegmentReferences();
    const index = new BlockIndex({ blocks: BLOCKS, segments });
    segments.open(segmentSequence(1), lsn(4096));
    write(index, 1, 1);
    write(index, 2, 2);
    segments.open(segmentSequence(2), lsn(3 * 4096));
    write(index, 1, 3);
    trim(index, 2, 1, 4);
    index.check();
    expect(segments.live(segmentSequence(1))).toBe(2);
    index.drop(generation(2));
    index.check();
    expect(segments.live(segmentSequence(1))).toBe(0);
    segments.drop(segmentSequence(1));
    expect(found(index, 1, 2)).toBe('none');
    expect(found(index, 1, 3)).toBe('data of 3');
    expect(found(index, 2, 4)).toBe('zero 1 of 4');
    index.drop(generation(4));
    expect(index.versions).toBe(0);
    expect(index.rangeRecords).toBe(0);
    expect(found(index, 1, 4)).toBe('none');
    index.check();
  });

  it('forgets in steps without ever showing something older than what is settled', () => {
    const index = newIndex();
    write(index, 1, 1);
    trim(index, 1, 1, 2);
    write(index, 1, 3);
    trim(index, 1, 1, 4);
    write(index, 2, 5);
    while (!index.dropSome(generation(4), 1)) {
      expect(['zero 1 of 4', 'none']).toContain(found(index, 1, 4));
      index.check();
    }
    expect(found(index, 1, 5)).toBe('none');
    expect(found(index, 2, 5)).toBe('data of 5');
  });

  it('gives its memory back when the window drains, and is small when it is empty', () => {
    const index = newIndex();
    const bytesEmpty = index.bytes;
    for (let at = 1; at <= 200_000; at++) write(index, (at * 7919) % 1_000_003, at);
    index.drop(generation(100_000));
    index.check();
    index.drop(generation(199_990));
    index.check();
    index.drop(generation(200_000));
    expect(index.bytes).toBe(bytesEmpty);
    write(index, 1, 200_001);
    expect(found(index, 1, 200_001)).toBe('data of 200001');
    expect(index.bytes).toBeLessThan(bytesEmpty + 10_000);
    index.check();
  });
});

describe('bugs of a caller', () => {
  it('stop: an older generation, a block outside, an LSN that goes back', () => {
    const index = newIndex(blockCount(100));
    write(index, 1, 5);
    expect(() => write(index, 1, 4)).toThrow('generations never decrease');
    expect(() => write(index, 100, 6)).toThrow('a block lies on the volume');
    expect(() => trim(index, 99, 2, 6)).toThrow('a range lies on the volume');
    expect(() => index.putBlock(block(2), generation(6), lsn(4096), checksum(0))).toThrow(
      'LSNs strictly increase',
    );
  });
});

/** Of an odd number, modulo 2^32. */
function inverse(odd: number): number {
  let found = odd;
  for (let i = 0; i < 5; i++) found = Math.imul(found, 2 - Math.imul(odd, found));
  return found;
}

/** The block whose hash this is, in a table whose seed is 0. */
function unhash(hashed: number): number {
  let mixed = Math.imul(hashed ^ (hashed >>> 16), inverse(0xc2b2_ae35));
  mixed = Math.imul(mixed ^ (mixed >>> 13) ^ (mixed >>> 26), inverse(0x85eb_ca6b));
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

// A client that chose its blocks so that all came to one place of the table ended the volume: no
// opening could take those 40 MB of writes in again.
describe('blocks whose hashes begin with the same 14 bits', () => {
  it.each([
    ['that a client chose', 0],
    ['where it does not know the seed', 0x1234_5678],
  ])('have room, %s', (_, seed) => {
    const index = new BlockIndex({ blocks: blockCount(2 ** 32), seed });
    const chosen = Array.from({ length: 12_000 }, (_block, at) => unhash(at));
    chosen.forEach((where, at) => write(index, where, at + 1));
    index.check();
    const last = generation(chosen.length);
    const isMissing = (where: number, at: number): boolean =>
      index.find(block(where), last) !== FOUND_DATA || index.foundGeneration !== at + 1;
    expect(chosen.filter(isMissing)).toEqual([]);
    index.drop(generation(chosen.length - 10));
    index.check();
  });
});
