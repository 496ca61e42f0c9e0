/** Requests of several batches and segments that a crash cut in two: dropped whole, for good. */
import { describe, expect, test } from 'vitest';
import { BLOCK_BYTES, kibibytes, mebibytes, slot } from '../../src/base/units.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { slotOffset } from '../../log/geometry.ts';
import type { SimVolumeOptions } from '../sim/sim-volume.ts';
import { Bench, blocksOf, get, holds, put } from './bench.ts';

/** Segments of at most 13 blocks of stream, and requests of many of them. */
const SMALL: SimVolumeOptions = {
  size: mebibytes(1),
  slots: 40,
  requestBytesMax: kibibytes(512),
  ringBytes: mebibytes(2),
};

async function wholeOrNot(volume: Volume, first: number, content: Uint8Array): Promise<boolean> {
  const zeros = new Uint8Array(content.length);
  const which = await holds(volume.live(), first, [zeros, content]);
  expect(which).toBeGreaterThanOrEqual(0);
  return which === 1;
}

describe('a request torn over several segments', () => {
  test('is dropped, and an opening that writes nothing does not make it a puzzle', async () => {
    // The batch with which that opening closed carries the old lineage: the next one met it in the
    // middle of a request, and refused the volume.
    let torn = 0;
    for (let operations = 1; operations <= 24; operations++) {
      const bench = await Bench.create(operations, SMALL);
      await bench.untilLost('kill', async (volume, plan) => {
        await put(volume, 0, blocksOf(1), true);
        plan({ loss: 'kill', afterOperations: operations });
        await put(volume, 1, blocksOf(2, 128), true);
      });
      const whole: boolean[] = [];
      for (let opening = 0; opening < 3; opening++) {
        await bench.use(async (volume) => {
          expect(await holds(volume.live(), 0, [blocksOf(1)])).toBe(0);
          whole.push(await wholeOrNot(volume, 1, blocksOf(2, 128)));
          volume.core.check();
        });
      }
      expect(new Set(whole).size).toBe(1);
      if (whole[0] === false) torn += 1;
      await bench.use(async (volume) => put(volume, 1, blocksOf(3, 128), true));
      await bench.use(async (volume) => {
        expect(await holds(volume.live(), 1, [blocksOf(3, 128)])).toBe(0);
      });
    }
    expect(torn).toBeGreaterThan(5);
  });

  test('may be followed by another torn one, with and without an idle life between', async () => {
    for (let seed = 2; seed <= 20; seed += 2) {
      const bench = await Bench.create(100 + seed, { ...SMALL, slots: 60 });
      let held: Uint8Array = new Uint8Array(128 * BLOCK_BYTES);
      for (let life = 1; life <= 4; life++) {
        const content = blocksOf(life, 128);
        await bench.untilLost('kill', async (volume, plan) => {
          expect(await holds(volume.live(), 1, [held])).toBe(0);
          plan({ loss: 'kill', afterOperations: seed + life });
          await put(volume, 1, content);
        });
        if (life % 2 === 0) await bench.use(async () => undefined);
        await bench.lose('kill', async (volume) => {
          const which = await holds(volume.live(), 1, [held, content]);
          expect(which).toBeGreaterThanOrEqual(0);
          if (which === 1) held = content;
        });
      }
    }
  });

  test('does not hold its slots for ever: who tries again finds room', async () => {
    // The newest request that had begun in those segments was never durable, so no round could take
    // them, and writers waited for ever.
    for (let operations = 14; operations <= 20; operations++) {
      const bench = await Bench.create(operations, {
        size: mebibytes(1),
        slots: 26,
        requestBytesMax: kibibytes(600),
        ringBytes: mebibytes(2),
      });
      const content = blocksOf(5, 140);
      for (let life = 0; life < 2; life++) {
        await bench.untilLost('kill', async (volume, plan) => {
          plan({ loss: 'kill', afterOperations: operations });
          await put(volume, 3, content, true);
        });
      }
      await bench.use(async (volume) => {
        for (let i = 0; i < 3; i++) await put(volume, 3, content, true);
        expect(await holds(volume.live(), 3, [content])).toBe(0);
      });
    }
  });
});

describe('a round whose tail is the segment in which a request was cut', () => {
  test('leaves a volume that opens: the rest of the request is no damage', async () => {
    const bench = await Bench.create(1, {
      size: mebibytes(4),
      slots: 8,
      segmentBytes: mebibytes(2),
      requestBytesMax: mebibytes(4),
      ringBytes: mebibytes(8),
    });
    await bench.lose('kill', async (volume) => {
      await put(volume, 0, blocksOf(1), true);
      await put(volume, 1, blocksOf(2, 900));
      const { log } = volume.core;
      log.stream.seal();
      await log.writer.waitWritten(log.stream.nextLsn);
      expect(log.segments.live).toHaveLength(2);
    });
    // The second batch of the second segment, which nobody was promised.
    const header = slotOffset(bench.sim.geometry, slot(1)) + (1 + 249) * BLOCK_BYTES;
    const before = new Uint8Array(8);
    bench.sim.log.platter.read(header, before);
    expect(before.every((byte) => byte !== 0)).toBe(true);
    bench.sim.log.corrupt(header, new Uint8Array(BLOCK_BYTES));

    await bench.use(async (volume) => {
      expect(volume.core.head).toBe(1);
      await put(volume, 0, blocksOf(3), true);
      // Stops the round exactly there.
      await volume.createSnapshot('here');
      for (let i = 0; volume.core.counters.rounds === 0; i++) {
        await put(volume, 100, blocksOf(10 + i, 400));
      }
      const tail = volume.core.log.superblock.tailSequence;
      expect(tail).toBe(2);
    });
    for (let opening = 0; opening < 2; opening++) {
      await bench.use(async (volume) => {
        expect(await holds(volume.live(), 0, [blocksOf(3)])).toBe(0);
        const moment = volume.openMoment(await volume.resolve('here'));
        expect(await holds(moment, 0, [blocksOf(3)])).toBe(0);
        expect((await get(moment, 1, 900)).every((byte) => byte === 0)).toBe(true);
        await moment.close();
      });
    }
  });

  test('leaves a segment that counts it, and rounds get past it all the same', async () => {
    // Its number was given out again, behind a segment that had none: the round aimed at the older
    // generation, freed nothing, and was made again for ever, while writers waited.
    let backwards = 0;
    for (let i = 0; i < 30; i++) {
      const operations = 1 + (i % 6);
      const slots = 7 + Math.floor(i / 6);
      const bench = await Bench.create(i, { ...SMALL, slots, requestBytesMax: kibibytes(96) });
      await bench.untilLost('kill', async (volume, plan) => {
        await put(volume, 0, blocksOf(1), true);
        plan({ loss: 'kill', afterOperations: operations });
        await put(volume, 1, blocksOf(2, 24), true);
      });
      await bench.use(async (volume) => {
        for (let i = 0; i < 16; i++) await volume.mark(`m${i}`);
        await put(volume, 2, blocksOf(3), true);
      });
      await bench.use(async (volume) => {
        const last = volume.core.log.segments.live.map(({ lastGeneration }) => lastGeneration);
        if (last.some((generation, i) => generation < (last[i - 1] ?? 0))) backwards += 1;
        for (let i = 0; i < 200; i++) await put(volume, 40 + (i % 8), blocksOf(10 + i));
        expect(volume.core.counters.rounds).toBeGreaterThan(1);
        volume.core.check();
      });
    }
    expect(backwards).toBeGreaterThan(1);
  });
});
