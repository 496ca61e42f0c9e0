/** The simulated world: time, order, ends, and that one seed is one run. */
import { describe, expect, test } from 'vitest';
import { byteOffset } from '../../src/base/units.ts';
import { PowerSupply } from './power-supply.ts';
import { SeededRandom } from './random.ts';
import { SimDisk } from './sim-disk.ts';
import { SIM_WALL_US, SimWorld } from './sim-world.ts';

describe('seeded random', () => {
  test('gives the same for the same seed, and other numbers for its neighbour', () => {
    const draw = (seed: number): number[] => {
      const random = new SeededRandom(seed);
      return Array.from({ length: 8 }, () => random.next32());
    };
    expect(draw(7)).toEqual(draw(7));
    expect(draw(7)).not.toEqual(draw(8));
    expect(draw(7)).not.toEqual(draw(7 + 2 ** 32));
  });

  test('forks do not depend on what was drawn before', () => {
    const early = new SeededRandom(3).fork('disk').next32();
    const drawn = new SeededRandom(3);
    drawn.next32();
    expect(drawn.fork('disk').next32()).toBe(early);
    expect(drawn.fork('other').next32()).not.toBe(early);
  });

  test('is about even, whatever the bound', () => {
    const random = new SeededRandom(5);
    for (const bound of [2, 10, 1000, 2 ** 40]) {
      let sum = 0;
      for (let turn = 0; turn < 10_000; turn++) {
        const drawn = random.below(bound);
        expect(drawn >= 0 && drawn < bound && Number.isInteger(drawn)).toBe(true);
        sum += drawn;
      }
      expect(Math.abs(sum / 10_000 / (bound - 1) - 0.5)).toBeLessThan(0.02);
    }
    let heads = 0;
    for (let turn = 0; turn < 10_000; turn++) heads += random.chance(0.3) ? 1 : 0;
    expect(Math.abs(heads - 3000)).toBeLessThan(200);
  });

  test('keeps every element when it shuffles', () => {
    const list = Array.from({ length: 50 }, (_, at) => at);
    const shuffled = new SeededRandom(1).shuffle([...list]);
    expect(shuffled).not.toEqual(list);
    expect(shuffled.toSorted((left, right) => left - right)).toEqual(list);
  });
});

describe('time', () => {
  test('passes from timer to timer, and stands still in between', async () => {
    const world = new SimWorld(1);
    const heard: string[] = [];
    await world.run(async () => {
      world.timers.after(50, () => heard.push('late'));
      world.timers.after(5, () => heard.push('early'));
      const cancel = world.timers.after(10, () => heard.push('never'));
      cancel();
      cancel();
      await world.sleep(100_000);
    });
    expect(heard).toEqual(['early', 'late']);
    expect(world.nowUs).toBe(100_000);
    expect(world.clock.monotonicUs()).toBe(100_000);
    expect(world.clock.wallUs()).toBe(SIM_WALL_US + 100_000);
  });

  test('all that can run has run before time goes on', async () => {
    const world = new SimWorld(1);
    const at: number[] = [];
    await world.run(async () => {
      world.schedule(1, () => undefined);
      for (let turn = 0; turn < 1000; turn++) await Promise.resolve();
      at.push(world.nowUs);
      await world.sleep(5);
      at.push(world.nowUs);
    });
    expect(at).toEqual([0, 5]);
  });

  test('the wall clock jumps both ways, the monotonic one never', async () => {
    const world = new SimWorld(1);
    await world.runFor(10);
    world.jumpWall(-1_000_000);
    expect(world.clock.wallUs()).toBe(SIM_WALL_US - 999_990);
    expect(world.clock.monotonicUs()).toBe(10);
  });

  test('events of one instant come in an order that the seed decides', async () => {
    const orders = new Set<string>();
    for (let seed = 0; seed < 20; seed++) {
      const world = new SimWorld(seed);
      const heard: number[] = [];
      for (const name of [1, 2, 3]) world.schedule(7, () => heard.push(name));
      await world.settle();
      orders.add(heard.join());
    }
    expect(orders.size).toBeGreaterThan(3);
  });
});

describe('a run', () => {
  test('passes on the result or the error of its work', async () => {
    const world = new SimWorld(1);
    expect(await world.run(async () => 5)).toBe(5);
    await expect(world.run(() => Promise.reject(new Error('no')))).rejects.toThrow('no');
    expect(await world.run(async () => 6)).toBe(6);
  });

  test('says when its work waits for ever, with the seed', async () => {
    const world = new SimWorld(42);
    const never = (): Promise<void> =>
      new Promise<void>(() => {
        // Nobody resolves it.
      });
    await expect(world.run(never)).rejects.toThrow(/seed 42.*nothing is due/);
  });

  test('says when it goes on without end', async () => {
    const world = new SimWorld(1, { stepsMax: 100 });
    const again = (): void => {
      world.schedule(1, again);
    };
    again();
    await expect(world.settle()).rejects.toThrow(/100 events/);
  });

  test('is not begun inside another', async () => {
    const world = new SimWorld(1);
    await expect(world.run(() => world.runFor(1))).rejects.toThrow(/one loop/);
  });
});

describe('one seed', () => {
  async function digestOf(seed: number, content: number): Promise<number> {
    const world = new SimWorld(seed);
    const disk = SimDisk.create(new PowerSupply(world), { name: 'log', size: 2 ** 20 });
    const random = world.fork('work');
    await world.run(async () => {
      const work = Array.from({ length: 50 }, async (_, at) => {
        await world.sleep(random.below(100));
        const bytes = Uint8Array.from(world.random.bytes(600)).fill(content, 0, 1);
        await disk.write(byteOffset(at * 600), [bytes]);
        if (at % 7 === 0) await disk.sync('commit');
        await disk.read(byteOffset(at * 600), new Uint8Array(700));
      });
      await Promise.all(work);
    });
    return world.digest;
  }

  test('is one run: the digest repeats', async () => {
    expect(await digestOf(9, 1)).toBe(await digestOf(9, 1));
  });

  test('another seed, or another byte written, is another digest', async () => {
    const digest = await digestOf(9, 1);
    expect(await digestOf(10, 1)).not.toBe(digest);
    expect(await digestOf(9, 2)).not.toBe(digest);
  });
});
