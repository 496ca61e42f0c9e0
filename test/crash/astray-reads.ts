/**
 * A device that answers single reads with what lies elsewhere, and is sound: one such read at an
 * opening, then one at each block that is read. Nothing on any disk is damaged, so nothing may be
 * refused, lost or wrong (laws 1 and 5), and the next opening finds what this one found.
 */
import { assert } from '../../src/base/assert.ts';
import { BLOCK_BYTES, byteCount, byteOffset, kibibytes } from '../../src/base/units.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { VolumeModel } from '../model/volume-model.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import type { SeededRandom } from '../sim/random.ts';
import type { SimDisk } from '../sim/sim-disk.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';
import type { OneSeed } from './one-seed.ts';

/** Their sums take three pages, so that a read of one can meet another. */
const BLOCKS = 600;
/** Blocks that are read of each opening. */
const SAMPLE = 60;
const REQUESTS_MAX = 150;
/** An opening of such a volume reads about so often. */
const OPENING_READS = 50;
/** So often it reads final storage, or its sums. */
const SMALL_DISK_READS = 3;

type Ending = 'close' | 'cut' | 'kill';

class AstrayReadsRun {
  readonly #random: SeededRandom;
  readonly #power: PowerSupply;
  readonly #sim: SimVolume;
  readonly #model = new VolumeModel(BLOCKS * BLOCK_BYTES);
  readonly #onStep: (() => void) | undefined;
  #flushed = 0;

  constructor({ seed, onStep }: OneSeed) {
    const world = new SimWorld(seed);
    this.#onStep = onStep;
    this.#random = world.fork('astray');
    this.#power = new PowerSupply(world);
    this.#sim = new SimVolume(this.#power, {
      size: byteCount(BLOCKS * BLOCK_BYTES),
      segmentBytes: kibibytes(32),
      slots: 14,
      requestBytesMax: byteCount(4 * BLOCK_BYTES),
      ringBytes: kibibytes(96),
    });
  }

  async run(): Promise<void> {
    const world = this.#power.world;
    await world.run(() => this.#sim.format(this.#power.life));
    for (let life = this.#random.between(1, 3); life > 0; life--) {
      const ending = this.#random.pick<Ending>(['close', 'cut', 'kill']);
      await this.#live(ending);
      await this.#openAstray(ending);
    }
    await this.#readAstray();
  }

  async #live(ending: Ending): Promise<void> {
    const random = this.#random;
    await this.#power.world.run(async () => {
      const writeMode = ending === 'kill' ? 'written' : 'back';
      const volume = await this.#sim.open(this.#power.life, { writeMode });
      for (let i = random.between(1, REQUESTS_MAX); i > 0; i--) await this.#request(volume);
      if (ending === 'close') await volume.close();
      // What was acknowledged in mode `written` is in the page cache.
      if (ending !== 'cut') this.#flushed = this.#model.head;
    });
    this.#end(ending === 'cut' ? 'cut' : 'kill');
  }

  #end(loss: 'cut' | 'kill'): void {
    if (loss === 'cut') this.#power.cut();
    else this.#power.kill();
    this.#power.restore();
  }

  async #request(volume: Volume): Promise<void> {
    this.#onStep?.();
    const random = this.#random;
    const count = random.between(1, 4);
    const offset = random.below(BLOCKS - count + 1) * BLOCK_BYTES;
    const bytes = random.bytes(count * BLOCK_BYTES);
    const fua = random.chance(0.1);
    this.#model.write(offset, bytes);
    await volume.live().write(byteOffset(offset), bytes, { fua });
    const isFlush = random.chance(0.1);
    if (isFlush) await volume.live().flush();
    if (fua || isFlush) this.#flushed = this.#model.head;
  }

  /** One read on the way goes astray; then the power fails, and the next opening is sound. */
  async #openAstray(ending: Ending): Promise<void> {
    const disk = this.#disk();
    const reads = disk === this.#sim.log ? OPENING_READS : SMALL_DISK_READS;
    const restore = this.#lieOnce(disk, this.#random.below(reads));
    const first = await this.#head(ending);
    restore();
    this.#end(this.#random.pick(['cut', 'kill'] as const));
    const second = await this.#head();
    this.#end('kill');
    assert(first === second, `openings agree: ${first}, then ${second}`);
    this.#model.cut(first);
    this.#flushed = first;
  }

  async #head(ending?: Ending): Promise<number> {
    return await this.#power.world.run(async () => {
      const volume = await this.#sim.open(this.#power.life);
      const { core } = volume;
      const { head } = core;
      const least = this.#flushed;
      assert(head >= least, `what was flushed is there: ${head} of ${least}`);
      assert(head <= this.#model.head, 'nothing comes from nowhere');
      if (ending === 'close') assert(core.recovery.clean, 'what was closed opens clean');
      for (const block of this.#sample()) await this.#expectRight(volume, block, head);
      return head;
    });
  }

  async #readAstray(): Promise<void> {
    await this.#power.world.run(async () => {
      const volume = await this.#sim.open(this.#power.life);
      for (const block of this.#sample()) {
        this.#onStep?.();
        const restore = this.#lieOnce(this.#disk(), 0);
        await this.#expectRight(volume, block, this.#model.head);
        restore();
      }
      volume.core.check();
      await volume.close();
    });
  }

  async #expectRight(volume: Volume, block: number, generation: number): Promise<void> {
    const target = new Uint8Array(BLOCK_BYTES);
    await volume.live().read(byteOffset(block * BLOCK_BYTES), target);
    const right = this.#model.blockAt(block, generation);
    assert(Buffer.compare(target, right) === 0, `block ${block} is right`);
  }

  #sample(): readonly number[] {
    return Array.from({ length: SAMPLE }, () => this.#random.below(BLOCKS));
  }

  #disk(): SimDisk {
    const { log, final, sums } = this.#sim;
    return this.#random.pick([log, log, log, final, sums]);
  }

  /** @returns ends it, if no read has come that far */
  #lieOnce({ faults }: SimDisk, skipped: number): () => void {
    const random = this.#random;
    const shift = BLOCK_BYTES * random.pick([-9, -3, -1, 1, 2, 8, 16]);
    const before = faults.takeReadLie.bind(faults);
    let left = skipped;
    faults.takeReadLie = () => {
      left -= 1;
      return left === -1 ? { shift, told: () => undefined } : before();
    };
    return () => {
      faults.takeReadLie = before;
    };
  }
}

export async function runAstrayReads(options: OneSeed): Promise<void> {
  await new AstrayReadsRun(options).run();
}
