/** Automatic snapshots: stories of hours, of limits, and of what stands in their way. */
import { describe, expect, test } from 'vitest';
import {
  BLOCK_BYTES,
  byteCount,
  generation as generationOf,
  kibibytes,
  micros,
} from '../../src/base/units.ts';
import { DAY_US, HOUR_US } from '../../src/base/periods.ts';
import {
  changedPolicy,
  keptBy,
  NO_RETENTION,
  type RetentionPolicy,
} from '../../src/volume/retention-policy.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { Bench, blocksOf, holds, NO_UNDO, pushRounds, put } from '../crash/bench.ts';
import { SIM_WALL_US } from '../sim/sim-world.ts';

const HOURLY: RetentionPolicy = { ...NO_RETENTION, hourly: 24 };

function labels(volume: Volume): readonly string[] {
  return volume
    .snapshots()
    .filter(({ isAutomatic }) => isAutomatic)
    .map(({ label }) => label);
}

/** What was written has the time of its batch, which is closed some milliseconds later. */
function later({ world }: Bench, volume: Volume, hours = 1): void {
  volume.core.log.stream.seal();
  world.jumpWall(hours * HOUR_US);
}

describe('rules', () => {
  const at = (hours: number): ReturnType<typeof micros> => micros(SIM_WALL_US + hours * HOUR_US);
  const candidate = (generation: number, hours: number) => ({
    generation: generationOf(generation),
    wallUs: at(hours),
  });
  const policy = { ...NO_RETENTION, hourly: 2, daily: 2, weekly: 1 };

  test('keep the newest of their periods, and one snapshot may serve several', () => {
    // Thursday 2026-01-01 and the days after it; each candidate half an hour before a boundary.
    const days = Array.from({ length: 6 }, (_, i) => candidate(10 * (i + 1), 24 * i + 23.5));
    const kept = keptBy(policy, [...days, candidate(70, 144.5), candidate(71, 145.5)], at(146.5));
    expect(Object.fromEntries(kept)).toEqual({
      40: ['weekly'],
      50: ['daily'],
      60: ['daily'],
      70: ['hourly'],
      71: ['hourly'],
    });
  });

  test('take what lies on a boundary for what ends there', () => {
    const kept = keptBy(policy, [candidate(1, 24)], at(24.1));
    expect(kept.get(generationOf(1))).toEqual(['hourly', 'daily']);
  });

  test('keep the last one where the clock was set back over an hour', () => {
    const twice = [candidate(1, 0.5), candidate(2, 1.5), candidate(3, 0.7)];
    expect([...keptBy({ ...policy, daily: 0 }, twice, at(1.2)).keys()]).toEqual([3]);
    expect([...keptBy({ ...policy, daily: 0 }, twice, at(2.2)).keys()]).toEqual([3, 2]);
  });

  test('have limits', () => {
    const code = 'RETENTION_BAD';
    expect(() => changedPolicy(policy, { hourly: 1001 })).toThrow(
      expect.objectContaining({ code }),
    );
    const tooLong = { everyWriteUs: micros(400 * DAY_US) };
    expect(() => changedPolicy(policy, tooLong)).toThrow(expect.objectContaining({ code }));
    expect(changedPolicy(policy, { daily: 0, maxBytes: undefined })).toEqual({
      ...policy,
      daily: 0,
    });
  });
});

