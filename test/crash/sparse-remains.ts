/**
 * Cuts that leave next to nothing of what was not synced: of a slot a summary alone, or a header, or
 * one batch in its middle. The slot is used again, not to its end, and the same happens once more. A
 * cut may leave any part of what was not synced, and those that a disk draws by itself seldom leave
 * so little.
 */
import { assert } from '../../src/base/assert.ts';
import { BLOCK_BYTES, byteCount, byteOffset, kibibytes, slot } from '../../src/base/units.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { slotOffset } from '../../log/geometry.ts';
import { needSame } from '../model/same-blocks.ts';
import { VolumeModel } from '../model/volume-model.ts';
import type { Platter } from '../sim/platter.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import type { SeededRandom } from '../sim/random.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';
import type { OneSeed } from './one-seed.ts';

const BLOCKS = 24;
const SEGMENT = kibibytes(32);
const LIVES = 8;

class SparseRemains {
  readonly #random: SeededRandom;
  readonly #power: PowerSupply;
  readonly #sim: SimVolume;
  readonly #model = new VolumeModel(BLOCKS * BLOCK_BYTES);
  readonly #onStep: (() => void) | undefined;
  #flushed = 0;
  /** The log, and how often it was synced, when nothing was in doubt. */
  #before: { readonly platter: Platter; readonly syncs: number } | undefined;

  constructor({ seed, onStep }: OneSeed) {
    this.#onStep = onStep;
    this.#power = new PowerSupply(new SimWorld(seed));
    this.#random = this.#power.world.random.fork('sparse-remains');
    this.#sim = new SimVolume(this.#power, {
      size: byteCount(this.#model.size),
      segmentBytes: SEGMENT,
      slots: this.#random.between(9, 14),
      requestBytesMax: byteCount(2 * BLOCK_BYTES),
      ringBytes: kibibytes(256),
    });
  }

  async run(): Promise<void> {
    const { world } = this.#power;
    await world.run(() => this.#sim.format(this.#power.life));
    for (let life = 0; life < LIVES; life++) {
      await world.run(async () => {
        const volume = await this.#sim.open(this.#power.life);
        await this.#look(volume);
        await this.#work(volume);
      });
      this.#cut();
    }
    await world.run(async () => {
      const volume = await this.#sim.open(this.#power.life);
      await this.#look(volume);
      volume.core.check();
      await volume.close();
    });
  }

  async #look(volume: Volume): Promise<void> {
    const { head } = volume.core;
    assert(head >= this.#flushed, 'what was flushed is there');
    assert(head <= this.#model.head, 'nothing is there that was not written');
    this.#model.cut(head);
    const got = new Uint8Array(this.#model.size);
    await volume.live().read(byteOffset(0), got);
    needSame(got, this.#model, head, 'the disk');
  }

  async #work(volume: Volume): Promise<void> {
    const random = this.#random;
    for (let left = random.below(4); left > 0; left--) await this.#write(volume, false);
    await this.#write(volume, true);
    this.#flushed = this.#model.head;
    const { platter, counters } = this.#sim.log;
    this.#before = { platter: platter.clone(), syncs: counters.syncs };
    // From nothing to two segments.
    for (let left = random.below(20); left > 0; left--) await this.#write(volume, false);
    // Until all of it is written, and before it is synced of itself.
    await this.#power.world.sleep(random.pick([200, 2000, 4000]));
  }

  async #write(volume: Volume, fua: boolean): Promise<void> {
    this.#onStep?.();
    const block = this.#random.below(BLOCKS);
    const content = this.#random.bytes(BLOCK_BYTES);
    this.#model.write(block * BLOCK_BYTES, content);
    await volume.live().write(byteOffset(block * BLOCK_BYTES), content, { fua });
  }

  /** Of what was written to the log since: most blocks are what they were before. */
  #cut(): void {
    const random = this.#random;
    const { log } = this.#sim;
    const after = log.platter.clone();
    const before = this.#before;
    this.#power.cut();
    this.#power.restore();
    if (before === undefined || log.counters.syncs !== before.syncs) return;
    const keep = random.pick([0, 0, 0.05, 0.3]);
    const keepSummary = random.pick([0, 1]);
    const [was, is] = [new Uint8Array(BLOCK_BYTES), new Uint8Array(BLOCK_BYTES)];
    for (let at = 0; at + BLOCK_BYTES <= log.size; at += BLOCK_BYTES) {
      before.platter.read(at, was);
      after.read(at, is);
      if (Buffer.compare(was, is) === 0) continue;
      const isKept = random.chance(this.#isSummary(at) ? keepSummary : keep);
      log.corrupt(at, isKept ? is.slice() : was.slice());
    }
  }

  /** The last blocks of a slot. */
  #isSummary(at: number): boolean {
    const inside = at - slotOffset(this.#sim.geometry, slot(0));
    return inside >= 0 && inside % SEGMENT >= SEGMENT - 2 * BLOCK_BYTES;
  }
}

export async function runSparseRemains(options: OneSeed): Promise<void> {
  await new SparseRemains(options).run();
}
