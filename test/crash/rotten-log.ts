/**
 * Lives of a small log between which one copy of the superblock rots, and payloads whose batches
 * something on the disk states to be durable. So no such batch is a torn tail, whatever the cuts took
 * behind it: the volume opens, has all that was flushed, and is right but for the versions that
 * rotted.
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError } from '../../src/base/errors.ts';
import {
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  kibibytes,
  slot as slotOf,
} from '../../src/base/units.ts';
import { SUPERBLOCK_BLOCKS } from '../../src/format/layouts.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { endOf } from '../../log/batch.ts';
import { slotOffset } from '../../log/geometry.ts';
import { decodeSegmentHeader } from '../../log/summary.ts';
import { decodeSuperblock, type Superblock } from '../../log/superblock.ts';
import { VolumeModel } from '../model/volume-model.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import type { SeededRandom } from '../sim/random.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';
import { batchesOn, dataOf, logBlock, type PlacedPayload } from './log-batches.ts';
import type { OneSeed } from './one-seed.ts';

const BLOCKS = 40;
const LIVES = 4;
/** Of a life; it ends somewhere before, or there. */
const WRITES = 60;
/** Where every third seed's never wait: slots are used again as soon as a round has freed them. */
const HASTY_WRITES = 250;
const WRITE_BLOCKS_MAX = 3;
/** Every seventh seed's fall silent now and then: something durable states by then what is durable. */
const SILENCE_US = 3_000_000;

class RottenLog {
  readonly #world: SimWorld;
  readonly #random: SeededRandom;
  readonly #power: PowerSupply;
  readonly #sim: SimVolume;
  readonly #model = new VolumeModel(BLOCKS * BLOCK_BYTES);
  readonly #onStep: (() => void) | undefined;
  readonly #isHasty: boolean;
  /** Syncs of the log fail now and then: what they left in doubt is written again elsewhere. */
  readonly #isTroubled: boolean;
  readonly #isSilent: boolean;
  /** Half of those write with FUA alone. */
  readonly #isFua: boolean;
  /** Was flushed before a silence. */
  #silent = 0;
  /** Versions that may be unreadable, as `block:generation`. */
  readonly #rotten = new Set<string>();
  /** Where the last batch ends of which something has rotted. */
  #rottenEnd = 0;
  #flushed = 0;
  rots = 0;

