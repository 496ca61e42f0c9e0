/**
 * Requests of many segments, each killed on its way, and asked for again until one is whole: what
 * was begun and never ended holds no slot for ever, and is whole or not there.
 */
import { assert } from '../../src/base/assert.ts';
import { kibibytes, mebibytes } from '../../src/base/units.ts';
import { SeededRandom } from '../sim/random.ts';
import { Bench, blocksOf, holds, put } from './bench.ts';
import type { OneSeed } from './one-seed.ts';

export async function runTornRequests({ seed, onStep }: OneSeed): Promise<void> {
  const random = new SeededRandom(seed).fork('torn-requests');
  // Some are of more blocks than a batch has entries, and of as many batches.
  const scale = random.chance(0.4) ? 2 : 1;
  const bench = await Bench.create(seed, {
    size: mebibytes(1.25),
    slots: scale * random.between(26, 30),
    requestBytesMax: kibibytes(scale * 600),
    ringBytes: mebibytes(scale * 2),
  });
  const count = scale * random.between(110, 145);
  let held: Uint8Array = new Uint8Array(count * 4096);
  for (let life = 1 + random.below(3); life > 0; life--) {
    const content = blocksOf(life, count);
    await bench.untilLost('kill', async (volume, plan) => {
      plan({ loss: 'kill', afterOperations: scale * random.between(8, 24) });
      onStep?.();
      await put(volume, 3, content, true);
    });
    await bench.use(async (volume) => {
      const which = await holds(volume.live(), 3, [held, content]);
      assert(which >= 0, 'a request is whole or not there');
      if (which === 1) held = content;
    });
  }
  await bench.use(async (volume) => {
    for (let i = 0; i < 3; i++) {
      onStep?.();
      held = blocksOf(10 + i, count);
      await put(volume, 3, held, true);
    }
    assert((await holds(volume.live(), 3, [held])) === 0, 'who tries again finds room');
    volume.core.check();
  });
}
