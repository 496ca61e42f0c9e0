/**
 * A kill, a rotten bit in one of the newest headers, an opening, a power cut, another opening: what
 * the first one has shown is there at the second, or that one refuses.
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError } from '../../src/base/errors.ts';
import { uuidBytes } from '../../src/base/identity.ts';
import { BLOCK_BYTES, kibibytes, slot } from '../../src/base/units.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { decodeBatch } from '../../log/batch.ts';
import { slotOffset } from '../../log/geometry.ts';
import { Bench, blocksOf, put } from './bench.ts';

const NEWEST = 4;

/** @returns how many of the two openings were not refused */
export async function runRottenHeader(options: {
  readonly seed: number;
  readonly onStep?: () => void;
}): Promise<number> {
  const bench = await Bench.create(options.seed, { segmentBytes: kibibytes(32), slots: 16 });
  const random = bench.world.random.fork('rot');
  await bench.untilLost('kill', async (volume, plan) => {
    plan({ loss: 'kill', afterOperations: 4 + random.below(20) });
    for (let i = 0; ; i++) {
      options.onStep?.();
      const count = 1 + random.below(4);
      const puts = Array.from({ length: count }, (_, k) =>
        put(volume, (i * 7 + k) % 64, blocksOf(i)),
      );
      await Promise.all(puts);
      if (random.chance(0.7)) await volume.live().flush();
      if (random.chance(0.3)) await bench.world.sleep(10_000);
    }
  });
  const headers = headersOf(bench);
  const rotten = headers.at(-1 - random.below(Math.min(NEWEST, headers.length)));
  if (rotten === undefined) return 0;
  bench.sim.log.corruptBit(rotten + 100, 1);
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

/** Where headers of batches lie on the log, in the order in which they were written. */
function headersOf({ sim }: Bench): readonly number[] {
  const found: { readonly at: number; readonly lsn: number }[] = [];
  const uuid = uuidBytes(sim.uuid);
  const { geometry } = sim;
  for (let at: number = slotOffset(geometry, slot(0)); at < geometry.logBytes; at += BLOCK_BYTES) {
    const block = new Uint8Array(BLOCK_BYTES);
    sim.log.platter.read(at, block);
    const batch = decodeBatch(block, uuid);
    if (batch !== undefined) found.push({ at, lsn: batch.header.lsn });
  }
  return found.sort((one, other) => one.lsn - other.lsn).map(({ at }) => at);
}
