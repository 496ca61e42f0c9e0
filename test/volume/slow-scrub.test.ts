/** A scrub that keeps to a low rate, while writers need what it looks at. */
import { expect, test } from 'vitest';
import { mebibytes } from '../../src/base/units.ts';
import { Bench, blocksOf, put } from '../crash/bench.ts';

// It held the oldest segment while it waited for its rate: writers stood still for minutes.
test('keeps nobody waiting, however slow it is', async () => {
  const shape = { segmentBytes: mebibytes(4), slots: 12, ringBytes: mebibytes(1) };
  const { world, sim, power } = await Bench.create(1, shape);
  await world.run(async () => {
    const volume = await sim.open(power.life);
    for (let i = 0; i < 2500; i++) await put(volume, i % 40, blocksOf(i));
    await volume.live().flush();
    const { log, references } = volume.core;
    const slow = volume.scrub({ bytesPerSecond: 50_000, progress: () => undefined });
    const ended = expect(slow).rejects.toMatchObject({ code: 'CLOSED' });
    const isHeld = (): boolean => {
      const { oldest } = log.segments;
      return oldest !== undefined && references.readers(oldest.sequence) > 0;
    };
    while (!isHeld()) await world.sleep(1000);
    let worstUs = 0;
    for (let i = 0; i < 12_000; i++) {
      const beganUs = world.clock.monotonicUs();
      await put(volume, i % 40, blocksOf(i));
      worstUs = Math.max(worstUs, world.clock.monotonicUs() - beganUs);
    }
    expect(worstUs).toBeLessThan(1e6);
    await volume.close();
    await ended;
  });
});
