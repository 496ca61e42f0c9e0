/**
 * Bad places of a log that was closed in order, where nothing of it lies: behind its end, and in slots
 * that nobody uses. The opening does not need them, writers do not either, and what was there is there.
 */
import { BLOCK_BYTES, byteCount, byteOffset, kibibytes, slot } from '../../src/base/units.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { slotOffset } from '../../log/geometry.ts';
import { needSame } from '../model/same-blocks.ts';
import { VolumeModel } from '../model/volume-model.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import type { SeededRandom } from '../sim/random.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';
import type { OneSeed } from './one-seed.ts';

const BLOCKS = 32;
const LIVES = 5;

class ClosedLogs {
  readonly #random: SeededRandom;
  readonly #power: PowerSupply;
  readonly #sim: SimVolume;
  readonly #model = new VolumeModel(BLOCKS * BLOCK_BYTES);
  readonly #onStep: (() => void) | undefined;

  constructor({ seed, onStep }: OneSeed) {
    this.#onStep = onStep;
    this.#power = new PowerSupply(new SimWorld(seed));
    this.#random = this.#power.world.random.fork('closed-logs');
    this.#sim = new SimVolume(this.#power, {
      size: byteCount(this.#model.size),
      segmentBytes: kibibytes(32),
      slots: this.#random.between(7, 12),
      requestBytesMax: byteCount(2 * BLOCK_BYTES),
      ringBytes: kibibytes(64),
    });
  }

  async run(): Promise<void> {
    const { world } = this.#power;
    await world.run(() => this.#sim.format(this.#power.life));
    for (let life = 0; life < LIVES; life++) {
      let mend = (): void => undefined;
      await world.run(async () => {
        const volume = await this.#sim.open(this.#power.life);
        for (let left = this.#random.below(60); left > 0; left--) await this.#write(volume);
        await volume.close();
        mend = this.#sim.log.failRead({ offset: this.#unused(volume), length: BLOCK_BYTES });
      });
      for (const readOnly of [true, false]) await world.run(() => this.#look(readOnly));
      mend();
    }
  }

  async #look(readOnly: boolean): Promise<void> {
    const volume = await this.#sim.open(this.#power.life, { readOnly });
    const got = new Uint8Array(this.#model.size);
    await volume.live().read(byteOffset(0), got);
    needSame(got, this.#model, this.#model.head, 'the disk');
    await volume.close();
  }

  async #write(volume: Volume): Promise<void> {
    this.#onStep?.();
    const block = this.#random.below(BLOCKS);
    const content = this.#random.bytes(BLOCK_BYTES);
    this.#model.write(block * BLOCK_BYTES, content);
    const fua = this.#random.chance(0.2);
    await volume.live().write(byteOffset(block * BLOCK_BYTES), content, { fua });
  }

  /** A block of the log in which nothing is that counts. */
  #unused({ core: { log } }: Volume): number {
    const { geometry, random } = { geometry: this.#sim.geometry, random: this.#random };
    const { segments, superblock } = log;
    for (;;) {
      const number = slot(random.below(geometry.slotCount));
      const inside = random.below(geometry.segmentBytes / BLOCK_BYTES) * BLOCK_BYTES;
      const at = slotOffset(geometry, number) + inside;
      const used = segments.live.find((one) => one.slot === number);
      if (used === undefined) return at;
      const end = used.endLsn ?? superblock.durableLsn;
      const isLast = used === segments.newest;
      if (isLast && inside > BLOCK_BYTES + (end - used.firstLsn)) return at;
    }
  }
}

export async function runClosedLogs(options: OneSeed): Promise<void> {
  await new ClosedLogs(options).run();
}