describe('automatic snapshots', () => {
  test('are made of the last moment of an hour when it leaves the window, and read on', async () => {
    const bench = await Bench.create(1);
    await bench.use(async (volume) => {
      await volume.setRetention(HOURLY);
      await put(volume, 0, blocksOf(1));
      await put(volume, 0, blocksOf(2));
      later(bench, volume, 3);
      await put(volume, 0, blocksOf(3));
      expect(labels(volume)).toEqual([]);
      await pushRounds(volume, 2);
      // Hours without a write have none.
      expect(labels(volume)).toEqual(['auto-2026-01-01T01:00:00Z']);
      const moment = volume.openMoment(await volume.resolve('auto-2026-01-01T01:00:00Z'));
      expect(await holds(moment, 0, [blocksOf(2)])).toBe(0);
      await moment.close();
      const [one] = volume.snapshots();
      expect(one).toMatchObject({ keptFor: ['hourly'], isAutomatic: true, generation: 2 });
    });
    // The next opening is told of the policy by volume.json, and finds the snapshot in the catalogue.
    await bench.use(async (volume) => {
      expect(labels(volume)).toEqual(['auto-2026-01-01T01:00:00Z']);
      const { deleted, freedBytes } = await volume.setRetention(NO_RETENTION);
      expect(deleted).toEqual(['auto-2026-01-01T01:00:00Z']);
      expect(freedBytes).toBe(BLOCK_BYTES);
      expect(volume.core.undo.held.bytes).toBe(0);
    });
  });

  test('are not made of what a rollback puts, but of the moment before it', async () => {
    const bench = await Bench.create(2);
    await bench.use(async (volume) => {
      await volume.setRetention(HOURLY);
      await put(volume, 0, blocksOf(1));
      await put(volume, 0, blocksOf(2));
      await put(volume, 1, blocksOf(2));
      // The hour ends while it is under way.
      let hasJumped = false;
      const { before, after } = await volume.rollback(
        { to: 'gen=1', force: false, dryRun: false },
        () => {
          if (volume.core.head <= 3 || hasJumped) return;
          later(bench, volume);
          hasJumped = true;
        },
      );
      expect(hasJumped).toBe(true);
      expect([Number(before.generation), Number(after.generation)]).toEqual([3, 5]);
      later(bench, volume);
      await pushRounds(volume, 2);
      const found = volume.snapshots().filter(({ isAutomatic }) => isAutomatic);
      expect(found.map(({ generation }) => Number(generation))).toEqual([3, 5]);
      const moment = volume.openMoment(found[0] ?? { generation: generationOf(0) });
      expect(await holds(moment, 1, [blocksOf(2)])).toBe(0);
      await moment.close();
    });
  });

  test('go, the oldest first, before their limit is passed; named ones stay', async () => {
    const bench = await Bench.create(3);
    await bench.use(async (volume) => {
      await volume.setRetention({ ...HOURLY, maxBytes: byteCount(40 * BLOCK_BYTES) });
      await put(volume, 0, blocksOf(1));
      await volume.createSnapshot('named');
      for (let hour = 0; hour < 6; hour++) {
        later(bench, volume);
        await pushRounds(volume, 1);
        expect(volume.core.undo.held.bytes).toBeLessThanOrEqual(40 * BLOCK_BYTES);
      }
      const { retention, snapshots } = await volume.info();
      expect(snapshots.some(({ label }) => label === 'named')).toBe(true);
      expect(retention.droppedEarly).toBeGreaterThan(0);
      expect(retention.heldBytes).toBe(volume.core.undo.held.bytes);
    });
  });

  test('go before writes are refused, where the undo device is full', async () => {
    const slots = byteCount(NO_UNDO + kibibytes(3 * 64));
    const bench = await Bench.create(4, { undoBytes: slots });
    await bench.use(async (volume) => {
      await volume.setRetention(HOURLY);
      for (let hour = 0; hour < 12; hour++) {
        later(bench, volume);
        await pushRounds(volume, 1);
      }
      const { retention, failure } = await volume.info();
      expect(failure).toBeUndefined();
      expect(retention.droppedEarly).toBeGreaterThan(0);
    });
  });

  test('that somebody deleted do not come again, and labels of theirs are not for people', async () => {
    const bench = await Bench.create(5);
    await bench.use(async (volume) => {
      await volume.setRetention(HOURLY);
      await put(volume, 0, blocksOf(1));
      later(bench, volume);
      await put(volume, 0, blocksOf(2));
      await pushRounds(volume, 2);
      const [label = ''] = labels(volume);
      const promised = volume.snapshots()[0]?.exclusiveBytes;
      const before = volume.core.undo.held.bytes;
      await volume.deleteSnapshot(label);
      expect(before - volume.core.undo.held.bytes).toBe(promised);
      await pushRounds(volume, 2);
      expect(labels(volume)).toEqual([]);
      await expect(volume.createSnapshot(label)).rejects.toMatchObject({ code: 'LABEL_BAD' });
    });
  });
});

describe('every write', () => {
  async function segmentsAfter(seed: number, policy: RetentionPolicy): Promise<number> {
    const bench = await Bench.create(seed, { slots: 24 });
    return await bench.use(async (volume) => {
      await volume.setRetention(policy);
      await pushRounds(volume, 4);
      return volume.core.log.segments.live.length;
    });
  }

  test('is kept for longer where it should be, and writers never wait for it', async () => {
    const plain = await segmentsAfter(6, NO_RETENTION);
    const longer = await segmentsAfter(6, { ...NO_RETENTION, everyWriteUs: micros(HOUR_US) });
    expect(longer).toBeGreaterThan(plain + 2);
  });

  test('is forecast as rounds will leave it', async () => {
    const bench = await Bench.create(8);
    await bench.use(async (volume) => {
      await pushRounds(volume, 2);
      const forecast = async (
        everyWriteUs: number,
      ): Promise<{ readonly min: number; readonly max: number } | undefined> => {
        await volume.setRetention({ ...NO_RETENTION, everyWriteUs: micros(everyWriteUs) });
        return (await volume.info()).retention.forecast.windowUs;
      };
      const { min = 0, max = 0 } = (await forecast(0)) ?? {};
      expect(max).toBeGreaterThan(min);
      // A log that holds more than was asked for goes on to.
      expect(await forecast(1)).toEqual({ min, max });
      const between = Math.round((min + max) / 2);
      expect(await forecast(between)).toEqual({ min: between, max });
      const longer = await forecast(2 * max);
      expect(longer?.min).toBe(max);
      expect(longer?.max).toBeGreaterThan(max);
    });
  });

  test('is told honestly where the log does not hold it', async () => {
    const bench = await Bench.create(7);
    await bench.use(async (volume) => {
      await volume.setRetention({ ...NO_RETENTION, everyWriteUs: micros(HOUR_US) });
      expect((await volume.info()).retention.isEveryWriteKept).toBe(true);
      await pushRounds(volume, 2);
      const { retention, log } = await volume.info();
      expect(retention.isEveryWriteKept).toBe(false);
      const { windowUs, logBytesNeeded } = retention.forecast;
      expect(windowUs?.min).toBeLessThan(HOUR_US);
      expect(windowUs?.max).toBeGreaterThan(windowUs?.min ?? Infinity);
      expect(logBytesNeeded).toBeGreaterThan(log.sizeBytes);
    });
  });
});
