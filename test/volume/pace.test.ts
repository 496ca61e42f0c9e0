/** How fast work goes on that nobody waits for. */
import { describe, expect, test } from 'vitest';
import { Pace } from '../../src/volume/pace.ts';
import { SimWorld } from '../sim/sim-world.ts';

const MIB = 2 ** 20;
const quiet = (): void => undefined;

/** Seconds that it takes to spend so much in parts. */
async function secondsOf(bytesPerSecond: number, bytes: number, part: number): Promise<number> {
  const world = new SimWorld(1);
  const began = world.nowUs;
  await world.run(async () => {
    const pace = new Pace(world, bytesPerSecond);
    for (let spent = 0; spent < bytes; spent += part) await pace.spend(part, quiet);
  });
  return (world.nowUs - began) / 1e6;
}

describe('a pace', () => {
  test('is kept, in small parts as in large ones', async () => {
    for (const part of [4096, MIB, 8 * MIB]) {
      const seconds = await secondsOf(16 * MIB, 64 * MIB, part);
      expect(seconds).toBeGreaterThan(3.9);
      expect(seconds).toBeLessThan(4.6);
    }
  });

  test('without a limit lets others have a turn after each mebibyte, not after each block', async () => {
    // A scrub of 70,000 before-images took a millisecond for each of them.
    const world = new SimWorld(1);
    let turns = 0;
    const timers = {
      after: (delayMs: number, call: () => void): (() => void) => {
        turns += 1;
        return world.timers.after(delayMs, call);
      },
    };
    await world.run(async () => {
      const pace = new Pace({ clock: world.clock, random: world.random, timers }, 0);
      for (let i = 0; i < 2560; i++) await pace.spend(4096, quiet);
    });
    expect(turns).toBe(10);
  });

  test('asks each time whether to go on', async () => {
    const world = new SimWorld(1);
    const stop = (): void => {
      throw new Error('stopped');
    };
    const spent = world.run(() => new Pace(world, 0).spend(4096, stop));
    await expect(spent).rejects.toThrow('stopped');
  });
});
