/**
 * Segments are numbered from the highest that an opening finds, so what it does not find any more has
 * its number given again: in the same slot the positions are the same as well. What lies there of the
 * earlier one is never taken for the later one's.
 */
import { describe, expect, it } from 'vitest';
import { BLOCK_BYTES, generation, slot } from '../../src/base/units.ts';
import { slotOffset } from '../../log/geometry.ts';
import { decodeSegmentHeader, encodeSegmentHeader } from '../../log/summary.ts';
import { textOf, UndoBench, zeros } from './undo-bench.ts';

describe('a slot that was filled under the same number before', () => {
  // A round came to nothing, and the end was in order: nobody cleared what it had put. A later round
  // needed less; the old summary spoke for its segment, and what that did not list was gone.
  it.each([
    ['with a summary', true],
    ['without one', false],
  ])('states what the later opening put there, %s', async (_, isSynced) => {
    const bench = new UndoBench(1);
    bench.horizon = generation(5);
    await bench.world.run(async () => {
      const early = await bench.open();
      for (let block = 0; early.segments.size < 2; block++) {
        await early.put([bench.image(block, 1, 10)], generation(20));
      }
      if (isSynced) await early.sync();
      await early.close();
      const late = await bench.open();
      const facts = [[bench.image(100, 1, 8), bench.image(101, 1, 8)], [bench.image(200, 2, 30)]];
      for (const batch of facts) await late.put(batch, generation(30));
      await late.sync();
      bench.slotsUsed = late.slotsUsed;
      bench.horizon = generation(30);
      await late.close();
      await bench.open();
      expect(bench.stated).toEqual(facts.flat().map(({ image }) => textOf(image)));
    });
  });

  // A join was whole, and freed; the process was killed. The next opening joined others under its
  // number, and power went when only the first block of that was on the disk, beside the old end:
  // it was taken for whole, and what it was to be joined of was given up.
  it('is not whole by the end mark of an earlier join', async () => {
    const bench = new UndoBench(2);
    const { world, power, disk } = bench;
    const { at, tail } = await world.run(async () => {
      const undo = await bench.open();
      const segments = [];
      for (let block = 0; block < 6; block++) segments.push(await bench.fillSegment(undo, block));
      await undo.sync();
      bench.slotsUsed = undo.slotsUsed;
      const [oldest, ...sources] = segments.slice(0, 3);
      if (oldest === undefined) throw new Error('there is one');
      await undo.free(oldest);
      const joined = await bench.join(undo, sources);
      const slot = undo.segments.get(joined)?.slot;
      if (slot === undefined) throw new Error('it is there');
      const start = slotOffset(undo.geometry, slot) + 2 * BLOCK_BYTES;
      const bytes = bench.bytesAt(start, undo.geometry.segmentBytes - 2 * BLOCK_BYTES);
      for (const sequence of [...sources, joined]) await undo.free(sequence);
      return { at: start, tail: bytes };
    });
    power.kill();
    power.restore();
    const known = await world.run(async () => {
      const undo = await bench.open();
      await undo.clearFreeSlots();
      const stated = bench.stated.toSorted();
      const [one, other] = undo.segments.keys();
      if (one === undefined || other === undefined) throw new Error('there are two');
      const first = disk.counters.writes + 1;
      disk.faults.watch = () => {
        if (disk.counters.writes === first) power.plan({ loss: 'kill', afterOperations: 1 });
      };
      await Promise.race([bench.join(undo, [one, other]), power.lost]);
      return stated;
    });
    disk.faults.watch = undefined;
    power.restore();
    disk.corrupt(at, tail);
    await world.run(() => bench.open());
    expect(bench.stated.toSorted()).toEqual(known);
  });
});

