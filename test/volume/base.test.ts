/** Stories of volumes that are based on another disk. */
import { describe, expect, test } from 'vitest';
import { VarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount, byteOffset } from '../../src/base/units.ts';
import { UnreadableError } from '../../src/base/unreadable.ts';
import { copyBase } from '../../src/volume/flatten.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { Bench, blocksOf, get, put, pushRounds, unreadable } from '../crash/bench.ts';
import { MemoryBase } from '../support/memory-base.ts';

const PAGE_BLOCKS = 248;
const SIZE = byteCount(3 * PAGE_BLOCKS * BLOCK_BYTES);
const quiet = (): void => undefined;

function bytesOf(offset: number, count: number): [ReturnType<typeof byteOffset>, typeof SIZE] {
  return [byteOffset(offset * BLOCK_BYTES), byteCount(count * BLOCK_BYTES)];
}

/** All of it data but for the last block of the volume, which lies behind its end. */
function wholeBase(): MemoryBase {
  const count = SIZE / BLOCK_BYTES - 1;
  return new MemoryBase(blocksOf(3, count));
}

async function isBase(volume: Volume, base: MemoryBase, block: number): Promise<boolean> {
  const expected = base.bytes.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
  return Buffer.compare(await get(volume.live(), block), expected) === 0;
}

describe('a base', () => {
  test('is merged with a part of a block, and zeros behind its end', async () => {
    const base = wholeBase();
    const bench = await Bench.create(1, { size: SIZE, base });
    await bench.use(async (volume) => {
      const part = new Uint8Array(1000).fill(9);
      await volume.live().write(byteOffset(5 * BLOCK_BYTES + 100), part, { fua: false });
      const expected = base.bytes.slice(5 * BLOCK_BYTES, 6 * BLOCK_BYTES);
      expected.set(part, 100);
      expect(Buffer.compare(await get(volume.live(), 5), expected)).toBe(0);
      const last = SIZE / BLOCK_BYTES - 1;
      expect(Buffer.compare(await get(volume.live(), last), new Uint8Array(BLOCK_BYTES))).toBe(0);
    });
  });

  test('does not show through what was trimmed, when whole pages of sums are', async () => {
    const base = wholeBase();
    const bench = await Bench.create(2, { size: SIZE, base });
    const zeros = new Uint8Array(BLOCK_BYTES);
    await bench.use(async (volume) => {
      await volume.live().trim(...bytesOf(0, 2 * PAGE_BLOCKS), { fua: true });
      await pushRounds(volume, 2, 2 * PAGE_BLOCKS);
      expect(volume.core.settled).toBeGreaterThan(1);
    });
    await bench.use(async (volume) => {
      for (const block of [0, 100, PAGE_BLOCKS, 2 * PAGE_BLOCKS - 1]) {
        expect(Buffer.compare(await get(volume.live(), block), zeros)).toBe(0);
      }
      expect(await isBase(volume, base, 2 * PAGE_BLOCKS + 100)).toBe(true);
    });
  });

  test('that can not be read names its blocks, and their neighbours are read', async () => {
    const base = wholeBase();
    const bad = 7 * BLOCK_BYTES;
    base.beforeRead = (offset, length) => {
      if (offset > bad || offset + length <= bad) return Promise.resolve();
      return Promise.reject(new VarveError('DEVICE_IO', 'a bad place'));
    };
    const bench = await Bench.create(3, { size: SIZE, base });
    await bench.use(async (volume) => {
      expect([...(await unreadable(volume.live(), 4, 8))]).toEqual([[7, 'DEVICE_IO EIO']]);
      const error: unknown = await get(volume.live(), 4, 8).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(UnreadableError);
      expect(error).toMatchObject({ ranges: [{ offset: bad, length: BLOCK_BYTES }] });
      await put(volume, 7, blocksOf(1));
      expect((await unreadable(volume.live(), 4, 8)).size).toBe(0);
    });
  });

  test('lost for a snapshot that needs it is an error there, and rounds go on', async () => {
    const base = wholeBase();
    const bad = 7 * BLOCK_BYTES;
    base.beforeRead = (offset, length) => {
      if (offset > bad || offset + length <= bad) return Promise.resolve();
      return Promise.reject(new VarveError('DEVICE_IO', 'a bad place'));
    };
    const bench = await Bench.create(4, { size: SIZE, base });
    await bench.use(async (volume) => {
      await volume.createSnapshot('first');
      await put(volume, 7, blocksOf(1));
      await put(volume, 8, blocksOf(2));
      await pushRounds(volume, 2);
      const moment = volume.openMoment(await volume.resolve('first'));
      expect([...(await unreadable(moment, 6, 4)).keys()]).toEqual([7]);
      const expected = base.bytes.subarray(8 * BLOCK_BYTES, 9 * BLOCK_BYTES);
      expect(Buffer.compare(await get(moment, 8), expected)).toBe(0);
      await moment.close();
    });
  });
});

