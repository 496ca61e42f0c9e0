/** Disks of which some reads take so long that a round passes, before they look or after. */
import type { LowerDevice } from '../../src/device/lower-device.ts';
import type { SeededRandom } from '../sim/random.ts';
import type { SimVolume } from '../sim/sim-volume.ts';
import type { SimWorld } from '../sim/sim-world.ts';

const CHANCE = 0.1;
const PAUSE_US_MAX = 200_000;

/**
 * From the next opening on.
 * @param pauseUsMax - shorter than a round, it comes between the parts of one
 */
export function slowReads(
  sim: SimVolume,
  world: SimWorld,
  random: SeededRandom,
  pauseUsMax = PAUSE_US_MAX,
): void {
  const pause = async (): Promise<void> => {
    if (random.chance(CHANCE)) await world.sleep(random.below(pauseUsMax));
  };
  const slow = (device: LowerDevice): LowerDevice => ({
    name: device.name,
    size: device.size,
    read: async (offset, target) => {
      await pause();
      await device.read(offset, target);
      await pause();
    },
    write: (offset, sources) => device.write(offset, sources),
    punch: (offset, length) => device.punch(offset, length),
    sync: (point) => device.sync(point),
    allocated: () => device.allocated(),
    close: () => device.close(),
  });
  const devices = sim.devices.bind(sim);
  sim.devices = () => {
    const { log, final, sums, undo } = devices();
    return { log: slow(log), final: slow(final), sums: slow(sums), undo: slow(undo) };
  };
}
