/** Final storage and its sidecar: stale pages, lost blocks, rot, and images that do not belong. */
import { describe, expect, test } from 'vitest';
import { newUuid } from '../../src/base/identity.ts';
import {
  block,
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  checksum,
  generation,
  kibibytes,
  mebibytes,
  slot,
} from '../../src/base/units.ts';
import type { LowerDevice } from '../../src/device/lower-device.ts';
import {
  LOST_TEXT,
  SUM_DATA,
  SUM_NEVER,
  SUM_ZERO,
  SUMS_SECTOR_BYTES,
} from '../../src/format/layouts.ts';
import type { Sum } from '../../src/format/sums.ts';
import { FinalStorage } from '../../src/volume/final-storage.ts';
import { slotOffset } from '../../log/geometry.ts';
import { Bench, blocksOf, holds, put, unreadable, pushRounds } from '../crash/bench.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import { SimDisk } from '../sim/sim-disk.ts';
import { SimWorld } from '../sim/sim-world.ts';

const DATA: Sum = { kind: SUM_DATA, generation: generation(1), checksum: checksum(7) };
const ZERO: Sum = { kind: SUM_ZERO, generation: generation(2), checksum: checksum(0) };

describe('a page of the sidecar', () => {
  /** Reads what is there, and answers only when `answer` is called. */
  function slowReads(device: LowerDevice): { device: LowerDevice; answer: () => void } {
    let answer = (): void => undefined;
    const answered = new Promise<void>((resolve) => {
      answer = resolve;
    });
    const slow: LowerDevice = {
      name: device.name,
      size: device.size,
      read: async (offset, target) => {
        await device.read(offset, target);
        await answered;
      },
      write: (offset, sources) => device.write(offset, sources),
      punch: (offset, length) => device.punch(offset, length),
      sync: (point) => device.sync(point),
      allocated: () => device.allocated(),
      close: () => device.close(),
    };
    return { device: slow, answer };
  }

  test('that was read before a punch does not come back after it', async () => {
    // The slow read filled the cache with the old page, and the next change wrote it back to disk.
    const world = new SimWorld(1);
    const power = new PowerSupply(world);
    const size = 744;
    const final = SimDisk.create(power, { name: 'final', size: size * BLOCK_BYTES });
    const sums = SimDisk.create(power, { name: 'sums', size: kibibytes(16) });
    const volume = newUuid(world.random);
    const over = (device: LowerDevice): FinalStorage =>
      new FinalStorage({ final, sums: device, volume, blocks: size, cacheBytes: kibibytes(64) });
    await world.run(async () => {
      await over(sums).sidecar.write([{ block: block(300), sum: DATA }]);
      const { device, answer } = slowReads(sums);
      const storage = over(device);
      const early = storage.sidecar.sum(block(300));
      await world.sleep(1000);
      await storage.sidecar.fill(block(248), 248, ZERO);
      answer();
      expect((await early).kind).toBe(SUM_DATA);
      expect((await storage.sidecar.sum(block(300))).kind).toBe(SUM_NEVER);
      await storage.sidecar.write([{ block: block(400), sum: DATA }]);
      expect((await over(sums).sidecar.sum(block(300))).kind).toBe(SUM_NEVER);
      expect((await over(sums).sidecar.sum(block(400))).kind).toBe(SUM_DATA);
    });
  });
});

