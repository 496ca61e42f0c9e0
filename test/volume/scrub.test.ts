/**
 * What a scrub finds, what it repairs and from where, and what it must not touch: each story with
 * the damage done on purpose, and read back after a restart.
 */
import { describe, expect, test } from 'vitest';
import {
  block as blockNumber,
  BLOCK_BYTES,
  generation,
  kibibytes,
  slot,
} from '../../src/base/units.ts';
import { LOST_TEXT, SUMS_ENTRIES, SUMS_SECTOR_BYTES } from '../../src/format/layouts.ts';
import { LATEST } from '../../src/volume/reader.ts';
import type { ScrubReport } from '../../src/volume/report.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { checkpointOffset, slotOffset } from '../../log/geometry.ts';
import { Bench, blocksOf, holds, put, unreadable, pushRounds } from '../crash/bench.ts';

const quiet = (): undefined => undefined;

async function scrub(volume: Volume, bytesPerSecond = 0): Promise<ScrubReport> {
  return await volume.scrub({ bytesPerSecond, progress: quiet });
}

/** Blocks that one round settles. */
const FIRST = 34;

/** The first blocks are settled, and their slots in the log not used again. */
async function settleFirst(volume: Volume): Promise<void> {
  for (let block = 0; block < FIRST; block++) await put(volume, block, blocksOf(block));
  await pushRounds(volume, 1);
  expect(volume.core.settled).toBeGreaterThanOrEqual(FIRST);
}

/** The same, and nothing in the log tells of them any more. */
async function settleAndForget(volume: Volume): Promise<void> {
  await settleFirst(volume);
  await pushRounds(volume, 8);
}

function placeInLog(volume: Volume, block: number, at = LATEST): number {
  const { index, log } = volume.core;
  expect(index.find(blockNumber(block), at)).toBe(1);
  return log.segments.place(log.segments.find(index.foundLsn), index.foundLsn);
}

/** What is wrong now, in few words. */
function outcomes({ damages }: ScrubReport): string[] {
  return damages.map(({ place, outcome, repairedFrom, block }) => {
    const where = block === undefined ? place : `${place} ${block}`;
    return `${where}: ${outcome}${repairedFrom === undefined ? '' : ` from ${repairedFrom}`}`;
  });
}

async function expectBlocks(volume: Volume, first = 0, count = FIRST): Promise<void> {
  for (let block = first; block < first + count; block++) {
    expect(await holds(volume.live(), block, [blocksOf(block)]), `block ${block}`).toBe(0);
  }
}

/** After a restart nothing is found any more, and the blocks are what they were. */
async function expectWhole(bench: Bench): Promise<void> {
  await bench.use(async (volume) => {
    expect(outcomes(await scrub(volume))).toEqual([]);
    await expectBlocks(volume);
    expect((await volume.check(quiet)).ok).toBe(true);
  });
}

