/**
 * A volume is opened on a log device that holds what it should not: structures with other values
 * behind good checksums, blocks elsewhere, twice, of another volume. Whatever it holds, the volume
 * opens, and then works or says why not, or it refuses with a code. Reads and allocations stay
 * within the size of the device.
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError } from '../../src/base/errors.ts';
import { byteOffset } from '../../src/base/units.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { SeededRandom } from '../../test/sim/random.ts';
import type { SimVolume } from '../../test/sim/sim-volume.ts';
import { measured } from '../../test/support/allocations.ts';
import { sum, type Counts, type Fuzzer } from '../options.ts';
import { makeImage, mutatedLog, smallVolume, type Image } from './log-image.ts';

/** Replay, its search for leftovers, and a look at each slot: not many times the device. */
const READS_MAX = 40;
/** Index and caches have their sizes whatever the log holds. */
const ALLOCATION_MAX = 4 * 2 ** 20;

const MOMENTS = [
  '-0s',
  '-9007199254740991us',
  'gen=0',
  'gen=3',
  'gen=9007199254740991',
  'flush-1',
  'flush-9007199254740991',
  '1970-01-01T00:00:00Z',
  '2026-01-01T00:00:00.000300Z',
  '2255-01-01T00:00:00Z',
  'nothing-of-that-name',
];

async function attempt(work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (error) {
    if (!isVarveError(error)) throw error;
    return false;
  }
}

/** Reads and changes what it opened; each may be refused. */
async function use(volume: Volume, random: SeededRandom): Promise<void> {
  const disk = volume.live();
  for (let block = 0; block < disk.size / 4096; block += 1) {
    await attempt(async () => disk.read(byteOffset(block * 4096), new Uint8Array(4096)));
  }
  await attempt(() => volume.info());
  for (const text of MOMENTS) {
    await attempt(async () => {
      const moment = volume.openMoment(await volume.resolve(text));
      await attempt(async () => moment.read(byteOffset(0), new Uint8Array(disk.size)));
      await moment.close();
    });
  }
  for (let i = 0; i < 3; i += 1) {
    const offset = byteOffset(random.below(disk.size - 5000));
    await attempt(async () => disk.write(offset, random.bytes(5000), { fua: true }));
  }
  await attempt(async () => volume.createSnapshot('after'));
  await attempt(async () => disk.flush());
  await attempt(async () => volume.check(() => undefined));
  await attempt(() => volume.close());
}

async function one(random: SeededRandom, image: Image, other: Image): Promise<Counts> {
  const sim: SimVolume = smallVolume(image.seed);
  const log = mutatedLog(random, image, sim.geometry, other);
  sim.log.corrupt(0, log);
  sim.final.corrupt(0, image.final);
  sim.sums.corrupt(0, image.sums);
  const readOnly = random.chance(0.4);
  let isOpen = false;
  const { allocations } = await measured(() =>
    sim.power.world.run(async () => {
      await attempt(async () => {
        const volume = await sim.open(sim.power.life, { readOnly });
        isOpen = true;
        assert(sim.log.counters.bytesRead <= READS_MAX * log.length, 'replay comes to an end');
        await use(volume, random);
      });
    }),
  );
  assert(sim.log.counters.bytesRead <= 2 * READS_MAX * log.length, 'reads are bounded');
  assert(allocations.largest <= ALLOCATION_MAX, 'no bytes on disk decide how much is allocated');
  return { logs: 1, opened: isOpen ? 1 : 0, refused: isOpen ? 0 : 1 };
}

export const fuzzer: Fuzzer = {
  name: 'log-bytes',
  async main({ seed, runs }) {
    const random = new SeededRandom(seed >>> 0);
    const image = await makeImage(random.below(2 ** 31));
    const other = await makeImage(random.below(2 ** 31));
    let counts: Counts = {};
    for (let run = 0; run < runs; run += 1) {
      try {
        counts = sum(counts, await one(random.fork(`log ${run}`), image, other));
      } catch (error) {
        const what = error instanceof Error ? error.stack : String(error);
        throw new Error(`log ${run}: ${what}`, { cause: error });
      }
    }
    return counts;
  },
};