describe('one bad block is no foreign volume', () => {
  /** Blocks 0 to `count` - 1 are settled, and not in the log any more. */
  async function settled(seed: number, count: number): Promise<Bench> {
    const bench = await Bench.create(seed);
    await bench.use(async (volume) => {
      for (let i = 0; i < count; i++) await put(volume, i, blocksOf(i));
      await pushRounds(volume, 2);
    });
    return bench;
  }

  test('a block that was lost on its way from the log is EIO, and the volume opens', async () => {
    const bench = await Bench.create(1);
    await bench.use(async (volume) => {
      for (let i = 0; i < 8; i++) await put(volume, i, blocksOf(i));
    });
    const rotten = slotOffset(bench.sim.geometry, slot(0)) + 7 * BLOCK_BYTES;
    bench.sim.log.corruptBit(rotten + 9, 1);
    await bench.use((volume) => pushRounds(volume, 2));
    for (let opening = 0; opening < 2; opening++) {
      await bench.use(async (volume) => {
        const failed = await unreadable(volume.live(), 0, 40);
        expect([...failed.values()]).toEqual(['BLOCK_CORRUPT EIO']);
        expect([...failed.keys()][0]).toBeLessThan(8);
      });
    }
  });

  // Its payload had become zeros, so zeros went home; sums that were lost then said "never written".
  test('a lost block does not go home as zeros', async () => {
    const bench = await Bench.create(1);
    await bench.use(async (volume) => {
      for (let i = 0; i < 8; i++) await put(volume, i, blocksOf(i));
    });
    const { log, final, geometry } = bench.sim;
    log.corrupt(slotOffset(geometry, slot(0)) + 7 * BLOCK_BYTES, new Uint8Array(BLOCK_BYTES));
    await bench.use((volume) => pushRounds(volume, 2));
    await bench.use(async (volume) => {
      const lost = [...(await unreadable(volume.live(), 0, 8)).keys()];
      expect(lost).toHaveLength(1);
      const home = new Uint8Array(LOST_TEXT.length);
      final.platter.read((lost[0] ?? 0) * BLOCK_BYTES, home);
      expect(Buffer.from(home).toString()).toBe(LOST_TEXT);
    });
  });

  // Zeros said "never written", and one astray read of a block that gave zeros agreed with that.
  test('a sector of sums that became zeros is damage, not "never written"', async () => {
    const bench = await settled(6, 38);
    bench.sim.sums.corrupt(0, new Uint8Array(SUMS_SECTOR_BYTES));
    bench.sim.final.corrupt(5 * BLOCK_BYTES, new Uint8Array(BLOCK_BYTES));
    await bench.use(async (volume) => {
      const failed = await unreadable(volume.live(), 0, 40);
      expect([...failed.keys()]).toEqual(Array.from({ length: 31 }, (_, i) => i));
      // Nor does a round take it for that.
      await put(volume, 3, blocksOf(33));
      await pushRounds(volume, 3);
      expect((await unreadable(volume.live(), 0, 40)).size).toBe(30);
    });
  });

  test('a rotten bit in block 0 of the image is EIO for block 0', async () => {
    const bench = await settled(2, 8);
    bench.sim.final.corruptBit(100, 3);
    await bench.use(async (volume) => {
      expect(await unreadable(volume.live(), 0, 40)).toEqual(new Map([[0, 'BLOCK_CORRUPT EIO']]));
      for (let i = 1; i < 8; i++) expect(await holds(volume.live(), i, [blocksOf(i)])).toBe(0);
    });
  });

  test.each([
    ['and others are settled, too', 38],
    ['and nothing else is settled', 8],
  ])('a rotten sector 0 of the sidecar is EIO for its 31 blocks: %s', async (_, count) => {
    const bench = await settled(3, count);
    bench.sim.sums.corruptBit(200, 5);
    await bench.use(async (volume) => {
      const failed = await unreadable(volume.live(), 0, 40);
      expect([...failed.keys()]).toEqual(Array.from({ length: 31 }, (__, i) => i));
      expect(new Set(failed.values())).toEqual(new Set(['BLOCK_CORRUPT EIO']));
      // A new write mends its block, and a round on top of the damage changes nothing.
      await put(volume, 5, blocksOf(55));
      await pushRounds(volume, 3);
      expect((await unreadable(volume.live(), 0, 40)).size).toBe(30);
    });
    await bench.use(async (volume) => {
      expect(await holds(volume.live(), 5, [blocksOf(55)])).toBe(0);
      expect((await unreadable(volume.live(), 0, 40)).size).toBe(30);
    });
  });
});

describe('an image that does not belong to the log', () => {
  test('an older one with its own sidecar is refused, and nothing is written', async () => {
    // The pair fits itself; only what the last round wrote tells its age.
    for (const rounds of [1, 3]) {
      const bench = await Bench.create(4);
      await bench.use((volume) => pushRounds(volume, 3));
      const { final, sums, log } = bench.sim;
      const old = { final: new Uint8Array(final.size), sums: new Uint8Array(sums.size) };
      final.platter.read(0, old.final);
      sums.platter.read(0, old.sums);
      await bench.use((volume) => pushRounds(volume, rounds));
      final.corrupt(0, old.final);
      sums.corrupt(0, old.sums);
      const before = [log, final, sums].map(({ platter }) => platter.contentChecksum());
      expect((await bench.openError()).code).toBe('VOLUME_FOREIGN');
      const after = [log, final, sums].map(({ platter }) => platter.contentChecksum());
      expect(after).toEqual(before);
    }
  });

  test('an older pair is refused as well when the last round only trimmed', async () => {
    // Such a round wrote no block, and its checkpoint named no block to look at.
    const bench = await Bench.create(6, { size: mebibytes(8) });
    const { final, sums } = bench.sim;
    const old = { final: new Uint8Array(final.size), sums: new Uint8Array(sums.size) };
    await bench.use((volume) => pushRounds(volume, 2));
    final.platter.read(0, old.final);
    sums.platter.read(0, old.sums);
    await bench.use((volume) => pushRounds(volume, 2));
    await bench.use(async (volume) => {
      let before = { rounds: volume.core.counters.rounds, settledBlocks: 0 };
      for (let i = 0; ; i++) {
        const { rounds, settledBlocks } = volume.core.counters;
        if (rounds > before.rounds && settledBlocks === before.settledBlocks) break;
        if (rounds > before.rounds) before = { rounds, settledBlocks };
        const at = byteOffset((1000 + (i % 1000)) * BLOCK_BYTES);
        await volume.live().trim(at, byteCount(BLOCK_BYTES), { fua: false });
      }
    });
    final.corrupt(0, old.final);
    sums.corrupt(0, old.sums);
    expect((await bench.openError()).code).toBe('VOLUME_FOREIGN');
  });

  test('a blank pair under a log that has settled is refused', async () => {
    const bench = await Bench.create(5);
    await bench.use((volume) => pushRounds(volume, 3));
    bench.sim.final.corrupt(0, new Uint8Array(bench.sim.final.size));
    bench.sim.sums.corrupt(0, new Uint8Array(bench.sim.sums.size));
    expect((await bench.openError()).code).toBe('VOLUME_FOREIGN');
  });
});
