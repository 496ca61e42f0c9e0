/** A flatten that fails or is ended, and is asked for again: what lets the base go is durable. */
import { describe, expect, test } from 'vitest';
import { VarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount } from '../../src/base/units.ts';
import { SUMS_ENTRIES, SUMS_SECTOR_BYTES } from '../../src/format/layouts.ts';
import { copyBase } from '../../src/volume/flatten.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { MemoryBase } from '../support/memory-base.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { runFlattenLives } from './flatten-lives.ts';
import { Bench, blocksOf, get, pushRounds, put, unreadable } from './bench.ts';

const BLOCKS = 300;
const SIZE = byteCount(BLOCKS * BLOCK_BYTES);
const quiet = (): void => undefined;

/** As an operator does it. */
async function flatten({ sim }: Bench, volume: Volume): Promise<void> {
  sim.baseState = 'copying';
  const dropped = async (): Promise<void> => {
    sim.baseState = 'copied';
  };
  await volume.flatten(dropped, quiet);
}

async function expectAll(volume: Volume, expected: Uint8Array): Promise<void> {
  expect([...(await unreadable(volume.live(), 0, BLOCKS))]).toEqual([]);
  expect(Buffer.compare(await get(volume.live(), 0, BLOCKS), expected)).toBe(0);
}

describe('a flatten that is asked for again', () => {
  // The page cache forgot the sums, and went on to show them: nothing was left to copy, so nothing was
  // synced, and the base was let go. After a power cut the volume was foreign to its own log.
  test.each([
    { point: 'sums', evict: false },
    { point: 'sums', evict: true },
    { point: 'final', evict: false },
    { point: 'final', evict: true },
  ] as const)('after a failed sync ($point, evict $evict)', async ({ point, evict }) => {
    const base = new MemoryBase(blocksOf(3, BLOCKS));
    const bench = await Bench.create(1, { size: SIZE, base });
    await bench.lose('cut', async (volume) => {
      const disk = point === 'sums' ? bench.sim.sums : bench.sim.final;
      disk.failNextSync({ dropDirty: true, evict, point });
      await expect(flatten(bench, volume)).rejects.toMatchObject({ code: 'DEVICE_IO' });
      await flatten(bench, volume);
    });
    await bench.use((volume) => expectAll(volume, base.bytes));
  });

  // The same without a fault: the process was killed between the write of the sums and their sync.
  test.each([1, 2, 3, 4])('after a kill before sums were synced, seed %i', async (seed) => {
    const base = new MemoryBase(blocksOf(3, BLOCKS));
    const bench = await Bench.create(seed, { size: SIZE, base });
    const { counters } = bench.sim.sums;
    await bench.untilLost('kill', async (volume) => {
      const before = counters.syncsBy.get('sums') ?? 0;
      const done = flatten(bench, volume);
      while ((counters.syncsBy.get('sums') ?? 0) === before) await bench.world.sleep(1);
      bench.power.kill();
      await done;
    });
    expect(bench.sim.baseState).toBe('copying');
    await bench.lose('cut', (volume) => flatten(bench, volume));
    await bench.use((volume) => expectAll(volume, base.bytes));
  });

  // A cut had torn the first write of a page of sums. Nothing more was to be copied there, so the page
  // was never written again; without a base its blank sectors are damage.
  test('after a cut that tore a page of sums', async () => {
    const bytes = new Uint8Array(SIZE);
    bytes.set(blocksOf(3, 2));
    const base = new MemoryBase(bytes);
    const bench = await Bench.create(1, { size: SIZE, base });
    await bench.use((volume) => flatten(bench, volume));
    bench.sim.baseState = 'copying';
    const torn = new Uint8Array(BLOCK_BYTES - SUMS_SECTOR_BYTES);
    bench.sim.sums.corrupt(SUMS_SECTOR_BYTES, torn);
    await bench.use((volume) => flatten(bench, volume));
    await bench.use((volume) => expectAll(volume, bytes));
  });
});

