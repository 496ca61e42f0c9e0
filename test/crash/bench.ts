/** One simulated machine with one volume, for tests that tell a single story. */
import { isVarveError, type VarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteOffset, kibibytes } from '../../src/base/units.ts';
import type { BlockDevice } from '../../src/device/block-device.ts';
import type { LowerDevice } from '../../src/device/lower-device.ts';
import type { Volume, VolumeOptions } from '../../src/volume/volume.ts';
import { PowerSupply, type LifeEnd, type LossPlan } from '../sim/power-supply.ts';
import { SimVolume, type SimVolumeOptions } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';

/** Of an undo device without a slot: snapshots stop rounds as soon as they need something kept. */
export const NO_UNDO = kibibytes(64);

export class Bench {
  readonly world: SimWorld;
  readonly power: PowerSupply;
  readonly sim: SimVolume;

  private constructor(seed: number, options: SimVolumeOptions) {
    this.world = new SimWorld(seed);
    this.power = new PowerSupply(this.world);
    this.sim = new SimVolume(this.power, options);
  }

  static async create(seed: number, options: SimVolumeOptions = {}): Promise<Bench> {
    const bench = new Bench(seed, options);
    await bench.world.run(() => bench.sim.format(bench.power.life));
    return bench;
  }

  /** Opens, runs, closes in order. */
  async use<T>(work: (volume: Volume) => Promise<T>): Promise<T> {
    return await useVolume(this.sim, work);
  }

  /** Opens, runs, and the machine stops there. */
  async lose(loss: 'cut' | 'kill', work: (volume: Volume) => Promise<void>): Promise<void> {
    await this.world.run(async () => work(await this.sim.open(this.power.life)));
    this.#end(loss);
  }

  /** Opens and runs until `work` ends or what it planned happens; then the machine stops. */
  async untilLost(
    loss: 'cut' | 'kill',
    work: (volume: Volume, plan: (plan: LossPlan) => void) => Promise<void>,
  ): Promise<LifeEnd<void>> {
    const end = await this.power.runLife(async (life) => {
      const volume = await this.sim.open(life);
      await work(volume, (plan) => {
        this.power.plan(plan);
      });
    });
    this.#end(loss);
    return end;
  }

  /** The error with which the volume refuses to open. */
  async openError(): Promise<VarveError> {
    return await this.world.run(async () => {
      try {
        await this.sim.open(this.power.life);
      } catch (error) {
        if (isVarveError(error)) return error;
        throw error;
      }
      throw new Error('the volume opened');
    });
  }

  #end(loss: 'cut' | 'kill'): void {
    if (this.power.alive && loss === 'cut') this.power.cut();
    if (this.power.alive) this.power.kill();
    this.power.restore();
  }
}

/** `count` blocks of content that no other `value` gives. */
export function blocksOf(value: number, count = 1): Uint8Array {
  const bytes = new Uint8Array(count * BLOCK_BYTES);
  for (let i = 0; i < count; i++) {
    const words = new Uint32Array(bytes.buffer, i * BLOCK_BYTES, BLOCK_BYTES / 4);
    words.fill(value * 65_536 + i + 1);
  }
  return bytes;
}

export async function put(
  volume: Volume,
  block: number,
  content: Uint8Array,
  fua = false,
): Promise<void> {
  await volume.live().write(byteOffset(block * BLOCK_BYTES), content, { fua });
}

export async function get(device: BlockDevice, block: number, count = 1): Promise<Uint8Array> {
  const content = new Uint8Array(count * BLOCK_BYTES);
  await device.read(byteOffset(block * BLOCK_BYTES), content);
  return content;
}

/** Which of `choices` the blocks hold; -1 for none, which is never right. */
export async function holds(
  device: BlockDevice,
  block: number,
  choices: readonly Uint8Array[],
): Promise<number> {
  const got = await get(device, block, (choices[0]?.length ?? 0) / BLOCK_BYTES);
  return choices.findIndex((choice) => Buffer.compare(choice, got) === 0);
}

/** The codes with which single blocks fail, by block; blocks that read are left out. */
export async function unreadable(
  device: BlockDevice,
  first: number,
  count: number,
): Promise<ReadonlyMap<number, string>> {
  const failed = new Map<number, string>();
  for (let block = first; block < first + count; block++) {
    try {
      await get(device, block);
    } catch (error) {
      if (!isVarveError(error)) throw error;
      failed.set(block, `${error.code} ${error.errno}`);
    }
  }
  return failed;
}

/** Opens, runs, closes in order. */
export async function useVolume<T>(
  sim: SimVolume,
  work: (volume: Volume) => Promise<T>,
  options: Partial<VolumeOptions> = {},
): Promise<T> {
  const { world, life } = sim.power;
  return await world.run(async () => {
    const volume = await sim.open(life, options);
    const result = await work(volume);
    await volume.close();
    return result;
  });
}

/** Writes to some blocks over and over, until so many rounds more have come to their end. */
export async function pushRounds(
  volume: Volume,
  rounds: number,
  first = 40,
  count = 40,
): Promise<void> {
  const until = volume.core.counters.rounds + rounds;
  for (let i = 0; volume.core.counters.rounds < until; i++) {
    await put(volume, first + (i % count), blocksOf(1000 + i));
    if (i > 3000) throw new Error('no round comes to its end');
  }
}

/** The device, with `before` run ahead of each write. */
export function withWriteHook(
  device: LowerDevice,
  before: (offset: number, length: number) => Promise<void>,
): LowerDevice {
  return {
    name: device.name,
    size: device.size,
    read: (offset, target) => device.read(offset, target),
    write: async (offset, sources) => {
      await before(
        offset,
        sources.reduce((sum, source) => sum + source.length, 0),
      );
      await device.write(offset, sources);
    },
    punch: (offset, length) => device.punch(offset, length),
    sync: (point) => device.sync(point),
    allocated: () => device.allocated(),
    close: () => device.close(),
  };
}
