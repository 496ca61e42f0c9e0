/**
 * What lies on the devices is changed behind a volume's back: bits, whole blocks put elsewhere or
 * back to what they were, a superblock, sectors of checksums, all of an older image. Laws 5 and 1:
 * every byte that is served afterwards is right, or its block says so; history that was durable is
 * there, or the volume is refused; and no more is lost than what was hit.
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError, type ErrorCode } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount, byteOffset, kibibytes, slot } from '../../src/base/units.ts';
import {
  BATCH_MAGIC,
  BATCH_PREFIX_BYTES,
  ENTRY_BYTES,
  SEGMENT_MAGIC,
  SUMS_ENTRIES,
  SUMS_SECTOR_BYTES,
  SUPERBLOCK_BLOCKS,
  batchHeader,
  superblock,
} from '../../src/format/layouts.ts';
import { offsetOf } from '../../src/format/record.ts';
import type { BlockDevice } from '../../src/device/block-device.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { slotOffset } from '../../log/geometry.ts';
import { VolumeModel } from '../model/volume-model.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import type { SeededRandom } from '../sim/random.ts';
import type { SimDisk } from '../sim/sim-disk.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';
import type { OneSeed } from './one-seed.ts';

/** Two pages of checksums, and a part of the third. */
const BLOCKS = 600;

/** What damage may cost. */
interface Harm {
  readonly what: string;
  /** Errors with which the volume may refuse to open. */
  readonly refusals: readonly ErrorCode[];
  /** Blocks that may answer EIO, now or after a round. */
  readonly blocksMax: number;
}

class DamageRun {
  readonly #random: SeededRandom;
  readonly #power: PowerSupply;
  readonly #sim: SimVolume;
  readonly #world: SimWorld;
  readonly #model = new VolumeModel(BLOCKS * BLOCK_BYTES);
  readonly #onStep: (() => void) | undefined;
  /** The last life ended without a close. */
  #isCut = false;

