/**
 * Disks that fail now and then: syncs whose dirty data is kept, forgotten, or forgotten and
 * evicted; writes that fail, done in part; final storage that is full for a while. Each life has
 * its own weather.
 */
import type { ByteOffset } from '../../src/base/units.ts';
import type { LowerDevice, SyncPoint } from '../../src/device/lower-device.ts';
import type { VolumeDevices } from '../../src/volume/devices.ts';
import type { SeededRandom } from '../sim/random.ts';
import type { SimDisk } from '../sim/sim-disk.ts';
import type { SimVolume } from '../sim/sim-volume.ts';

interface Weather {
  /** How often a sync, or a write, fails. */
  readonly sync: number;
  readonly write: number;
  /** How often final storage becomes full, until some operations later. */
  readonly full: number;
  /** So many operations pass before it begins, and so many before it ends. */
  readonly after: number;
  readonly lasts: number;
}

const CALM: Weather = { sync: 0, write: 0, full: 0, after: 0, lasts: 0 };
const WEATHERS: readonly Weather[] = [
  CALM,
  { sync: 0.05, write: 0, full: 0, after: 0, lasts: Infinity },
  { sync: 0.02, write: 0.01, full: 0.002, after: 0, lasts: Infinity },
  { sync: 0.2, write: 0.02, full: 0, after: 100, lasts: 300 },
  { sync: 0, write: 0.03, full: 0.01, after: 0, lasts: Infinity },
  // Nothing goes any more: the volume turns read-only.
  { sync: 1, write: 0, full: 0, after: 80, lasts: Infinity },
  // The same for a while: perhaps it survives.
  { sync: 0.7, write: 0.1, full: 0, after: 60, lasts: 12 },
];

export class DiskTrouble {
  readonly #random: SeededRandom;
  #weather = CALM;
  #operations = 0;
  #fullUntil = 0;
  failedSyncs = 0;
  failedWrites = 0;

  /** From here on the volume's disks are troubled. */
  constructor(sim: SimVolume, random: SeededRandom) {
    this.#random = random;
    const devices = sim.devices.bind(sim);
    sim.devices = (): VolumeDevices => {
      const { log, final, sums, undo } = devices();
      return {
        log: this.#troubled(log, sim.log, false),
        final: this.#troubled(final, sim.final, true),
        sums: this.#troubled(sums, sim.sums, true),
        undo,
      };
    };
  }

  /** Another life begins. */
  change(): void {
    this.#weather = this.#random.pick(WEATHERS);
    this.#operations = 0;
    this.#fullUntil = 0;
  }

  calm(): void {
    this.#weather = CALM;
    this.#fullUntil = 0;
  }

  #happens(chance: number): boolean {
    const { after, lasts } = this.#weather;
    const inside = this.#operations >= after && this.#operations < after + lasts;
    return inside && this.#random.chance(chance);
  }

  #troubled(device: LowerDevice, disk: SimDisk, isSparse: boolean): LowerDevice {
    return {
      name: device.name,
      size: device.size,
      read: (offset, target) => device.read(offset, target),
      write: (offset, sources) => this.#write(device, disk, isSparse, offset, sources),
      punch: (offset, length) => device.punch(offset, length),
      sync: (point) => this.#sync(device, disk, point),
      allocated: () => device.allocated(),
      close: () => device.close(),
    };
  }

  // Faults are planned and taken in one step: none is left for a later life.

  #write(
    device: LowerDevice,
    disk: SimDisk,
    isSparse: boolean,
    offset: ByteOffset,
    sources: readonly Uint8Array[],
  ): Promise<void> {
    this.#operations += 1;
    const { write, full } = this.#weather;
    if (isSparse && full > 0 && this.#happens(full)) {
      this.#fullUntil = this.#operations + this.#random.below(30);
    }
    disk.setFull(isSparse && this.#operations < this.#fullUntil);
    let undo: (() => void) | undefined;
    if (write > 0 && this.#happens(write)) {
      this.failedWrites += 1;
      undo = disk.failWrite({ offset, length: 1 });
    }
    const done = device.write(offset, sources);
    undo?.();
    disk.setFull(false);
    return done;
  }

  #sync(device: LowerDevice, disk: SimDisk, point: SyncPoint): Promise<void> {
    this.#operations += 1;
    if (this.#weather.sync > 0 && this.#happens(this.#weather.sync)) {
      this.failedSyncs += 1;
      const dropDirty = this.#random.chance(0.7);
      disk.failNextSync({ point, dropDirty, evict: this.#random.chance(0.5) });
    }
    return device.sync(point);
  }
}
