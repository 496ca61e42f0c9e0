/** A small volume on three disks that forget, for tests of the whole data path. */
import { newUuid, type Uuid } from '../../src/base/identity.ts';
import { byteCount, kibibytes, type ByteCount } from '../../src/base/units.ts';
import type { World } from '../../src/base/world.ts';
import type { SyncPoint } from '../../src/device/lower-device.ts';
import { finalBytes, sumsBytes, type VolumeDevices } from '../../src/volume/devices.ts';
import { formatVolume } from '../../src/volume/format-volume.ts';
import type { BaseDisk } from '../../src/volume/base-disk.ts';
import type { BaseOptions } from '../../src/volume/final-storage.ts';
import { Volume, type VolumeOptions } from '../../src/volume/volume.ts';
import { planGeometry, type LogGeometry } from '../../log/geometry.ts';
import type { PowerSupply } from './power-supply.ts';
import { SimDisk } from './sim-disk.ts';

export interface SimVolumeOptions {
  readonly size?: ByteCount;
  readonly slots?: number;
  readonly segmentBytes?: ByteCount;
  readonly requestBytesMax?: ByteCount;
  readonly ringBytes?: ByteCount;
  readonly undoBytes?: ByteCount;
  readonly skipSyncs?: ReadonlySet<SyncPoint>;
  readonly base?: BaseDisk | undefined;
}

export class SimVolume {
  readonly power: PowerSupply;
  readonly uuid: Uuid;
  readonly geometry: LogGeometry;
  readonly log: SimDisk;
  readonly final: SimDisk;
  readonly sums: SimDisk;
  readonly undo: SimDisk;
  readonly #ringBytes: ByteCount;
  readonly #base: BaseDisk | undefined;
  /** What volume.json would say of it: whole, being copied, or not needed any more. */
  baseState: 'base' | 'copying' | 'copied' = 'base';

  constructor(power: PowerSupply, options: SimVolumeOptions = {}) {
    this.power = power;
    this.#base = options.base;
    const size = options.size ?? kibibytes(384);
    const segmentBytes = options.segmentBytes ?? kibibytes(64);
    const requestBytesMax = options.requestBytesMax ?? kibibytes(64);
    const logSize = byteCount((options.slots ?? 12) * segmentBytes + kibibytes(96));
    this.#ringBytes = options.ringBytes ?? kibibytes(192);
    this.uuid = newUuid(power.world.random);
    this.geometry = planGeometry({ size, logSize, segmentBytes, requestBytesMax });
    const skipSyncs = options.skipSyncs ?? new Set<SyncPoint>();
    this.log = SimDisk.create(power, { name: 'log', size: logSize, skipSyncs });
    this.final = SimDisk.create(power, { name: 'final', size: finalBytes(size), skipSyncs });
    this.sums = SimDisk.create(power, { name: 'sums', size: sumsBytes(size), skipSyncs });
    const undoBytes = options.undoBytes ?? byteCount(kibibytes(64) + 64 * segmentBytes);
    this.undo = SimDisk.create(power, { name: 'undo', size: undoBytes, skipSyncs });
  }

  devices(): VolumeDevices {
    return {
      log: this.log.reopen(),
      final: this.final.reopen(),
      sums: this.sums.reopen(),
      undo: this.undo.reopen(),
    };
  }

  async format(world: World): Promise<void> {
    const { uuid, geometry } = this;
    await formatVolume(this.devices(), { uuid, geometry }, world);
  }

  async open(world: World, options: Partial<VolumeOptions> = {}): Promise<Volume> {
    const all: VolumeOptions = {
      uuid: this.uuid,
      name: 'disk',
      size: this.geometry.size,
      ringBytes: this.#ringBytes,
      writeMode: 'back',
      readOnly: false,
      cacheBytes: kibibytes(64),
      base: this.#based(),
      hadBase: this.#base !== undefined,
      ...options,
    };
    return await Volume.open(this.devices(), all, world);
  }

  #based(): BaseOptions | undefined {
    if (this.#base === undefined || this.baseState === 'copied') return undefined;
    return { disk: this.#base, isCopied: this.baseState === 'copying', text: 'the base' };
  }
}