  constructor({ seed, onStep }: OneSeed) {
    this.#world = new SimWorld(seed);
    this.#power = new PowerSupply(this.#world);
    this.#random = this.#world.random.fork('damage');
    this.#onStep = onStep;
    this.#sim = new SimVolume(this.#power, {
      size: byteCount(BLOCKS * BLOCK_BYTES),
      slots: this.#random.pick([8, 12, 20]),
      requestBytesMax: kibibytes(64),
      ringBytes: kibibytes(this.#random.pick([192, 512])),
    });
  }

  async run(): Promise<void> {
    await this.#world.run(() => this.#sim.format(this.#power.life));
    await this.#life((volume) => this.#requests(volume, 20 + this.#random.below(120)));
    const older = [this.#sim.final, this.#sim.sums].map(contentOf);
    await this.#life((volume) => this.#requests(volume, 20 + this.#random.below(120)));
    const harm = this.#harm(older[0] ?? new Uint8Array(0), older[1] ?? new Uint8Array(0));
    if (!(await this.#opens(harm))) return;
    await this.#life(async (volume) => {
      // What a round takes home is checked before it is stamped.
      await this.#requests(volume, 60);
      await this.#readAll(volume, harm);
    });
    await this.#life((volume) => this.#readAll(volume, harm));
  }

  /** Opens, runs, closes; at times the power goes when all is durable. */
  async #life(work: (volume: Volume) => Promise<void>): Promise<void> {
    this.#isCut = this.#random.chance(0.3);
    await this.#world.run(async () => {
      const volume = await this.#sim.open(this.#power.life);
      assert(volume.core.head === this.#model.head, 'history that was durable is there');
      await work(volume);
      await volume.live().flush();
      // Long enough for a batch that states what is durable.
      if (this.#isCut) await this.#world.sleep(50_000);
      else await volume.close();
    });
    this.#power.cut();
    this.#power.restore();
  }

  /** @returns whether it can be used */
  async #opens(harm: Harm): Promise<boolean> {
    let isOpen = false;
    await this.#world.run(async () => {
      try {
        const volume = await this.#sim.open(this.#power.life);
        assert(volume.core.head === this.#model.head, `after ${harm.what} no history is cut off`);
        isOpen = true;
        await this.#readAll(volume, harm);
        await volume.close();
      } catch (error) {
        const isRefused = !isOpen && harm.refusals.some((code) => isVarveError(error, code));
        if (!isRefused) throw error;
      }
    });
    this.#power.cut();
    this.#power.restore();
    return isOpen;
  }

  /** Whole blocks: what can't be read would not be merged with. */
  async #requests(volume: Volume, count: number): Promise<void> {
    const random = this.#random;
    const live = volume.live();
    for (let i = 0; i < count; i++) {
      this.#onStep?.();
      const block = random.below(BLOCKS);
      const offset = byteOffset(block * BLOCK_BYTES);
      const kind = random.below(12);
      if (kind < 9) {
        const blocks = Math.min(BLOCKS - block, 1 + random.below(12));
        const content = random.bytes(blocks * BLOCK_BYTES);
        this.#model.write(offset, content);
        await live.write(offset, content, { fua: false });
        continue;
      }
      const most = random.chance(0.2) ? BLOCKS : 40;
      const blocks = Math.min(BLOCKS - block, 1 + random.below(most));
      const length = byteCount(blocks * BLOCK_BYTES);
      this.#model.trim(offset, length);
      const options = { fua: false, allocate: random.chance(0.3) };
      if (kind === 9) await live.zero(offset, length, options);
      else await live.trim(offset, length, options);
    }
  }

  #harm(olderFinal: Uint8Array, olderSums: Uint8Array): Harm {
    const random = this.#random;
    const { final, sums, log, geometry } = this.#sim;
    const block = random.below(BLOCKS);
    const at = block * BLOCK_BYTES;
    // The batch that states the last ones durable is written and not synced: where the power went,
    // rot in these can't be told from a torn tail. So rot of the log comes after a close.
    switch (random.below(this.#isCut ? 6 : 12)) {
      case 0:
        final.corruptBit(at + random.below(BLOCK_BYTES), random.below(8));
        return { what: 'a rotten bit of final storage', refusals: [], blocksMax: 1 };
      case 1: {
        const other = blockOf(contentOf(final), random.below(BLOCKS));
        final.corrupt(at, other);
        return { what: 'a misdirected write', refusals: ['VOLUME_FOREIGN'], blocksMax: 1 };
      }
      case 2:
        // One that a round wrote last is a witness that the image is older.
        final.corrupt(at, blockOf(olderFinal, block));
        return { what: 'a lost write', refusals: ['VOLUME_FOREIGN'], blocksMax: 1 };
      case 3:
        final.corrupt(0, olderFinal);
        if (random.chance(0.5)) sums.corrupt(0, olderSums);
        return { what: 'an older image', refusals: ['VOLUME_FOREIGN'], blocksMax: BLOCKS };
      case 4: {
        const sector = random.below(Math.ceil(BLOCKS / SUMS_ENTRIES));
        const byte = sector * SUMS_SECTOR_BYTES + random.below(SUMS_SECTOR_BYTES);
        sums.corruptBit(byte, random.below(8));
        return { what: 'a rotten sum', refusals: [], blocksMax: SUMS_ENTRIES };
      }
      case 5: {
        // The older copy: what the newer one states is all that counts.
        log.corrupt(this.#olderSuperblock(log) * BLOCK_BYTES, random.bytes(512));
        return { what: 'a lost superblock', refusals: [], blocksMax: 0 };
      }
      case 6: {
        const start = slotOffset(geometry, slot(random.below(geometry.slotCount)));
        log.corruptBit(start + random.below(geometry.segmentBytes), random.below(8));
        return { what: 'a rotten bit of the log', refusals: ['VOLUME_CORRUPT'], blocksMax: 1 };
      }
      case 7:
      case 8: {
        const header = this.#header(log);
        log.corruptBit(header + random.below(random.pick([96, 160, 512])), random.below(8));
        return { what: 'a rotten header of the log', refusals: ['VOLUME_CORRUPT'], blocksMax: 1 };
      }
      case 9:
      case 10: {
        // The low bits of its block, its kind, or the low bits of what follows.
        const header = this.#header(log, true);
        const count = Buffer.alloc(2);
        log.platter.read(header + COUNT_OFFSET, count);
        const entry = BATCH_PREFIX_BYTES + random.below(count.readUInt16LE()) * ENTRY_BYTES;
        log.corruptBit(header + entry + random.pick([0, 0, 1, 6, 8]), random.below(8));
        return { what: 'a rotten entry of the log', refusals: ['VOLUME_CORRUPT'], blocksMax: 1 };
      }
      default: {
        const from = slotOffset(geometry, slot(0));
        const end = log.size - BLOCK_BYTES;
        const place = (): number => from + random.below((end - from) / BLOCK_BYTES) * BLOCK_BYTES;
        const other = new Uint8Array(BLOCK_BYTES);
        log.platter.read(place(), other);
        log.corrupt(place(), other);
        return {
          what: 'a block of the log in another place',
          refusals: ['VOLUME_CORRUPT'],
          blocksMax: 1,
        };
      }
    }
  }

  #olderSuperblock(log: SimDisk): number {
    const sequences = SUPERBLOCK_BLOCKS.map((place) => {
      const bytes = Buffer.alloc(512);
      log.platter.read(place * BLOCK_BYTES, bytes);
      return bytes.readBigUInt64LE(SEQUENCE_OFFSET);
    });
    const [first = 0n, second = 0n] = sequences;
    const isNext = first - second === 1n || second - first === 1n;
    assert(isNext, 'superblocks are written in turn, so that there are two good ones');
    return first < second ? SUPERBLOCK_BLOCKS[0] : SUPERBLOCK_BLOCKS[1];
  }

  /**
   * Where a header of a segment or batch lies: often one of the newest, which no summary lists.
   * @param hasEntries - it is that of a batch that holds something
   */
  #header(log: SimDisk, hasEntries = false): number {
    const bytes = contentOf(log);
    const view = Buffer.from(bytes.buffer);
    const places: { readonly at: number; readonly lsn: bigint }[] = [];
    const from = slotOffset(this.#sim.geometry, slot(0));
    for (let at: number = from; at + BLOCK_BYTES <= bytes.length; at += BLOCK_BYTES) {
      const magic = view.toString('latin1', at, at + 8);
      if (magic === SEGMENT_MAGIC && !hasEntries) places.push({ at, lsn: -1n });
      if (magic !== BATCH_MAGIC) continue;
      if (hasEntries && view.readUInt16LE(at + COUNT_OFFSET) === 0) continue;
      places.push({ at, lsn: view.readBigUInt64LE(at + LSN_OFFSET) });
    }
    places.sort((one, other) => (one.lsn < other.lsn ? -1 : 1));
    const chosen = this.#random.chance(0.6) ? places.slice(hasEntries ? -1 : -4) : places;
    return this.#random.pick(chosen).at;
  }

  /** The newest state, and one moment of the window. */
  async #readAll(volume: Volume, harm: Harm): Promise<void> {
    const { core } = volume;
    const bad = await this.#badBlocks(volume.live(), core.head);
    assert(bad <= harm.blocksMax, `${harm.what} costs ${bad} blocks, at most ${harm.blocksMax}`);
    const { generation: horizon } = core.horizon;
    const generation = horizon + this.#random.below(core.head - horizon + 1);
    const device = volume.openMoment(await volume.resolve(`gen=${generation}`));
    try {
      await this.#badBlocks(device, generation);
    } finally {
      await device.close();
    }
  }

  /** @returns how many answer EIO; all others are right */
  async #badBlocks(device: BlockDevice, generation: number): Promise<number> {
    const step = 8;
    let bad = 0;
    for (let block = 0; block < BLOCKS; block += step) {
      const count = Math.min(step, BLOCKS - block);
      if (await this.#isRight(device, block, count, generation)) continue;
      for (let one = block; one < block + count; one++) {
        if (!(await this.#isRight(device, one, 1, generation))) bad += 1;
      }
    }
    return bad;
  }

  async #isRight(
    device: BlockDevice,
    block: number,
    count: number,
    generation: number,
  ): Promise<boolean> {
    const got = new Uint8Array(count * BLOCK_BYTES);
    try {
      await device.read(byteOffset(block * BLOCK_BYTES), got);
    } catch (error) {
      if (isVarveError(error, 'BLOCK_CORRUPT')) return false;
      // While rounds go on, the window may pass the moment by.
      if (isVarveError(error, 'MOMENT_GONE')) return true;
      throw error;
    }
    const expected = this.#model.bytesAt(block * BLOCK_BYTES, got.length, generation);
    const isSame = Buffer.compare(got, expected) === 0;
    assert(isSame, `blocks ${block} to ${block + count - 1} are those of ${generation}, or EIO`);
    return true;
  }
}

const SEQUENCE_OFFSET = offsetOf(superblock, 'sequence');
const COUNT_OFFSET = offsetOf(batchHeader, 'entry_count');
const LSN_OFFSET = offsetOf(batchHeader, 'lsn');

function contentOf(disk: SimDisk): Uint8Array {
  const bytes = new Uint8Array(disk.size);
  disk.platter.read(0, bytes);
  return bytes;
}

function blockOf(content: Uint8Array, block: number): Uint8Array {
  return content.slice(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
}

export async function runDamage(options: OneSeed): Promise<void> {
  await new DamageRun(options).run();
}