  constructor({ seed, onStep }: OneSeed) {
    this.#world = new SimWorld(seed);
    this.#random = this.#world.fork('rotten-log');
    this.#power = new PowerSupply(this.#world);
    this.#onStep = onStep;
    this.#isHasty = seed % 3 === 0;
    this.#isTroubled = seed % 3 === 1;
    this.#isSilent = seed % 7 === 0;
    this.#isFua = seed % 14 === 0;
    this.#sim = new SimVolume(this.#power, {
      size: byteCount(BLOCKS * BLOCK_BYTES),
      segmentBytes: kibibytes(32),
      slots: this.#random.between(8, 14),
      requestBytesMax: byteCount(WRITE_BLOCKS_MAX * BLOCK_BYTES),
      ringBytes: kibibytes(96),
    });
  }

  async run(): Promise<void> {
    const power = this.#power;
    const random = this.#random;
    await this.#world.run(() => this.#sim.format(power.life));
    for (let life = 0; life < LIVES; life++) {
      const loss = random.chance(0.8) ? 'cut' : 'kill';
      power.plan({ loss, afterOperations: 1 + random.below(this.#operationsMax) });
      const end = await power.runLife(async (machine) => {
        const volume = await this.#sim.open(machine);
        try {
          await this.#live(volume, () => machine.alive);
          await volume.close();
        } catch (error) {
          // It failed, and failed again elsewhere: the operator looks at the disk, and starts anew.
          if (!this.#isTroubled || !isVarveError(error, 'VOLUME_FAILED')) throw error;
        }
      });
      if (power.alive) power.cut();
      power.restore();
      this.#sim.log.faults.clear();
      this.#checkStated();
      // What a kill leaves in the page cache alone states nothing: a cut may take it.
      if (end.kind === 'lost' && end.loss === 'kill') continue;
      if (random.chance(this.#isHasty ? 0.5 : 0.3)) this.#rotSuperblock();
      for (let i = random.below(4); i > 0; i--) this.#rot();
    }
    await this.#world.run(async () => {
      const volume = await this.#sim.open(power.life);
      await this.#live(volume, () => false);
      await volume.close();
    });
  }

  get #operationsMax(): number {
    if (this.#isHasty) return 400;
    return this.#isSilent ? 600 : 150;
  }

  async #live(volume: Volume, isAlive: () => boolean): Promise<void> {
    const random = this.#random;
    const { head } = volume.core;
    assert(
      head >= this.#flushed,
      `generation ${this.#flushed} was flushed, and ${head} is the last`,
    );
    assert(head <= this.#model.head, 'nothing is there that was not written');
    this.#model.cut(head);
    this.#flushed = head;
    volume.core.check();
    await this.#compare(volume);
    for (let i = 0; i < (this.#isHasty ? HASTY_WRITES : WRITES) && isAlive(); i++) {
      this.#onStep?.();
      const count = random.between(1, WRITE_BLOCKS_MAX);
      const offset = byteOffset(random.below(BLOCKS - count) * BLOCK_BYTES);
      const content = random.bytes(count * BLOCK_BYTES);
      this.#model.write(offset, content);
      await volume.live().write(offset, content, { fua: this.#isFua });
      if (this.#isHasty) continue;
      if (this.#isTroubled && random.chance(0.08)) {
        const [dropDirty, evict] = [random.chance(0.7), random.chance(0.5)];
        this.#sim.log.failNextSync({ dropDirty, evict });
      }
      if (random.chance(0.2)) await this.#world.sleep(random.below(10_000));
      if (!random.chance(0.4)) continue;
      const { head: written } = this.#model;
      if (!this.#isFua) await volume.live().flush();
      this.#flushed = written;
      if (!this.#isSilent || written % 5 !== 0) continue;
      await this.#world.sleep(SILENCE_US);
      this.#silent = written;
      if (random.chance(0.3)) this.#power.plan({ loss: 'cut', afterOperations: 1 });
    }
  }

  /** Else rot in it would pass for a torn tail. */
  #checkStated(): void {
    const { stated } = this.#stated();
    for (const { generation, endLsn } of batchesOn(this.#sim).flatMap(dataOf)) {
      if (generation > this.#silent) continue;
      assert(endLsn <= stated, `generation ${generation}, flushed long ago, is stated durable`);
    }
  }

  async #compare(volume: Volume): Promise<void> {
    const { head } = this.#model;
    const content = new Uint8Array(BLOCK_BYTES);
    for (let block = 0; block < BLOCKS; block++) {
      try {
        await volume.live().read(byteOffset(block * BLOCK_BYTES), content);
      } catch (error) {
        if (!isVarveError(error, 'BLOCK_CORRUPT')) throw error;
        const version = `${block}:${this.#model.generationAt(block, head)}`;
        assert(this.#rotten.has(version), `block ${block} is readable: its version did not rot`);
        continue;
      }
      const isRight = Buffer.compare(content, this.#model.blockAt(block, head)) === 0;
      assert(isRight, `block ${block} is as it was at generation ${head}`);
    }
  }

  /** Mostly the newer one; where both are whole: a cut may have torn one, and needs the other. */
  #rotSuperblock(): void {
    const [one, other] = this.#superblocks();
    if (one === undefined || other === undefined) return;
    const isFirst = this.#random.chance(0.8) === one.sequence > other.sequence;
    const place = SUPERBLOCK_BLOCKS[isFirst ? 0 : 1] * BLOCK_BYTES;
    const [at, bit] = [place + this.#random.between(12, 100), this.#random.below(8)];
    this.#sim.log.corruptBit(at, bit);
    // It may be all that states something durable that has rotted already.
    if (this.#stated().stated < this.#rottenEnd) this.#sim.log.corruptBit(at, bit);
  }

  #rot(): void {
    const { payloads, stated } = this.#stated();
    const random = this.#random;
    // The newest ones most of all.
    const back = random.chance(0.7) ? random.below(Math.min(8, payloads.length + 1)) : 0;
    const at = back > 0 ? payloads.length - back : random.below(payloads.length + 1);
    const payload = payloads[at];
    if (payload === undefined || stated === 0) return;
    this.#sim.log.corruptBit(payload.at + random.below(BLOCK_BYTES), random.below(8));
    this.#rotten.add(`${payload.block}:${payload.generation}`);
    this.#rottenEnd = Math.max(this.#rottenEnd, payload.endLsn);
    this.rots += 1;
  }

  /** Data of batches that something states to be durable, in the order in which it was written. */
  #stated(): { readonly payloads: readonly PlacedPayload[]; readonly stated: number } {
    const sim = this.#sim;
    const { geometry, uuid } = sim;
    const batches = batchesOn(sim);
    const slots = Array.from({ length: geometry.slotCount }, (_, i) =>
      slotOffset(geometry, slotOf(i)),
    );
    const stated = Math.max(
      ...this.#superblocks().map((one) => one?.durableLsn ?? 0),
      ...slots.map((at) => decodeSegmentHeader(logBlock(sim, at), uuid)?.durableLsn ?? 0),
      ...batches.map(({ batch }) => batch.header.durableLsn),
    );
    const durable = batches.filter(({ batch }) => endOf(batch) <= stated);
    return { payloads: durable.flatMap(dataOf), stated };
  }

  #superblocks(): readonly (Superblock | undefined)[] {
    return SUPERBLOCK_BLOCKS.map((block) =>
      decodeSuperblock(logBlock(this.#sim, block * BLOCK_BYTES)),
    );
  }
}

/** @returns how many payloads rotted */
export async function runRottenLog(options: OneSeed): Promise<number> {
  const life = new RottenLog(options);
  await life.run();
  return life.rots;
}