describe('a flatten', () => {
  test('takes nothing from the base afterwards, and leaves every moment', async () => {
    const base = wholeBase();
    const first = base.bytes.slice();
    const bench = await Bench.create(5, { size: SIZE, base });
    await bench.use(async (volume) => {
      await volume.createSnapshot('first');
      await put(volume, 3, blocksOf(1));
      bench.sim.baseState = 'copying';
      const copied = await volume.flatten(async () => {
        bench.sim.baseState = 'copied';
      }, quiet);
      // The written block too: nothing has settled it.
      expect(copied).toBe(SIZE / BLOCK_BYTES - 1);
      base.bytes.fill(0xee);
      expect(Buffer.compare(await get(volume.live(), 3), blocksOf(1))).toBe(0);
      await pushRounds(volume, 2);
    });
    await bench.use(async (volume) => {
      expect(volume.core.final.hasBase).toBe(false);
      const moment = volume.openMoment(await volume.resolve('first'));
      const got = await get(moment, 0, SIZE / BLOCK_BYTES - 1);
      expect(Buffer.compare(got, first)).toBe(0);
      await moment.close();
      expect((await volume.check(quiet)).problems).toEqual([]);
    });
  });

  test('of a volume whose log tells of everything is not scrubbed away', async () => {
    const base = wholeBase();
    const first = base.bytes.slice();
    const bench = await Bench.create(6, { size: SIZE, base });
    await bench.use(async (volume) => {
      await copyBase(volume.core, quiet);
      await volume.core.final.dropBase();
    });
    bench.sim.baseState = 'copied';
    // A sector of sums rots: the log proves that nothing was ever written there.
    await bench.world.run(() =>
      bench.sim.sums.write(byteOffset(512), [new Uint8Array(512).fill(1)]),
    );
    await bench.world.run(() => bench.sim.sums.sync('sums'));
    await bench.use(async (volume) => {
      await volume.scrub({ bytesPerSecond: 0, progress: quiet });
      const lost = await unreadable(volume.live(), 0, 62);
      expect([...lost.keys()]).toEqual(Array.from({ length: 31 }, (_, i) => 31 + i));
      expect(
        Buffer.compare(await get(volume.live(), 62), first.subarray(62 * 4096, 63 * 4096)),
      ).toBe(0);
    });
  });

  test('finds newer data under a sum that was never written, and reads no base there', async () => {
    const base = wholeBase();
    const bench = await Bench.create(7, { size: SIZE, base });
    bench.sim.baseState = 'copying';
    const home = bench.sim.final;
    const copy = base.bytes.slice(0, BLOCK_BYTES);
    await bench.world.run(async () => {
      // A half of a copy, and what was written when the sum's write was lost.
      await home.write(byteOffset(0), [copy.fill(0, 2048)]);
      await home.write(byteOffset(BLOCK_BYTES), [blocksOf(99)]);
      await home.sync('final');
    });
    await bench.use(async (volume) => {
      expect(await isBase(volume, base, 0)).toBe(true);
      expect([...(await unreadable(volume.live(), 0, 3)).keys()]).toEqual([1]);
    });
  });
});
