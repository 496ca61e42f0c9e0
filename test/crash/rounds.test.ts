/** Rounds beside readers, in logs full of trims, and over sectors that can't be read. */
import { describe, expect, test } from 'vitest';
import { BLOCK_BYTES, byteCount, byteOffset, lsn, mebibytes, slot } from '../../src/base/units.ts';
import { slotOffset } from '../../log/geometry.ts';
import { SeededRandom } from '../sim/random.ts';
import { Bench, blocksOf, get, holds, put, unreadable, pushRounds } from './bench.ts';

const NO = { fua: false };

describe('readers beside a round', () => {
  test('who lets go while versions are dropped in steps recycles nothing that lives', async () => {
    // A release recycled all segments before the new tail, though the index still named them.
    const bench = await Bench.create(1, {
      size: mebibytes(24),
      slots: 600,
      ringBytes: mebibytes(1),
    });
    await bench.use(async (volume) => {
      const random = new SeededRandom(1);
      const blocks = mebibytes(24) / BLOCK_BYTES;
      const newest = new Map<number, number>();
      let pending = -1;
      let done = false;
      const reader = async (): Promise<void> => {
        while (!done) {
          // A hit in RAM does not wait: others must run all the same.
          await bench.world.sleep(1);
          const block = random.below(blocks);
          const value = newest.get(block);
          if (block === pending) continue;
          const got = await get(volume.live(), block);
          if (block === pending || newest.get(block) !== value) continue;
          const expected = value === undefined ? new Uint8Array(BLOCK_BYTES) : blocksOf(value);
          expect(Buffer.compare(got, expected)).toBe(0);
        }
      };
      const writer = async (): Promise<void> => {
        for (let i = 1; volume.core.counters.rounds < 2; i++) {
          pending = random.below(blocks);
          await put(volume, pending, blocksOf(i));
          newest.set(pending, i);
        }
        done = true;
      };
      await Promise.all([writer(), ...Array.from({ length: 8 }, reader)]);
      volume.core.check();
    });
  });
});

describe('trims', () => {
  test('without a flush are never refused in a log that is nearly empty', async () => {
    // Their records filled the index before any of them was durable, so no round could free one.
    const bench = await Bench.create(2, {
      slots: 12,
      segmentBytes: mebibytes(4),
      ringBytes: mebibytes(8),
    });
    await bench.use(async (volume) => {
      for (let i = 0; i < 40_000; i++) {
        const at = byteOffset((i % 90) * BLOCK_BYTES);
        await volume.live().trim(at, byteCount(BLOCK_BYTES), NO);
      }
      expect(volume.core.head).toBe(40_000);
      expect(volume.core.counters.rounds).toBeGreaterThan(0);
    });
  });
});

describe('a sector of the log that can not be read', () => {
  test('costs its block alone: settling goes on, and the block says EIO', async () => {
    // The round failed as a whole, again and again, until the log was full.
    const bench = await Bench.create(3);
    await bench.use(async (volume) => {
      for (let i = 0; i < 8; i++) await put(volume, i, blocksOf(i));
    });
    const failed = await bench.use(async (volume) => {
      // The ring is new: what was written before comes from the device.
      const first = slotOffset(bench.sim.geometry, slot(0));
      const mend = bench.sim.log.failRead({ offset: first + 7 * BLOCK_BYTES, length: 512 });
      await pushRounds(volume, 1);
      mend();
      expect(volume.core.settled).toBeGreaterThan(8);
      const codes = await unreadable(volume.live(), 0, 40);
      expect([...codes.values()]).toEqual(['BLOCK_CORRUPT EIO']);
      await pushRounds(volume, 3);
      return codes;
    });
    await bench.use(async (volume) => {
      // Lost is lost; the others are what they were, and a new write mends it.
      expect(await unreadable(volume.live(), 0, 40)).toEqual(failed);
      const [lost = -1] = failed.keys();
      for (let i = 0; i < 8; i++) {
        if (i !== lost) expect(await holds(volume.live(), i, [blocksOf(i)])).toBe(0);
      }
      await put(volume, lost, blocksOf(77));
      expect(await holds(volume.live(), lost, [blocksOf(77)])).toBe(0);
    });
  });
});

describe('a record of the catalogue that is not durable yet', () => {
  test('keeps its segment, because no checkpoint holds it', async () => {
    // The tail went past it, and a snapshot that was answered a moment later was lost by a crash.
    const bench = await Bench.create(4, { slots: 16 });
    await bench.use(async (volume) => {
      const { segments, superblock } = volume.core.log;
      for (let i = 0; segments.live.length < 6; i++) await put(volume, i % 90, blocksOf(i), true);
      const kept = segments.live[2];
      expect(superblock.tailSequence).toBe(1);
      const position = lsn((kept?.firstLsn ?? 0) + BLOCK_BYTES);
      volume.core.pendingRecords.add(position);
      for (let i = 0; segments.freeSlots > 4; i++) await put(volume, i % 90, blocksOf(i), true);
      await put(volume, 0, blocksOf(1), true);
      await bench.world.sleep(100_000);
      expect(volume.core.counters.rounds).toBeGreaterThan(0);
      expect(segments.oldest).toBe(kept);
      expect(volume.core.log.superblock.tailSequence).toBe(kept?.sequence);
      volume.core.pendingRecords.delete(position);
      for (let i = 0; segments.oldest === kept && i < 500; i++) {
        await put(volume, i % 90, blocksOf(i), true);
      }
      expect(segments.oldest).not.toBe(kept);
    });
  });
});
