/**
 * A small log in mode `written`, of which a sync fails, and perhaps a write of what that left in
 * doubt, and a kill while it is written again: nothing that was answered is gone.
 */
import { assert } from '../../src/base/assert.ts';
import { VarveError } from '../../src/base/errors.ts';
import { kibibytes } from '../../src/base/units.ts';
import { Bench, blocksOf, holds, put } from './bench.ts';
import type { OneSeed } from './one-seed.ts';

const WRITES = 110;
const OPERATIONS_MAX = 20;

/** @returns how many writes were answered before the kill */
export async function runWrittenMode({ seed, onStep }: OneSeed): Promise<number> {
  const slots = 8 + (seed % 5);
  const bench = await Bench.create(seed, {
    size: kibibytes(1024),
    slots,
    segmentBytes: kibibytes(64),
    requestBytesMax: kibibytes(64),
    ringBytes: kibibytes(1024),
  });
  const random = bench.world.fork('written-mode');
  const [free, operations] = [random.between(1, 5), 1 + random.below(OPERATIONS_MAX)];
  /** Which write of what is written again fails as well; none below 0. */
  let failing = random.between(-3, 3);
  let answered = 0;
  await bench.untilLost('kill', async (volume, plan) => {
    volume.setWriteMode('written');
    const { device, segments } = volume.core.log;
    const [sync, write] = [device.sync.bind(device), device.write.bind(device)];
    const end = (): void => plan({ loss: 'kill', afterOperations: operations });
    let hasFailed = false;
    device.sync = async (point) => {
      if (hasFailed || point !== 'commit' || segments.freeSlots > free) return await sync(point);
      hasFailed = true;
      bench.sim.log.failNextSync({ dropDirty: random.chance(0.5), point });
      await sync(point).finally(() => {
        if (failing < 0) end();
      });
    };
    device.write = async (at, sources) => {
      if (!hasFailed || failing-- !== 0) return await write(at, sources);
      end();
      throw new VarveError('DEVICE_IO', 'a write of what is written again');
    };
    for (; answered < WRITES; answered++) {
      onStep?.();
      await put(volume, answered, blocksOf(100 + answered));
    }
  });
  await bench.use(async (volume) => {
    for (let i = 0; i < answered; i++) {
      const found = await holds(volume.live(), i, [blocksOf(100 + i)]);
      assert(found === 0, `write ${i} of the ${answered} that were answered is there`);
    }
  });
  return answered;
}