// It passed over them, told of success and let the base go, which was all that had their content.
test('a flatten refuses blocks whose sums are damaged, and goes on after a scrub', async () => {
  const base = new MemoryBase(blocksOf(3, BLOCKS));
  const bench = await Bench.create(1, { size: SIZE, base });
  await bench.use(async (volume) => {
    await put(volume, 2, blocksOf(1), true);
    await pushRounds(volume, 2, 260, 40);
    expect(volume.core.settled).toBeGreaterThan(0);
  });
  bench.sim.sums.corrupt(SUMS_SECTOR_BYTES, new Uint8Array(SUMS_SECTOR_BYTES).fill(1));
  await bench.use(async (volume) => {
    const detail: unknown = expect.stringContaining('31 blocks are damaged, first block 31');
    const next: unknown = expect.stringContaining('varve scrub');
    await expect(flatten(bench, volume)).rejects.toMatchObject({
      code: 'BLOCK_CORRUPT',
      detail,
      next,
    });
    expect(bench.sim.baseState).toBe('copying');
    const { left } = await volume.scrub({ bytesPerSecond: 0, progress: quiet });
    expect(left).toBeGreaterThanOrEqual(SUMS_ENTRIES);
    await flatten(bench, volume);
    expect((await unreadable(volume.live(), 0, BLOCKS)).size).toBe(SUMS_ENTRIES);
  });
});

/** What went home over a base: blocks 2 and 3 were flushed, and the log has nothing of them any more. */
async function writtenOver(volume: Volume): Promise<void> {
  await put(volume, 2, blocksOf(1), true);
  await put(volume, 3, blocksOf(2), true);
  await pushRounds(volume, 8, 260, 40);
}

/** The base stays, and what can't be copied is an error; all else is at home by now. */
async function expectRefused(bench: Bench, volume: Volume, base: MemoryBase): Promise<void> {
  await expect(flatten(bench, volume)).rejects.toMatchObject({
    code: 'BLOCK_CORRUPT',
    detail: expect.stringMatching(
      /^2 blocks are damaged, first block 2 .*; all: 2 to 3$/,
    ) as unknown,
    next: expect.stringContaining('varve scrub') as unknown,
  });
  expect(bench.sim.baseState).toBe('copying');
  expect([...(await unreadable(volume.live(), 0, 248)).keys()]).toEqual([2, 3]);
  for (const block of [0, 1, 4, 200]) {
    const home = new Uint8Array(BLOCK_BYTES);
    bench.sim.final.platter.read(block * BLOCK_BYTES, home);
    const [from, to] = [block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES];
    expect(Buffer.compare(home, base.bytes.subarray(from, to)), `block ${block}`).toBe(0);
  }
  const { damages } = await volume.scrub({ bytesPerSecond: 0, progress: quiet });
  expect(damages.map(({ block }) => block)).toEqual([2, 3]);
}

/** Who writes them again has all of it, without the base. */
async function expectFlattened(bench: Bench, volume: Volume, base: MemoryBase): Promise<void> {
  await put(volume, 2, blocksOf(5, 2), true);
  await pushRounds(volume, 8, 260, 40);
  await flatten(bench, volume);
  expect(bench.sim.baseState).toBe('copied');
  base.bytes.fill(0xee);
  expect((await unreadable(volume.live(), 0, BLOCKS)).size).toBe(0);
  expect(Buffer.compare(await get(volume.live(), 2, 2), blocksOf(5, 2))).toBe(0);
  expect(Buffer.compare(await get(volume.live(), 0, 2), blocksOf(3, 2))).toBe(0);
}

