/**
 * A rotten bit at the end of the log, between two lives. In one of the newest headers: what the next
 * opening shows is there at the one behind a power cut, or that one refuses. In a payload: the volume
 * opens, whatever a cut took behind it.
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, kibibytes } from '../../src/base/units.ts';
import type { Volume } from '../../src/volume/volume.ts';
import type { SeededRandom } from '../sim/random.ts';
import { Bench, blocksOf, put } from './bench.ts';
import { batchesOn, dataOf } from './log-batches.ts';
import type { OneSeed } from './one-seed.ts';

const NEWEST = 4;

/** A volume that was written to until it was lost. */
async function lost(
  loss: 'cut' | 'kill',
  operations: number,
  { seed, onStep }: OneSeed,
): Promise<{ readonly bench: Bench; readonly random: SeededRandom }> {
  const bench = await Bench.create(seed, { segmentBytes: kibibytes(32), slots: 16 });
  const random = bench.world.random.fork('rot');
  await bench.untilLost(loss, async (volume, plan) => {
    plan({ loss, afterOperations: 4 + random.below(operations) });
    for (let i = 0; ; i++) {
      onStep?.();
      const count = 1 + random.below(4);
      const puts = Array.from({ length: count }, (_, k) =>
        put(volume, (i * 7 + k) % 64, blocksOf(i)),
      );
      await Promise.all(puts);
      if (random.chance(0.7)) await volume.live().flush();
      if (random.chance(0.3)) await bench.world.sleep(10_000);
    }
  });
  return { bench, random };
}

/** @returns how many of the two openings were not refused */
export async function runRottenHeader(options: OneSeed): Promise<number> {
  const { bench, random } = await lost('kill', 20, options);
  const batches = batchesOn(bench.sim);
  const rotten = oneOf(batches.slice(-NEWEST), random);
  if (rotten === undefined) return 0;
  bench.sim.log.corruptBit(rotten.at + 100, 1);
  let shown = 0;
  const first = await opens(bench, (volume) => {
    shown = volume.core.head;
  });
  const second = await opens(bench, (volume) => {
    const { head } = volume.core;
    assert(head >= shown, `generation ${shown} was shown, and ${head} is the newest now`);
  });
  return Number(first) + Number(second);
}

/** @returns 1 when something rotted */
export async function runRottenPayload(options: OneSeed): Promise<number> {
  const { bench, random } = await lost('cut', 60, options);
  const payloads = batchesOn(bench.sim).flatMap(dataOf);
  const rotten = oneOf(payloads.slice(-4 * NEWEST), random);
  if (rotten === undefined) return 0;
  bench.sim.log.corruptBit(rotten.at + random.below(BLOCK_BYTES), 1);
  const isOpen = await opens(bench, () => undefined);
  assert(isOpen, 'a rotten payload costs its block, and not the volume');
  return 1;
}

/** A cut may have left none. */
function oneOf<T>(list: readonly T[], random: SeededRandom): T | undefined {
  return list.length === 0 ? undefined : random.pick(list);
}

/** Opens, looks, and the power is cut. @returns false when it is refused */
async function opens(bench: Bench, look: (volume: Volume) => void): Promise<boolean> {
  try {
    await bench.lose('cut', (volume) => {
      look(volume);
      return Promise.resolve();
    });
    return true;
  } catch (error) {
    if (!isVarveError(error, 'VOLUME_CORRUPT')) throw error;
    return false;
  }
}
