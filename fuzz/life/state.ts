/** What lasts over all lives of one run: the machine, the model, and what clients were told. */
import { byteCount, kibibytes } from '../../src/base/units.ts';
import { VolumeModel } from '../../test/model/volume-model.ts';
import { PowerSupply } from '../../test/sim/power-supply.ts';
import type { SeededRandom } from '../../test/sim/random.ts';
import { SimVolume } from '../../test/sim/sim-volume.ts';
import { SimWorld } from '../../test/sim/sim-world.ts';
import { Faults } from './faults.ts';
import { Oracle } from './oracle.ts';
import { Requests } from './requests.ts';
import type { Script } from './steps.ts';

/** Events of one life; a wait that never ends is found after so many. */
const EVENTS_MAX = 3_000_000;

/** For who outlives its machine: it does nothing more. */
export async function never(): Promise<void> {
  await new Promise<void>(() => {
    // Nobody is left to end it.
  });
}

export class RunState {
  readonly script: Script;
  readonly world: SimWorld;
  readonly power: PowerSupply;
  readonly sim: SimVolume;
  readonly random: SeededRandom;
  readonly model: VolumeModel;
  readonly oracle: Oracle;
  readonly requests: Requests;
  readonly faults: Faults;
  /** Label to generation. */
  readonly snapshots = new Map<string, number>();
  /** Labels whose creation or deletion had no answer. */
  readonly unsure = new Set<string>();
  readonly counts: Record<string, number> = {};
  /** Newest generation that a flush, FUA, snapshot or close has promised. */
  durable = 0;
  labels = 0;
  /** The last opening was closed, and the close answered. */
  closed = false;

  constructor(script: Script) {
    this.script = script;
    this.world = new SimWorld(script.seed, { stepsMax: EVENTS_MAX });
    this.power = new PowerSupply(this.world);
    this.random = this.world.random.fork('life');
    const size = byteCount(script.blocks * 4096 - script.short);
    this.sim = new SimVolume(this.power, {
      size,
      slots: script.slots,
      segmentBytes: kibibytes(script.segmentKib),
      requestBytesMax: kibibytes(24),
      ringBytes: kibibytes(script.ringKib),
    });
    this.model = new VolumeModel(size);
    this.oracle = new Oracle(this.model);
    this.requests = new Requests(this.model);
    const { world, sim, oracle } = this;
    const random = this.world.random.fork('faults');
    this.faults = new Faults({ world, sim, oracle, random, liar: script.liar });
  }

  count(what: string, by = 1): void {
    this.counts[what] = (this.counts[what] ?? 0) + by;
  }

  promise(generation: number): void {
    this.durable = Math.max(this.durable, generation);
  }

  /** Bytes of a request that begins at a part of 10,000 of the volume, kept inside of it. */
  place(at: number, length: number): { readonly offset: number; readonly length: number } {
    const { size } = this.model;
    const byte = Math.floor((at / 10_000) * size);
    // Whole blocks stay on blocks, as file systems ask.
    const offset = length % 4096 === 0 ? byte - (byte % 4096) : byte;
    return { offset, length: Math.min(length, size - offset) };
  }
}
