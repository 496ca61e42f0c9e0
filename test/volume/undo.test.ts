/** What rounds keep, when some of them come to nothing. */
import { expect, test } from 'vitest';
import {
  block,
  blockCount,
  BLOCK_BYTES,
  byteCount,
  checksum,
  generation,
  kibibytes,
  micros,
} from '../../src/base/units.ts';
import { Undo } from '../../src/volume/undo.ts';
import { Pins } from '../../index/pins.ts';
import type { StatedImage } from '../../log/undo-log.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import { SimDisk } from '../sim/sim-disk.ts';
import { SimWorld } from '../sim/sim-world.ts';

function imageOf(where: number, until: number): StatedImage {
  const content = new Uint8Array(BLOCK_BYTES).fill(where);
  const image = {
    block: block(where),
    count: blockCount(1),
    from: generation(1),
    until: generation(until),
    checksum: checksum(1),
  };
  return { image, content };
}

// A round that failed had gone further than the one that came to its end: what it had put above that
// was taken for passed, and the next round put it once more beside it.
test('what a round put further than the horizon came is still there for the next one', async () => {
  const world = new SimWorld(1);
  const power = new PowerSupply(world);
  const disk = SimDisk.create(power, { name: 'undo', size: kibibytes(64 + 8 * 64) });
  let horizon = generation(5);
  const pins = new Pins<string>();
  pins.add(generation(3), 'a snapshot');
  await world.run(async () => {
    const undo = await Undo.open(disk.reopen(), {
      volume: '00000000-0000-4000-8000-000000000001',
      segmentBytes: kibibytes(64),
      cacheBytes: byteCount(4096),
      opening: 1,
      slotsUsed: 0,
      horizon: () => horizon,
      readOnly: false,
      isClean: true,
      now: () => ({ wallUs: micros(1), elapsedUs: micros(1) }),
      pins,
    });
    // Older than the horizon: the segment stays.
    await undo.put([imageOf(1, 4)], horizon);
    await undo.put([imageOf(2, 10), imageOf(3, 20)], generation(20));
    // That round goes no further; one that ends before the second of them does.
    expect(await undo.restart()).toEqual(new Set(['2:10', '3:20']));
    horizon = generation(10);
    undo.passed();
    expect(await undo.restart()).toEqual(new Set(['3:20']));
    horizon = generation(20);
    undo.passed();
    expect(await undo.restart()).toEqual(new Set());
    await undo.check();
    await undo.close();
  });
});
