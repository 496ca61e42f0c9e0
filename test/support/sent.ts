/** Two small simulated volumes, and what goes from one to the other. */
import { BLOCK_BYTES, byteCount } from '../../src/base/units.ts';
import { LocalPast } from '../../src/control/past.ts';
import { receiveAll } from '../../src/control/receive.ts';
import { withSending, type SendQuery } from '../../src/control/send.ts';
import type { ReceiveReport } from '../../src/volume/report.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import type { SimDisk } from '../sim/sim-disk.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';

export interface Pair {
  readonly origin: Volume;
  readonly copy: Volume;
  /** The checksums of the copy's final storage. */
  readonly copySums: SimDisk;
  /** Both are closed and opened again. */
  reopened(): Promise<void>;
}

class OpenPair implements Pair {
  readonly #sims: readonly [SimVolume, SimVolume];
  #open: readonly [Volume, Volume];

  constructor(sims: readonly [SimVolume, SimVolume], open: readonly [Volume, Volume]) {
    this.#sims = sims;
    this.#open = open;
  }

  get origin(): Volume {
    return this.#open[0];
  }

  get copy(): Volume {
    return this.#open[1];
  }

  get copySums(): SimDisk {
    return this.#sims[1].sums;
  }

  async reopened(): Promise<void> {
    for (const volume of this.#open) await volume.close();
    const { life } = this.#sims[0].power;
    this.#open = [await this.#sims[0].open(life), await this.#sims[1].open(life)];
  }
}

interface PairSize {
  /** Of each disk. */
  readonly blocks?: number;
  /** Of the copy's log. */
  readonly slots?: number;
}

/** Runs `work` in a world of its own. */
export async function withPair(
  work: (pair: Pair) => Promise<void>,
  { blocks = 32, slots = 30 }: PairSize = {},
): Promise<void> {
  const world = new SimWorld(7);
  const power = new PowerSupply(world);
  await world.run(async () => {
    const size = byteCount(blocks * BLOCK_BYTES);
    const sims = [
      new SimVolume(power, { size, slots: Math.max(30, blocks / 10) }),
      new SimVolume(power, { size, slots }),
    ] as const;
    for (const sim of sims) await sim.format(power.life);
    const open = [await sims[0].open(power.life), await sims[1].open(power.life)] as const;
    await work(new OpenPair(sims, open));
  });
}

/** A whole stream. */
export async function streamOf(origin: Volume, query: Partial<SendQuery> = {}): Promise<Buffer> {
  const all: SendQuery = { to: undefined, from: undefined, token: undefined, ...query };
  const parts: Uint8Array[] = [];
  await withSending(new LocalPast(origin), all, async (sending) => {
    for await (const bytes of sending.bytes(() => undefined)) parts.push(bytes);
  });
  return Buffer.concat(parts);
}

export async function take(copy: Volume, stream: Uint8Array): Promise<ReceiveReport> {
  async function* chunks(): AsyncGenerator<Uint8Array, void> {
    for (let at = 0; at < stream.length; at += 5000) yield stream.subarray(at, at + 5000);
  }
  return await receiveAll(copy, chunks(), () => undefined);
}
