/** A close in order: it ends, whatever a device says, and keeps what was accepted. */
import { describe, expect, test } from 'vitest';
import { VarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount } from '../../src/base/units.ts';
import { Bench, blocksOf, holds, pushRounds, put } from '../crash/bench.ts';

describe('a close', () => {
  /** What an undo device says that has no space left for the holes that are punched in it. */
  const full = new VarveError('DISK_FULL', 'undo: punch');

  test.each([
    ['is full', full],
    ['meets a bug', new Error('a bug')],
  ])('makes durable what was accepted, when the undo device %s', async (_, error) => {
    const bench = await Bench.create(3);
    await bench.lose('cut', async (volume) => {
      await put(volume, 1, blocksOf(7));
      volume.core.undo.close = () => Promise.reject(error);
      const closing = volume.close();
      await (error === full ? closing : expect(closing).rejects.toBe(error));
    });
    await bench.use(async (volume) => {
      expect(volume.core.head).toBe(1);
      expect(await holds(volume.live(), 1, [blocksOf(7)])).toBe(0);
    });
  });

  test('does not wait for space, when a flatten waits for a round that does', async () => {
    const bench = await Bench.create(1, { size: byteCount(1000 * BLOCK_BYTES) });
    await bench.use(async (volume) => {
      bench.sim.final.setFull(true);
      const write = async (): Promise<void> => {
        for (let i = 0; i < 400; i++) await put(volume, (i * 2) % 1000, blocksOf(5000 + i));
      };
      const writing = write().catch((error: unknown) => error);
      while ((await volume.info()).failure === undefined) await bench.world.sleep(50_000);
      const flattening = volume.flatten(
        () => Promise.resolve(),
        () => undefined,
      );
      const beganUs = bench.world.clock.monotonicUs();
      let tookUs: number | undefined;
      const closing = volume.close().then(() => {
        tookUs = bench.world.clock.monotonicUs() - beganUs;
      });
      await bench.world.sleep(30_000_000);
      bench.sim.final.setFull(false);
      await closing;
      expect(tookUs).toBeLessThan(1_000_000);
      // There is no base, and so nothing to copy.
      expect(await flattening).toBe(0);
      expect(await writing).toMatchObject({ code: 'CLOSED' });
    });
  });

  // Every session that ended put a mark as a flush does: `flush-1` lay between writes that nobody had
  // flushed, and explore left out what a power cut could leave there.
  test('of a session makes durable what was written, and is no flush', async () => {
    const bench = await Bench.create(2);
    await bench.use(async (volume) => {
      await put(volume, 1, blocksOf(1));
      await volume.live().flush();
      await put(volume, 2, blocksOf(2));
      await volume.openLive().device.close();
      expect(volume.core.log.writer.durable.generation).toBe(2);
      expect(await volume.resolve('flush-1')).toMatchObject({ generation: 1 });
      expect((await volume.info()).counters.flushes).toBe(1);
    });
  });

  test('is the end: who lets go of a moment after it starts nothing', async () => {
    const bench = await Bench.create(5);
    await bench.use(async (volume) => {
      await put(volume, 1, blocksOf(1));
      const moment = volume.openMoment(await volume.resolve('gen=1'));
      await pushRounds(volume, 2, 0);
      await volume.close();
      const { undo } = volume.core;
      expect(undo.hasGarbage).toBe(false);
      const before = { ...bench.sim.undo.counters };
      await moment.close();
      expect(undo.hasGarbage).toBe(true);
      await bench.world.sleep(1_000_000);
      expect({ ...bench.sim.undo.counters }).toEqual(before);
    });
  });
});
