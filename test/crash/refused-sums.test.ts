/** Pages of checksums that the device refuses to read: what they said is lost, and writing goes on. */
import { expect, test } from 'vitest';
import { BLOCK_BYTES, byteCount, byteOffset } from '../../src/base/units.ts';
import { SUMS_SECTOR_BYTES } from '../../src/format/layouts.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { Bench, blocksOf, get, pushRounds, put, unreadable } from './bench.ts';

const PAGE_BLOCKS = 248;
const PAGES = 100;
const SIZE = byteCount(PAGES * PAGE_BLOCKS * BLOCK_BYTES);
/** What is refused: none of those that an opening looks at. */
const PAGE = 13;
const FIRST = PAGE * PAGE_BLOCKS;
const LATER = 30 * PAGE_BLOCKS;

/** Blocks of the page at home, and nothing of it in the log or in memory. */
async function settled(): Promise<Bench> {
  const bench = await Bench.create(1, { size: SIZE });
  await bench.use(async (volume) => {
    for (let i = 0; i < 8; i++) await put(volume, FIRST + i, blocksOf(i + 1), true);
    await pushRounds(volume, 3, LATER);
  });
  return bench;
}

/** A latent bad sector, until it is written. */
function refusePage({ sim }: Bench): () => void {
  return sim.sums.failRead({ offset: PAGE * BLOCK_BYTES, length: SUMS_SECTOR_BYTES });
}

async function expectBlock(volume: Volume, block: number, expected: Uint8Array): Promise<void> {
  expect(Buffer.compare(await get(volume.live(), block), expected), `block ${block}`).toBe(0);
}

// The round made its horizon durable, could not read the page, and was made again each second for ever:
// from the third time on every writer had EIO, after a restart too, and no scrub helped.
test.each(['alone', 'beside a snapshot'])('a page that is refused is given up, %s', async (how) => {
  const bench = await settled();
  const mend = refusePage(bench);
  await bench.use(async (volume) => {
    if (how !== 'alone') await volume.createSnapshot('before');
    await put(volume, FIRST + 3, blocksOf(500), true);
    await put(volume, FIRST + 4, blocksOf(501), true);
    await pushRounds(volume, 3, LATER);
    expect((await volume.info()).failure).toBeUndefined();
    await expectBlock(volume, FIRST + 3, blocksOf(500));
  });
  mend();
  await bench.use(async (volume) => {
    await expectBlock(volume, FIRST + 4, blocksOf(501));
    const failed = await unreadable(volume.live(), FIRST, PAGE_BLOCKS);
    expect(failed.size).toBe(PAGE_BLOCKS - 2);
    expect(new Set(failed.values())).toEqual(new Set(['BLOCK_CORRUPT EIO']));
    expect((await unreadable(volume.live(), FIRST - 20, 20)).size).toBe(0);
    if (how !== 'alone') {
      const moment = volume.openMoment(await volume.resolve('before'));
      expect((await unreadable(moment, FIRST, 8)).size).toBe(8);
      await moment.close();
    }
  });
});

// Where older moments are kept, a trim of whole pages looks which of them are blank.
test('a trim over a page that is refused leaves zeros there', async () => {
  const bench = await settled();
  const mend = refusePage(bench);
  await bench.use(async (volume) => {
    await volume.createSnapshot('before');
    const [from, length] = [FIRST - PAGE_BLOCKS, 3 * PAGE_BLOCKS];
    const range = [byteOffset(from * BLOCK_BYTES), byteCount(length * BLOCK_BYTES)] as const;
    await volume.live().trim(...range, { fua: true });
    await pushRounds(volume, 3, LATER);
    expect((await volume.info()).failure).toBeUndefined();
  });
  mend();
  await bench.use(async (volume) => {
    expect((await unreadable(volume.live(), FIRST - PAGE_BLOCKS, 3 * PAGE_BLOCKS)).size).toBe(0);
    await expectBlock(volume, FIRST + 3, new Uint8Array(BLOCK_BYTES));
    const moment = volume.openMoment(await volume.resolve('before'));
    expect((await unreadable(moment, FIRST, 8)).size).toBe(8);
    await moment.close();
  });
});

test('a device that is away for a while loses nothing', async () => {
  const bench = await settled();
  await bench.use(async (volume) => {
    const mend = bench.sim.sums.failRead({ offset: 0, length: bench.sim.sums.size });
    await put(volume, FIRST + 3, blocksOf(500), true);
    const told = pushRounds(volume, 5, LATER).catch((error: unknown) => error);
    expect(await told).toMatchObject({ code: 'DEVICE_IO' });
    await bench.world.sleep(20_000_000);
    expect((await volume.info()).failure).toBeDefined();
    mend();
    await bench.world.sleep(5_000_000);
    await pushRounds(volume, 3, LATER);
    await expectBlock(volume, FIRST + 3, blocksOf(500));
    await expectBlock(volume, FIRST + 4, blocksOf(5));
    expect((await unreadable(volume.live(), FIRST, PAGE_BLOCKS)).size).toBe(0);
  });
});