describe('a scrub of what is whole', () => {
  test('finds nothing and writes nothing', async () => {
    const bench = await Bench.create(1);
    await bench.use(settleFirst);
    await bench.use(async (volume) => {
      const { log, final, sums } = bench.sim;
      const before = [log, final, sums].map(({ counters }) => counters.writes);
      const report = await scrub(volume);
      expect(report).toMatchObject({ ok: true, repaired: 0, left: 0, damages: [] });
      expect(report.bytesRead).toBeGreaterThan(80 * BLOCK_BYTES);
      expect([log, final, sums].map(({ counters }) => counters.writes)).toEqual(before);
    });
  });

  test('keeps to its rate, tells how far it is, and can be ended at any time', async () => {
    const bench = await Bench.create(2);
    await bench.use(settleFirst);
    await bench.use(async (volume) => {
      const report = await scrub(volume, kibibytes(256));
      const atLeastMs = (report.bytesRead / kibibytes(256)) * 1000;
      expect(report.tookMs).toBeGreaterThan(atLeastMs - 100);
      expect(report.tookMs).toBeLessThan(atLeastMs + 1000);
      const steps: number[] = [];
      const progress = (done: number, total: number): void => {
        expect(done).toBeLessThanOrEqual(total);
        steps.push(done);
        if (steps.length === 5) throw new Error('enough');
      };
      await expect(volume.scrub({ bytesPerSecond: 1, progress })).rejects.toThrow('enough');
      expect(steps).toEqual([...steps].sort((a, b) => a - b));
      // One at a time; and a volume that closes does not wait for a slow one.
      const slow = volume.scrub({ bytesPerSecond: 1, progress: quiet });
      const ended = expect(slow).rejects.toMatchObject({ code: 'CLOSED' });
      await expect(scrub(volume)).rejects.toMatchObject({ code: 'SCRUB_RUNS' });
      await volume.close();
      await ended;
    });
  });

  test('goes on beside writes and rounds', async () => {
    const bench = await Bench.create(3);
    await bench.use(settleFirst);
    await bench.use(async (volume) => {
      let isDone = false;
      const scrubbing = (async (): Promise<ScrubReport[]> => {
        const reports: ScrubReport[] = [];
        while (!isDone) reports.push(await scrub(volume));
        return reports;
      })();
      await pushRounds(volume, 6);
      isDone = true;
      const reports = await scrubbing;
      expect(reports.length).toBeGreaterThan(1);
      for (const report of reports) expect(outcomes(report)).toEqual([]);
      await expectBlocks(volume);
    });
  });
});

