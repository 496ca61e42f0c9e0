/**
 * Law 6 where the file system below final storage is full: writers wait while Varve frees space by
 * itself, then they are refused before anything of theirs is accepted; reads and moments go on, and
 * service resumes by itself.
 */
import { describe, expect, test } from 'vitest';
import { isVarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount, byteOffset, mebibytes } from '../../src/base/units.ts';
import type { SyncPoint } from '../../src/device/lower-device.ts';
import { FAILURES_MAX, RETRY_MS } from '../../src/volume/destager.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { Bench, blocksOf, get, holds, put } from './bench.ts';

const BLOCKS = 90;
/** Nobody waits longer than it takes to learn that only an operator can help. */
const WAIT_MS_MAX = RETRY_MS * FAILURES_MAX + 500;

/** What the volume accepted, by block; and how many requests those were. */
class Accepted {
  readonly newest = new Map<number, Uint8Array>();
  count = 0;

  async put(volume: Volume, block: number): Promise<void> {
    const content = blocksOf(this.count + 1);
    await put(volume, block, content);
    this.count += 1;
    this.newest.set(block, content);
  }

  async expectAll(volume: Volume): Promise<void> {
    expect(volume.core.head).toBe(this.count);
    for (const [block, content] of this.newest) {
      expect(await holds(volume.live(), block, [content])).toBe(0);
    }
  }
}

/** Writes until the volume says no. @returns how long the last one waited */
async function fill(bench: Bench, volume: Volume, accepted: Accepted): Promise<number> {
  for (let i = 0; i < 5000; i++) {
    const beganUs = bench.world.clock.monotonicUs();
    try {
      await accepted.put(volume, (i * 7) % BLOCKS);
    } catch (error) {
      expect(isVarveError(error) && `${error.code} ${error.errno}`).toBe('DISK_FULL ENOSPC');
      return (bench.world.clock.monotonicUs() - beganUs) / 1000;
    }
  }
  throw new Error('nothing was refused');
}

async function msOf(bench: Bench, work: () => Promise<unknown>): Promise<number> {
  const beganUs = bench.world.clock.monotonicUs();
  await work();
  return (bench.world.clock.monotonicUs() - beganUs) / 1000;
}

