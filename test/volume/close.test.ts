/** A close in order: it ends, whatever a device says, and keeps what was accepted. */
import { describe, expect, test } from 'vitest';
import { VarveError } from '../../src/base/errors.ts';
import { Bench, blocksOf, holds, put } from '../crash/bench.ts';

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
});