describe('a flatten of what only seems never written', () => {
  // It believed the sums, and wrote the base over what clients had flushed: an error became older data.
  test('after the write of a page of sums was lost', async () => {
    const base = new MemoryBase(blocksOf(3, BLOCKS));
    const bench = await Bench.create(1, { size: SIZE, base });
    await bench.use(writtenOver);
    bench.sim.sums.corrupt(0, new Uint8Array(BLOCK_BYTES));
    await bench.use(async (volume) => {
      expect([...(await unreadable(volume.live(), 0, 248)).keys()]).toEqual([2, 3]);
      await expectRefused(bench, volume, base);
      await expectFlattened(bench, volume, base);
    });
  });

  // The same, where a flatten that a cut ended had written the page first: a blank sector of such a page
  // may be a torn one.
  test('after a sector of a page that a copy wrote became zeros', async () => {
    const base = new MemoryBase(blocksOf(3, BLOCKS));
    const bench = await Bench.create(1, { size: SIZE, base });
    bench.sim.baseState = 'copying';
    await bench.lose('cut', async (volume) => {
      const stop = (done: number): void => {
        if (done > 0) throw new VarveError('CLOSED', 'stopped');
      };
      await expect(copyBase(volume.core, stop, 248)).rejects.toMatchObject({ code: 'CLOSED' });
    });
    await bench.use(writtenOver);
    bench.sim.sums.corrupt(0, new Uint8Array(SUMS_SECTOR_BYTES));
    await bench.use(async (volume) => {
      expect([...(await unreadable(volume.live(), 0, 248)).keys()]).toEqual([2, 3]);
      await expectRefused(bench, volume, base);
      await expectFlattened(bench, volume, base);
    });
  });

  // Home has what the round wrote, and its sum comes with the next attempt: no damage.
  test('while a round that failed is to be made again', async () => {
    const base = new MemoryBase(blocksOf(3, BLOCKS));
    const bench = await Bench.create(1, { size: SIZE, base });
    await bench.use(async (volume) => {
      await put(volume, 2, blocksOf(1), true);
      const mend = bench.sim.sums.failWrite({ offset: 0, length: BLOCK_BYTES });
      for (let i = 0; volume.core.settled === volume.core.horizon.generation; i++) {
        await put(volume, 260 + (i % 40), blocksOf(1000 + i));
        await bench.world.sleep(10);
      }
      while ((await volume.info()).failure === undefined) await bench.world.sleep(1);
      mend();
      await flatten(bench, volume);
      expect(volume.core.settled).toBeLessThan(volume.core.horizon.generation);
      base.bytes.fill(0xee);
      await pushRounds(volume, 2, 260, 40);
      expect((await unreadable(volume.live(), 0, BLOCKS)).size).toBe(0);
      expect(Buffer.compare(await get(volume.live(), 2), blocksOf(1))).toBe(0);
    });
  });
});

// The origin's page of sums had lost its write, and said "never written" of data: whoever read that
// got EIO, from the origin and from its clone. A flatten believed it, and the clone had zeros for good.
test('a flatten of a clone reads what its origin calls a hole', async () => {
  const bench = await Bench.create(1, { size: SIZE });
  const { label, generation, lineage } = await bench.use(async (volume) => {
    await put(volume, 2, blocksOf(1), true);
    await pushRounds(volume, 2, 260, 40);
    return await volume.createSnapshot('golden');
  });
  bench.sim.sums.corrupt(0, new Uint8Array(BLOCK_BYTES));
  await bench.use(async (origin) => {
    const disk = origin.openOrigin({ snapshot: label, generation, lineage });
    const sim = new SimVolume(bench.power, { size: SIZE, base: disk });
    await sim.format(bench.power.life);
    const clone = await sim.open(bench.power.life);
    expect([...(await unreadable(clone.live(), 0, 4)).keys()]).toEqual([2]);
    const dropped = async (): Promise<void> => {
      sim.baseState = 'copied';
    };
    await expect(clone.flatten(dropped, quiet)).rejects.toMatchObject({ code: 'BLOCK_CORRUPT' });
    expect(sim.baseState).toBe('base');
    await put(clone, 2, blocksOf(9), true);
    await pushRounds(clone, 2, 260, 40);
    await clone.flatten(dropped, quiet);
    expect(sim.baseState).toBe('copied');
    expect((await unreadable(clone.live(), 0, BLOCKS)).size).toBe(0);
    await clone.close();
    await disk.close();
  });
});

test.each(Array.from({ length: 10 }, (_, i) => i + 1))('lives, seed %i', async (seed) => {
  await runFlattenLives({ seed });
});

describe('a flatten that could not copy all', () => {
  // The copy wrote the page of sums beside the damaged sector, and gave that up: what the first one had
  // refused was lost to the second, which let the base go.
  test('leaves what it names as it is, and refuses it again', async () => {
    const base = new MemoryBase(blocksOf(3, BLOCKS));
    const bench = await Bench.create(1, { size: SIZE, base });
    const { sums } = bench.sim;
    await bench.use(async (volume) => {
      await put(volume, 2, blocksOf(1), true);
      await pushRounds(volume, 2, 260, 40);
    });
    sums.corrupt(SUMS_SECTOR_BYTES, new Uint8Array(SUMS_SECTOR_BYTES).fill(1));
    await bench.use(async (volume) => {
      for (let again = 0; again < 2; again++) {
        await expect(flatten(bench, volume)).rejects.toThrow(`${SUMS_ENTRIES} blocks are damaged`);
        expect(bench.sim.baseState).toBe('copying');
        const bad = await unreadable(volume.live(), 0, BLOCKS);
        expect(bad.size).toBe(SUMS_ENTRIES);
      }
    });
  });
});