describe('final storage', () => {
  test('is repaired from a slot that was recycled; the rest is told with who sees it', async () => {
    const bench = await Bench.create(4);
    const { final } = bench.sim;
    await bench.use(settleFirst);
    await bench.use(async (volume) => {
      await volume.createSnapshot('before');
      await put(volume, 12, blocksOf(12));
      final.corruptBit(3 * BLOCK_BYTES + 9, 2);
      final.corruptBit(12 * BLOCK_BYTES + 9, 2);
      const report = await scrub(volume);
      expect(report.ok).toBe(true);
      expect(outcomes(report)).toEqual([
        'final storage 3: repaired from the log',
        'final storage 12: repaired from the log',
      ]);
      expect((await volume.info()).counters.repairs).toBe(2);
      await volume.deleteSnapshot('before');
    });
    await expectWhole(bench);
    await bench.use(async (volume) => pushRounds(volume, 8));
    await bench.use(async (volume) => {
      await volume.createSnapshot('before');
      const { head } = volume.core;
      await put(volume, 12, blocksOf(12));
      await put(volume, 20, blocksOf(20));
      final.corruptBit(3 * BLOCK_BYTES + 9, 2);
      final.corruptBit(12 * BLOCK_BYTES + 9, 2);
      const { horizon } = volume.core;
      const report = await scrub(volume);
      expect(report).toMatchObject({ ok: false, repaired: 0, left: 2 });
      expect(report.damages).toMatchObject([
        {
          block: 3,
          offset: 3 * BLOCK_BYTES,
          generation: 4,
          wallUs: undefined,
          seenBy: { live: true, from: horizon.generation, to: head + 2, snapshots: ['before'] },
        },
        { block: 12, seenBy: { live: false, to: head, snapshots: ['before'] } },
      ]);
      expect(await unreadable(volume.live(), 0, FIRST)).toEqual(
        new Map([[3, 'BLOCK_CORRUPT EIO']]),
      );
    });
  });

  test('that the device refuses to read is written again', async () => {
    const bench = await Bench.create(5);
    await bench.use(settleFirst);
    await bench.use(async (volume) => {
      const mend = bench.sim.final.failRead({ offset: 7 * BLOCK_BYTES, length: 512 });
      expect(outcomes(await scrub(volume))).toEqual(['final storage 7: repaired from the log']);
      mend();
    });
    await expectWhole(bench);
  });

  test('with blocks that changed places gets each back', async () => {
    const bench = await Bench.create(6);
    const { final } = bench.sim;
    await bench.use(settleFirst);
    const [five, six] = [new Uint8Array(BLOCK_BYTES), new Uint8Array(BLOCK_BYTES)];
    final.platter.read(5 * BLOCK_BYTES, five);
    final.platter.read(6 * BLOCK_BYTES, six);
    final.corrupt(5 * BLOCK_BYTES, six);
    final.corrupt(6 * BLOCK_BYTES, five);
    await bench.use(async (volume) => {
      expect(outcomes(await scrub(volume))).toEqual([
        'final storage 5: repaired from the log',
        'final storage 6: repaired from the log',
      ]);
    });
    await expectWhole(bench);
  });

  test('that lost a write and its sum is found by what the log proves, and brought forward', async () => {
    const bench = await Bench.create(7, { slots: 48 });
    const { final, sums } = bench.sim;
    const oldSums = new Uint8Array(SUMS_SECTOR_BYTES);
    const oldBlocks = new Uint8Array(12 * BLOCK_BYTES);
    const stale: number[] = [];
    await bench.use(async (volume) => {
      const { log, catalogue } = volume.core;
      const fillTo = async (sequence: number): Promise<void> => {
        for (let i = 0; (log.segments.newest?.sequence ?? 0) < sequence; i++) {
          await put(volume, 40 + (i % 40), blocksOf(1000 + i));
        }
      };
      await fillTo(11);
      for (let block = 0; block < 12; block++) await put(volume, block, blocksOf(block + 200));
      await fillTo(13);
      for (let block = 0; block < 12; block++) await put(volume, block, blocksOf(block));
      const { head } = volume.core;
      await pushRounds(volume, 1);
      sums.platter.read(0, oldSums);
      final.platter.read(0, oldBlocks);
      while (volume.core.settled < head) await pushRounds(volume, 1);
      const witnesses = catalogue.witnesses.map(({ block }) => block);
      for (let at = 0; at < 12; at++) if (!witnesses.includes(blockNumber(at))) stale.push(at);
    });
    sums.corrupt(0, oldSums);
    for (const block of stale) {
      const from = block * BLOCK_BYTES;
      // Every second one lost its content, too.
      if (block % 2 === 0) final.corrupt(from, oldBlocks.subarray(from, from + BLOCK_BYTES));
    }
    await bench.use(async (volume) => {
      const report = await scrub(volume);
      expect(report.ok).toBe(true);
      expect(report.damages.filter(({ place }) => place === 'final storage').length).toBe(12);
      await expectBlocks(volume, 0, 12);
    });
    await bench.use(async (volume) => {
      expect(outcomes(await scrub(volume))).toEqual([]);
      await expectBlocks(volume, 0, 12);
    });
  });

  test('that is given up does not stay zeros, which could look never written', async () => {
    const bench = await Bench.create(8, { slots: 48 });
    const { log, final, sums } = bench.sim;
    const blank = new Uint8Array(BLOCK_BYTES);
    const old = new Uint8Array(SUMS_SECTOR_BYTES);
    let victim = 0;
    await bench.use(async (volume) => {
      for (let block = 12; block < FIRST; block++) await put(volume, block, blocksOf(block));
      await pushRounds(volume, 1);
      sums.platter.read(0, old);
      const places: number[] = [];
      for (let block = 0; block < 12; block++) {
        await put(volume, block, blocksOf(block));
        places.push(placeInLog(volume, block));
      }
      const { head, catalogue } = volume.core;
      while (volume.core.settled < head) await pushRounds(volume, 1);
      const witnesses = catalogue.witnesses.map(({ block }) => block);
      victim = places.findIndex((_, block) => !witnesses.includes(blockNumber(block)));
      log.corrupt(places[victim] ?? 0, blank);
    });
    // Its write and that of its sum were lost: both are as they were before it was ever written.
    final.corrupt(victim * BLOCK_BYTES, blank);
    sums.corrupt(0, old);
    await bench.use(async (volume) => {
      expect(outcomes(await scrub(volume))).toContain(`final storage ${victim}: left`);
    });
    const home = new Uint8Array(LOST_TEXT.length);
    final.platter.read(victim * BLOCK_BYTES, home);
    expect(Buffer.from(home).toString()).toBe(LOST_TEXT);
  });

  test('is never overwritten with the older version that a stale sum names', async () => {
    const bench = await Bench.create(8, { slots: 48 });
    const { sums, final } = bench.sim;
    const old = new Uint8Array(SUMS_SECTOR_BYTES);
    const newest = new Uint8Array(12 * BLOCK_BYTES);
    await bench.use(async (volume) => {
      for (let block = 0; block < 12; block++) await put(volume, block, blocksOf(block + 200));
      await pushRounds(volume, 1);
      sums.platter.read(0, old);
      for (let block = 0; block < 12; block++) await put(volume, block, blocksOf(block));
      const { head } = volume.core;
      while (volume.core.settled < head) await pushRounds(volume, 1);
      await pushRounds(volume, 8);
      final.platter.read(0, newest);
      // In this life memory knows better.
      sums.corrupt(0, old);
      expect(outcomes(await scrub(volume))).toEqual(['checksums: repaired from memory']);
      await expectBlocks(volume, 0, 12);
    });
    sums.corrupt(0, old);
    await bench.use(async (volume) => {
      const report = await scrub(volume);
      expect(report.ok).toBe(false);
      const now = new Uint8Array(12 * BLOCK_BYTES);
      final.platter.read(0, now);
      expect(Buffer.compare(now, newest)).toBe(0);
      for (let block = 0; block < 12; block++) {
        expect(await holds(volume.live(), block, [blocksOf(block)]).catch(() => -1)).toBe(-1);
      }
    });
  });
});