describe('a full file system below final storage', () => {
  test('refuses writes in bounded time, then at once; all else goes on', async () => {
    const bench = await Bench.create(1);
    await bench.use(async (volume) => {
      const accepted = new Accepted();
      bench.sim.final.setFull(true);
      expect(await fill(bench, volume, accepted)).toBeLessThan(WAIT_MS_MAX);
      const { head } = volume.core;
      // A round that stood still in the middle was made anew, whole, once a second; and meanwhile
      // whoever came waited for it.
      for (let i = 0; i < 30; i++) {
        const refused = put(volume, 1, blocksOf(1)).catch((error: unknown) => error);
        const tookMs = await msOf(bench, () => refused);
        expect(await refused).toMatchObject({ code: 'DISK_FULL' });
        expect(tookMs).toBeLessThan(1);
        await bench.world.sleep(100_000);
      }
      expect(volume.core.head).toBe(head);
      expect((await volume.info()).failure).toContain('ENOSPC');
      await accepted.expectAll(volume);
      const { horizon } = volume.core;
      const moment = volume.openMoment(await volume.resolve(`gen=${horizon.generation}`));
      expect((await get(moment, 0, BLOCKS)).length).toBe(BLOCKS * BLOCK_BYTES);
      await moment.close();
      await volume.live().flush();
    });
  });

  test('goes on by itself when space is freed, and has lost nothing', async () => {
    const bench = await Bench.create(2);
    const accepted = new Accepted();
    await bench.use(async (volume) => {
      bench.sim.final.setFull(true);
      await fill(bench, volume, accepted);
      await bench.world.sleep(20_000_000);
      bench.sim.final.setFull(false);
      await bench.world.sleep(RETRY_MS * 1000 + 200_000);
      for (let i = 0; i < 500; i++) await accepted.put(volume, (i * 11) % BLOCKS);
      expect(volume.core.counters.rounds).toBeGreaterThan(1);
      expect((await volume.info()).failure).toBeUndefined();
      await accepted.expectAll(volume);
      volume.core.check();
    });
    await bench.use((volume) => accepted.expectAll(volume));
  });

  test('who waits when space is freed in time is not refused', async () => {
    const bench = await Bench.create(3);
    await bench.use(async (volume) => {
      bench.sim.final.setFull(true);
      const accepted = new Accepted();
      let isOver = false;
      const freeing = (async (): Promise<void> => {
        while ((await volume.info()).failure === undefined) await bench.world.sleep(1000);
        await bench.world.sleep(RETRY_MS * 500);
        bench.sim.final.setFull(false);
        isOver = true;
      })();
      for (let i = 0; !isOver || i < 1000; i++) await accepted.put(volume, (i * 7) % BLOCKS);
      await freeing;
      await accepted.expectAll(volume);
    });
  });

  test('can be closed and opened while it is full', async () => {
    const bench = await Bench.create(4);
    const accepted = new Accepted();
    await bench.use(async (volume) => {
      bench.sim.final.setFull(true);
      await fill(bench, volume, accepted);
      expect(await msOf(bench, () => volume.close())).toBeLessThan(RETRY_MS);
    });
    await bench.lose('kill', async (volume) => {
      await accepted.expectAll(volume);
      expect(await fill(bench, volume, accepted)).toBeLessThan(WAIT_MS_MAX);
    });
    bench.sim.final.setFull(false);
    await bench.use(async (volume) => {
      for (let i = 0; i < 500; i++) await accepted.put(volume, (i * 11) % BLOCKS);
      await accepted.expectAll(volume);
    });
  });

  test('is tried again by a step of the round, while nobody waits for it', async () => {
    // The round was made again from its beginning, once a second, and who came waited for that.
    const size = mebibytes(24);
    const bench = await Bench.create(8, { size, slots: 600, ringBytes: mebibytes(1) });
    await bench.use(async (volume) => {
      bench.sim.final.limitSpace(mebibytes(12));
      const random = bench.world.fork('blocks');
      const write = (): Promise<void> => put(volume, random.below(size / BLOCK_BYTES), blocksOf(1));
      const refused = async (): Promise<unknown> => write().then(() => undefined, String);
      while ((await refused()) === undefined);
      const before = bench.sim.final.counters.writes;
      for (let i = 0; i < 100; i++) {
        expect(await msOf(bench, refused)).toBeLessThan(1);
        await bench.world.sleep(RETRY_MS * 100);
      }
      const writes = bench.sim.final.counters.writes - before;
      expect(writes).toBeGreaterThan(10);
      expect(writes).toBeLessThan(11 * 1024);
      bench.sim.final.setFull(false);
      await bench.world.sleep(3 * RETRY_MS * 1000);
      await write();
    });
  });

  test('moves on as far as a little space goes, and waits again', async () => {
    const bench = await Bench.create(5, { slots: 24 });
    await bench.use(async (volume) => {
      const accepted = new Accepted();
      bench.sim.final.setFull(true);
      await fill(bench, volume, accepted);
      for (let blocks = 10; blocks < BLOCKS; blocks += 10) {
        bench.sim.final.limitSpace(blocks * BLOCK_BYTES);
        await bench.world.sleep(2 * RETRY_MS * 1000);
        await accepted.expectAll(volume);
      }
      bench.sim.final.setFull(false);
      await bench.world.sleep(2 * RETRY_MS * 1000);
      await accepted.put(volume, 5);
      await accepted.expectAll(volume);
    });
  });

  test('a trim of the window needs no space there', async () => {
    const bench = await Bench.create(6);
    await bench.use(async (volume) => {
      const accepted = new Accepted();
      for (let i = 0; i < 20; i++) await accepted.put(volume, i);
      bench.sim.final.setFull(true);
      await volume.live().trim(byteOffset(0), byteCount(BLOCKS * BLOCK_BYTES), { fua: false });
      for (let i = 0; i < 3000; i++) {
        const from = byteOffset((i % BLOCKS) * BLOCK_BYTES);
        await volume.live().trim(from, byteCount(BLOCK_BYTES), { fua: i % 16 === 0 });
      }
      expect(volume.core.counters.rounds).toBeGreaterThan(0);
    });
  });

  test('a sync that reports it has the whole round made again', async () => {
    // Thin volumes tell of missing space no sooner; and then what was written is not believed.
    for (const point of ['final', 'sums'] satisfies SyncPoint[]) {
      const bench = await Bench.create(7);
      const accepted = new Accepted();
      await bench.use(async (volume) => {
        for (let i = 0; i < 5; i++) bench.sim[point].failNextSync({ dropDirty: true, point });
        for (let i = 0; i < 1500; i++) {
          await accepted.put(volume, (i * 7) % BLOCKS).catch((error: unknown) => {
            expect(isVarveError(error)).toBe(true);
          });
          await bench.world.sleep(10_000);
        }
        expect(volume.core.counters.rounds).toBeGreaterThan(0);
        await accepted.expectAll(volume);
      });
      await bench.use((volume) => accepted.expectAll(volume));
    }
  });
});
