/**
 * What outlives the handles of a simulated disk: its content, its faults planned and its counters.
 *
 * Invariant: a loss of power reaches first all handles, whose operations in flight may still
 * arrive, then the content, once.
 */
import { crc32c } from '../../src/base/crc32c.ts';
import type { SyncPoint } from '../../src/device/lower-device.ts';
import { DiskFaults } from './disk-faults.ts';
import type { Platter } from './platter.ts';
import type { Loss, PoweredPart, PowerSupply } from './power-supply.ts';
import type { SeededRandom } from './random.ts';

export interface Latency {
  readonly usMin: number;
  readonly usMax: number;
}

export interface SimDiskOptions {
  readonly name: string;
  /** Bytes. Sparse: what was never written costs nothing. */
  readonly size: number;
  /** These syncs claim success and do nothing. */
  readonly skipSyncs?: ReadonlySet<SyncPoint>;
  /** Of reads, writes and punches; 1 to 60 us if not given. */
  readonly latency?: Latency;
  /** Of syncs; 5 to 200 us if not given. */
  readonly syncLatency?: Latency;
}

export interface DiskCounters {
  reads: number;
  writes: number;
  punches: number;
  syncs: number;
  bytesRead: number;
  bytesWritten: number;
  bytesPunched: number;
  /** Writes that began while another one to the same bytes was in flight: their order is open. */
  overlaps: number;
  readonly syncsBy: Map<SyncPoint, number>;
}

export interface Handle {
  abandon(loss: Loss): void;
}

const LATENCY: Latency = { usMin: 1, usMax: 60 };
const SYNC_LATENCY: Latency = { usMin: 5, usMax: 200 };

export class Medium implements PoweredPart {
  readonly power: PowerSupply;
  readonly options: SimDiskOptions;
  readonly platter: Platter;
  readonly random: SeededRandom;
  readonly faults = new DiskFaults();
  readonly counters: DiskCounters = {
    reads: 0,
    writes: 0,
    punches: 0,
    syncs: 0,
    bytesRead: 0,
    bytesWritten: 0,
    bytesPunched: 0,
    overlaps: 0,
    syncsBy: new Map(),
  };
  /** The disk's name in the digest. */
  readonly nameChecksum: number;
  readonly #handles = new Set<Handle>();

  constructor(power: PowerSupply, options: SimDiskOptions, platter: Platter) {
    this.power = power;
    this.options = options;
    this.platter = platter;
    this.random = power.world.fork(`disk ${options.name}`);
    this.nameChecksum = crc32c(Buffer.from(options.name));
    power.add(this);
  }

  addHandle(handle: Handle): void {
    this.#handles.add(handle);
  }

  latencyUs(kind: 'read' | 'write' | 'punch' | 'sync'): number {
    const { latency = LATENCY, syncLatency = SYNC_LATENCY } = this.options;
    const { usMin, usMax } = kind === 'sync' ? syncLatency : latency;
    return this.random.between(usMin, usMax) * this.faults.slowness;
  }

  lose(loss: Loss): void {
    for (const handle of this.#handles) handle.abandon(loss);
    this.#handles.clear();
    if (loss === 'cut') this.platter.powerCut(this.random);
    else this.platter.settleAll();
  }
}