// The sync of the mark that ends a join failed, and the page cache went on showing it. The next opening
// gave up the sources for it, synced, which had nothing to do, and punched them; power went before the
// sync of that. The mark was not there, of the sources only headers: the whole copy was given up.
describe('the end mark of a join that only the page cache has', () => {
  const SEEDS = Array.from({ length: 12 }, (_, i) => i + 1);

  it.each([
    ['after a kill', false],
    ['after an end in order', true],
  ])('is durable before anything is freed for it, %s', async (_, isClean) => {
    for (const seed of SEEDS) {
      const bench = new UndoBench(seed);
      const { world, power, disk } = bench;
      const known = await world.run(async () => {
        const undo = await bench.open();
        const segments = [];
        for (let block = 0; block < 5; block++) segments.push(await bench.fillSegment(undo, block));
        await undo.sync();
        const stated = bench.stated.toSorted();
        const fail = (): void => disk.failNextSync({ dropDirty: true });
        await expect(bench.join(undo, segments.slice(1, 3), fail)).rejects.toThrow();
        if (isClean) await undo.close();
        return stated;
      });
      power.kill();
      power.restore();
      const before = disk.counters.punches;
      disk.faults.watch = () => {
        if (disk.counters.punches !== before + 2) return;
        disk.faults.watch = undefined;
        power.plan({ loss: 'cut', afterOperations: 1 });
      };
      await power.runLife(() => bench.openUndo(isClean));
      if (power.alive) power.cut();
      power.restore();
      await world.run(() => bench.open());
      expect(bench.stated.toSorted(), `seed ${seed}`).toEqual(known);
    }
  });

  it('is not written into a slot that was freed and used again', async () => {
    const bench = new UndoBench(1);
    const { world, disk } = bench;
    await world.run(async () => {
      const undo = await bench.open();
      const segments = [];
      for (let block = 0; block < 5; block++) segments.push(await bench.fillSegment(undo, block));
      await undo.sync();
      const sources = segments.slice(1, 3);
      const fail = (): void => disk.failNextSync({ dropDirty: true });
      await expect(bench.join(undo, sources, fail)).rejects.toThrow();
      const into = [...undo.segments.keys()].at(-1);
      if (into === undefined) throw new Error('there is one');
      for (const sequence of [into, ...sources]) await undo.free(sequence);
      const writes = disk.counters.writes;
      expect(await undo.confirmJoins()).toEqual(new Set());
      expect(disk.counters.writes).toBe(writes);
    });
  });

  it('keeps what it speaks against where it can not be written', async () => {
    const bench = new UndoBench(1);
    const { world, power, disk } = bench;
    const sources = await world.run(async () => {
      const undo = await bench.open();
      const segments = [];
      for (let block = 0; block < 5; block++) segments.push(await bench.fillSegment(undo, block));
      await undo.sync();
      const fail = (): void => disk.failNextSync({ dropDirty: true });
      await expect(bench.join(undo, segments.slice(1, 3), fail)).rejects.toThrow();
      return segments.slice(1, 3);
    });
    power.kill();
    power.restore();
    await world.run(async () => {
      const undo = await bench.open();
      const [into] = [...undo.segments.values()].slice(-1);
      if (into === undefined) throw new Error('there is one');
      const offset = slotOffset(undo.geometry, into.slot);
      const mend = disk.failWrite({ offset, length: undo.geometry.segmentBytes });
      expect(await undo.confirmJoins()).toEqual(new Set([into.sequence, ...sources]));
      mend();
      expect(await undo.confirmJoins()).toEqual(new Set());
    });
  });
});

// A file system without room for a summary failed the round, which put everything again.
it('needs no summaries: what they list is found without them', async () => {
  const bench = new UndoBench(4);
  await bench.world.run(async () => {
    const undo = await bench.open();
    const first = await bench.fillSegment(undo, 7);
    const end = slotOffset(undo.geometry, undo.segments.get(first)?.slot ?? slot(0));
    const at = end + undo.geometry.segmentBytes - BLOCK_BYTES;
    bench.disk.failWrite({ offset: at, length: BLOCK_BYTES });
    await undo.sync();
    bench.slotsUsed = undo.slotsUsed;
    const stated = bench.stated;
    await bench.open();
    expect(bench.stated).toEqual(stated);
  });
});

it('states what an early version put, whose batches do not say of which opening they are', async () => {
  const bench = new UndoBench(3);
  await bench.world.run(async () => {
    const early = await bench.open(0);
    const first = await bench.fillSegment(early, 7);
    await early.put([zeros(8, 1, 9)], generation(50));
    await early.sync();
    bench.slotsUsed = early.slotsUsed;
    const stated = bench.stated;
    const late = await bench.open();
    expect(bench.stated).toEqual(stated);
    // Its first batch is damaged, and the header knows its opening: the others are taken all the same.
    const slot = late.segments.get(first)?.slot;
    if (slot === undefined) throw new Error('it is there');
    const at = slotOffset(late.geometry, slot);
    const header = decodeSegmentHeader(bench.bytesAt(at, BLOCK_BYTES), bench.volume);
    if (header === undefined) throw new Error('it has a header');
    bench.disk.corrupt(at, encodeSegmentHeader(bench.volume, { ...header, opening: 12_345 }));
    bench.disk.corrupt(at + BLOCK_BYTES, new Uint8Array(BLOCK_BYTES));
    bench.disk.corrupt(at + late.geometry.segmentBytes - BLOCK_BYTES, new Uint8Array(BLOCK_BYTES));
    await bench.open();
    expect(bench.stated).toEqual(stated.slice(1));
  });
});

// Each round began with the same place, and failed at it, though all other slots were free.
it.each([
  ['where a segment begins', 0],
  ['inside its first batch', 2],
  ['inside its second batch', 6],
])('puts elsewhere what the device refuses %s', async (_, block) => {
  for (let seed = 1; seed <= 10; seed++) {
    const bench = new UndoBench(seed);
    const { world, disk } = bench;
    await world.run(async () => {
      const undo = await bench.open();
      const facts = [1, 2, 3].map((of) => [0, 1, 2].map((i) => bench.image(10 * of + i, 1, 9)));
      const offset = slotOffset(undo.geometry, slot(0)) + block * BLOCK_BYTES;
      disk.failWrite({ offset, length: BLOCK_BYTES });
      for (const batch of facts) await undo.put(batch, generation(30));
      await undo.sync();
      undo.check();
      bench.slotsUsed = undo.slotsUsed;
      const all = facts.flat().map(({ image }) => textOf(image));
      expect(bench.stated).toEqual(all);
      // Of a write that was done in part nothing is found, with a summary or without it.
      for (const { slot: at } of undo.segments.values()) {
        await bench.open();
        expect(bench.stated.toSorted()).toEqual(all);
        const end = slotOffset(undo.geometry, at) + undo.geometry.segmentBytes;
        disk.corrupt(end - BLOCK_BYTES, new Uint8Array(BLOCK_BYTES));
      }
      await bench.open();
      expect(bench.stated.toSorted()).toEqual(all);
    });
  }
});