describe('a damaged sector of checksums', () => {
  test('is made again from what the log proves', async () => {
    const bench = await Bench.create(9);
    await bench.use(settleFirst);
    bench.sim.sums.corruptBit(40, 1);
    bench.sim.final.corruptBit(4 * BLOCK_BYTES, 1);
    await bench.use(async (volume) => {
      const report = await scrub(volume);
      expect(outcomes(report)).toEqual(['checksums: repaired from the log']);
      await expectBlocks(volume);
    });
    await expectWhole(bench);
  });

  test('of which nothing tells leaves its blocks lost, and writes heal them', async () => {
    const bench = await Bench.create(10);
    await bench.use(settleAndForget);
    bench.sim.sums.corruptBit(40, 1);
    await bench.use(async (volume) => {
      const report = await scrub(volume);
      expect(report.left).toBe(1 + SUMS_ENTRIES);
      expect((await unreadable(volume.live(), 0, FIRST)).size).toBe(SUMS_ENTRIES);
      for (let block = 0; block < SUMS_ENTRIES; block++) await put(volume, block, blocksOf(block));
      await expectBlocks(volume);
      await pushRounds(volume, 8);
    });
    await expectWhole(bench);
  });
});

describe('the log', () => {
  /** Some versions, the last ones only in the log. */
  async function writeSome(volume: Volume): Promise<void> {
    for (let block = 0; block < FIRST; block++) await put(volume, block, blocksOf(block));
    await volume.live().flush();
  }

  test('gets back what the ring still has: payloads and headers', async () => {
    const bench = await Bench.create(11);
    const { log } = bench.sim;
    await bench.use(async (volume) => {
      await writeSome(volume);
      const first = slotOffset(bench.sim.geometry, slot(0));
      log.corruptBit(placeInLog(volume, 2) + 7, 3);
      log.corruptBit(placeInLog(volume, 30) + 7, 3);
      log.corruptBit(first + 50, 1);
      log.corruptBit(first + BLOCK_BYTES + 50, 1);
      const report = await scrub(volume);
      expect(outcomes(report)).toEqual([
        'segment header: repaired from memory',
        'batch header: repaired from the ring',
        'payload 2: repaired from memory',
        'payload 30: repaired from memory',
      ]);
    });
    await expectWhole(bench);
  });

  test('gets headers from summaries, and summaries from headers', async () => {
    const bench = await Bench.create(12);
    const { log, geometry } = bench.sim;
    await bench.use(async (volume) => {
      await writeSome(volume);
      expect(volume.core.log.segments.live.length).toBeGreaterThan(2);
    });
    await bench.use(async (volume) => {
      log.corruptBit(slotOffset(geometry, slot(0)) + BLOCK_BYTES + 60, 1);
      log.corruptBit(slotOffset(geometry, slot(2)) - BLOCK_BYTES + 30, 1);
      expect(outcomes(await scrub(volume))).toEqual([
        "batch header: repaired from the segment's summary",
        'summary: repaired from its headers',
      ]);
    });
    await expectWhole(bench);
  });

  test('tells of a payload that nobody else has, and only of what can still be read', async () => {
    const bench = await Bench.create(13);
    const { log } = bench.sim;
    await bench.use(async (volume) => {
      await writeSome(volume);
      await put(volume, 2, blocksOf(2), true);
    });
    await bench.use(async (volume) => {
      const { head } = volume.core;
      log.corruptBit(placeInLog(volume, 2, generation(head - 1)) + 7, 3);
      const report = await scrub(volume);
      expect(report.damages).toMatchObject([
        {
          place: 'payload',
          outcome: 'left',
          block: 2,
          generation: 3,
          seenBy: { live: false, from: 3, to: head - 1, snapshots: [] },
        },
      ]);
      expect(report.damages[0]?.wallUs).toBeGreaterThan(0);
      await expectBlocks(volume);
      const check = await volume.check(quiet);
      expect(check.ok).toBe(false);
      expect(check.problems).toMatchObject([
        /payload: block 2, generation 3, LSN \d+: bad checksum/,
      ]);
    });
  });

  test('gets superblock, checkpoint and records of the catalogue from memory', async () => {
    const bench = await Bench.create(14);
    const { log, geometry } = bench.sim;
    await bench.use(async (volume) => {
      await writeSome(volume);
      await volume.createSnapshot('kept');
    });
    await bench.use(async (volume) => {
      const { checkpointArea, sequence } = volume.core.log.superblock;
      // The newest copy: writing the next one first would have left no good copy for a moment.
      log.corrupt(sequence % 2 === 0 ? 0 : 8 * BLOCK_BYTES, new Uint8Array(512).fill(0xee));
      log.corruptBit(checkpointOffset(geometry, checkpointArea) + 100, 1);
      // The first record of the stream: the lineage, behind the first header.
      log.corruptBit(slotOffset(geometry, slot(0)) + 2 * BLOCK_BYTES + 20, 1);
      expect(outcomes(await scrub(volume))).toEqual([
        'superblock: repaired from memory',
        'checkpoint: repaired from memory',
      ]);
    });
    await bench.use(async (volume) => {
      expect(volume.snapshots().map(({ label }) => label)).toEqual(['kept']);
      await volume.deleteSnapshot('kept');
    });
    await expectWhole(bench);
  });

  test('a repair that a cut takes is made by the next one', async () => {
    for (let cut = 1; cut < 14; cut++) {
      const bench = await Bench.create(100 + cut);
      await bench.use(settleFirst);
      const end = await bench.untilLost('cut', async (volume, plan) => {
        bench.sim.final.corruptBit(3 * BLOCK_BYTES + 9, 2);
        bench.sim.final.corruptBit(21 * BLOCK_BYTES + 9, 2);
        bench.sim.sums.corruptBit(SUMS_SECTOR_BYTES + 30, 2);
        plan({ loss: 'cut', afterOperations: 40 + cut * 3 });
        await scrub(volume);
      });
      expect(['done', 'lost']).toContain(end.kind);
      await bench.use(async (volume) => {
        expect((await scrub(volume)).ok).toBe(true);
        await expectBlocks(volume);
      });
      await expectWhole(bench);
    }
  });

  test('a device that refuses the repair is no reason to stop, nor to fail the volume', async () => {
    const bench = await Bench.create(15);
    await bench.use(async (volume) => {
      await writeSome(volume);
      const place = placeInLog(volume, 2);
      bench.sim.log.corruptBit(place + 7, 3);
      const mend = bench.sim.log.failWrite({ offset: place, length: 1 });
      expect(outcomes(await scrub(volume))).toEqual(['payload 2: left']);
      expect(volume.core.failure).toBeUndefined();
      mend();
      // A write that failed may be done all the same.
      expect((await scrub(volume)).ok).toBe(true);
    });
  });
});
