/**
 * A snapshot that is read while a round begins to write over it: the look for before-images comes
 * before the round's horizon, the read of home between its data and its checksums. What was there at
 * the snapshot is answered, and nobody is told of damage.
 */
import { assert } from '../../src/base/assert.ts';
import { BLOCK_BYTES, byteOffset } from '../../src/base/units.ts';
import type { Volume } from '../../src/volume/volume.ts';
import type { SimVolume } from '../sim/sim-volume.ts';
import { Bench, blocksOf, pushRounds, put, withWriteHook } from './bench.ts';
import type { OneSeed } from './one-seed.ts';

const BLOCKS = 4;
/** About what two rounds settle: any place in them. */
const LEAD_MAX = 80;

/** @returns whether the read met the round */
export async function runOvertakenReads({ seed, onStep }: OneSeed): Promise<boolean> {
  const bench = await Bench.create(seed);
  const stage = new Stage(bench.sim);
  const random = bench.world.random.fork('overtaken-reads');
  const fill = async (volume: Volume, count: number): Promise<void> => {
    for (let i = 0; i < count; i++) {
      onStep?.();
      await put(volume, 40, blocksOf(i));
    }
  };
  await bench.use(async (volume) => {
    for (let block = 0; block < BLOCKS; block++) await put(volume, block, blocksOf(block));
    await settle(volume, volume.core.head);
    await fill(volume, random.below(LEAD_MAX));
    // The log still has it when it is replaced: what is taken for damage is answered from there.
    await put(volume, 2, blocksOf(2));
    await volume.createSnapshot('before');
    // It gets an image, so that block 0 is read before blocks 2 and 3.
    await put(volume, 1, blocksOf(7));
    const { head } = volume.core;
    await fill(volume, random.between(4, 24));
    await put(volume, 2, blocksOf(8));
    const last = volume.core.head;
    await settle(volume, head);
    if (volume.core.settled >= last) return;
    const moment = volume.openMoment(await volume.resolve('before'));
    stage.isSet = true;
    const got = new Uint8Array(BLOCKS * BLOCK_BYTES);
    const reading = Promise.resolve(moment.read(byteOffset(0), got)).finally(stage.onRead);
    await Promise.all([reading, settle(volume, last)]);
    for (let block = 0; block < BLOCKS; block++) {
      const part = got.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
      assert(Buffer.compare(part, blocksOf(block)) === 0, `block ${block} is as it was`);
    }
    const { readErrors } = volume.core.counters;
    assert(readErrors === 0, 'what a round is writing is not told to be damaged');
    await moment.close();
    volume.core.check();
  });
  return stage.isMet;
}

/** Rounds until a generation is at home. */
async function settle(volume: Volume, generation: number): Promise<void> {
  while (volume.core.settled < generation) await pushRounds(volume, 1);
}

/**
 * Once it is set, a read from block 0 on waits until a round has written block 2, whose checksums wait
 * until that read has ended.
 */
class Stage {
  isSet = false;
  isMet = false;
  onRead = (): void => undefined;

  constructor(sim: SimVolume) {
    let onHome = (): void => undefined;
    const isWritten = new Promise<void>((resolve) => {
      onHome = resolve;
    });
    const isRead = new Promise<void>((resolve) => {
      this.onRead = resolve;
    });
    const devices = sim.devices.bind(sim);
    sim.devices = () => {
      const { final, sums, ...others } = devices();
      const slowFinal = withWriteHook(final, () => Promise.resolve());
      return {
        ...others,
        final: {
          ...slowFinal,
          read: async (offset, target) => {
            if (this.isSet && offset === 0) await isWritten;
            await final.read(offset, target);
          },
          write: async (offset, sources) => {
            await final.write(offset, sources);
            if (!this.isSet || offset !== 2 * BLOCK_BYTES) return;
            this.isMet = true;
            onHome();
          },
        },
        sums: withWriteHook(sums, async () => {
          if (this.isMet) await isRead;
        }),
      };
    };
  }
}
