/** Before-images on a disk that forgets: what was synced is found, whole, after any cut. */
import { describe, expect, it } from 'vitest';
import { crc32c } from '../../src/base/crc32c.ts';
import { newUuid } from '../../src/base/identity.ts';
import {
  block as blockOf,
  BLOCK_BYTES,
  blockCount,
  byteCount,
  byteOffset,
  generation as generationOf,
  kibibytes,
  micros,
} from '../../src/base/units.ts';
import { bindChecksum, volumeSeed } from '../../src/format/block-checksum.ts';
import { IMAGES_MAX, type BeforeImage } from '../../log/before-image.ts';
import { UndoLog, type StatedImage } from '../../log/undo-log.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import { SimDisk } from '../sim/sim-disk.ts';
import { SimWorld } from '../sim/sim-world.ts';

const BLOCKS = 40;
const SEGMENT_BYTES = kibibytes(192);
const SLOTS = 32;

class Run {
  readonly world: SimWorld;
  readonly power: PowerSupply;
  readonly disk: SimDisk;
  readonly volume;
  stated: [number, BeforeImage][] = [];
  undo!: UndoLog;
  /** What was put and synced, and what was put since. */
  known: StatedImage[] = [];
  maybe: StatedImage[] = [];
  /** What was put and not synced before a cut. */
  doubtful: StatedImage[] = [];
  /** As a superblock would have it. */
  slotsUsed = 0;
  horizon = generationOf(2 ** 40);
  cacheBytes = 200;
  #now = 1;
  readonly #since: number[] = Array.from({ length: BLOCKS }, () => 0);

  constructor(seed: number) {
    this.world = new SimWorld(seed);
    this.power = new PowerSupply(this.world);
    const size = byteCount(kibibytes(64) + SLOTS * SEGMENT_BYTES);
    this.volume = newUuid(this.world.random);
    this.disk = SimDisk.create(this.power, { name: 'undo', size, skipSyncs: new Set() });
  }

  async open(): Promise<void> {
    this.stated = [];
    this.undo = await UndoLog.open(this.disk.reopen(), {
      volume: this.volume,
      segmentBytes: SEGMENT_BYTES,
      cacheBytes: byteCount(this.cacheBytes),
      opening: this.world.random.below(2 ** 40),
      slotsUsed: this.slotsUsed,
      horizon: () => this.horizon,
      now: () => ({ wallUs: micros(1), elapsedUs: micros(1) }),
      onImage: (segment, image) => this.stated.push([segment, image]),
      onSync: () => undefined,
    });
    this.undo.check();
  }

  /** Images of some blocks, in order, as a round would put them. */
  batch(): StatedImage[] {
    const { random } = this.world;
    const until = generationOf((this.#now += 1 + random.below(3)));
    const out: StatedImage[] = [];
    for (let at = random.below(8); at < BLOCKS && out.length < IMAGES_MAX;) {
      const from = generationOf(this.#since[at] ?? 0);
      const isZero = random.chance(0.3);
      let count = 1;
      if (isZero) while (this.#since[at + count] === from && count < 5) count += 1;
      for (let i = 0; i < count; i++) this.#since[at + i] = until;
      const content = isZero ? undefined : random.bytes(BLOCK_BYTES);
      const checksum = content && bindChecksum(crc32c(content), volumeSeed(this.volume), at, from);
      const image = { block: blockOf(at), count: blockCount(count), from, until, checksum };
      out.push({ image, content });
      at += count + random.below(6);
    }
    return out;
  }

  get now(): number {
    return this.#now;
  }

  async compare(): Promise<void> {
    const { random } = this.world;
    for (let i = 0; i < 12; i++) {
      const pin = generationOf(random.below(this.#now + 1));
      const first = blockOf(random.below(BLOCKS));
      const count = 1 + random.below(BLOCKS - first);
      const { copies: found } = await this.undo.images.find(first, count, pin);
      for (let block: number = first; block < first + count; block++) {
        const sees = ({ image }: StatedImage): boolean =>
          image.block <= block &&
          block < image.block + image.count &&
          image.from <= pin &&
          pin < image.until;
        const sure = Math.min(...this.known.filter(sees).map(({ image }) => image.until));
        const [best] = found[block - first] ?? [];
        if (best === undefined) {
          expect(sure).toBe(Infinity);
          continue;
        }
        expect(best.image.until).toBeLessThanOrEqual(sure);
        const right = [...this.known, ...this.maybe, ...this.doubtful].find(
          (one) => sees(one) && one.image.until === best.image.until,
        );
        expect(best.image).toEqual(right?.image);
        const content = await this.undo.images.read(best, blockOf(block));
        if (content === undefined) expect(best.image.until).toBeLessThan(sure);
        else expect(Buffer.compare(content, right?.content ?? new Uint8Array(BLOCK_BYTES))).toBe(0);
      }
    }
  }
}

describe('the undo device', () => {
  it.each(Array.from({ length: 12 }, (_, seed) => seed))('seed %i', async (seed) => {
    const run = new Run(seed);
    const { world, power } = run;
    await world.run(() => run.open());
    for (let life = 0; life < 4; life++) {
      await world.run(async () => {
        for (let step = 0; step < 15; step++) {
          const batch = run.batch();
          await run.undo.put(batch, generationOf(run.now));
          run.maybe.push(...batch);
          if (world.random.chance(0.6)) {
            await run.undo.sync();
            run.slotsUsed = run.undo.slotsUsed;
            run.known.push(...run.maybe.splice(0));
          }
          await run.compare();
        }
        run.undo.check();
      });
      power.cut();
      power.restore();
      run.doubtful.push(...run.maybe.splice(0));
      await world.run(async () => {
        await run.open();
        await run.compare();
      });
      const count = run.stated.length;
      expect(count).toBeGreaterThanOrEqual(run.known.length);
      expect(count).toBeLessThanOrEqual(run.known.length + run.doubtful.length);
    }
  });

  it('gives a slot back, and takes nothing in it for an image any more', async () => {
    const run = new Run(99);
    await run.world.run(async () => {
      await run.open();
      while (run.undo.segments.size < 3) await run.undo.put(run.batch(), generationOf(run.now));
      await run.undo.sync();
      run.slotsUsed = run.undo.slotsUsed;
      const before = run.undo.freeSlots;
      const [oldest] = run.undo.segments.keys();
      if (oldest === undefined) throw new Error('a segment is there');
      await run.undo.free(oldest);
      expect(run.undo.freeSlots).toBe(before + 1);
      const left = run.stated.filter(([segment]) => segment !== oldest);
      await run.open();
      expect(run.stated).toEqual(left);
    });
  });

  it('is full when no slot is free, and says so', async () => {
    const run = new Run(7);
    await run.world.run(async () => {
      await run.open();
      const fill = async (): Promise<void> => {
        for (let i = 0; i < 10_000; i++) await run.undo.put(run.batch(), generationOf(run.now));
      };
      await expect(fill()).rejects.toMatchObject({ code: 'UNDO_FULL' });
      run.undo.check();
    });
  });

  // A slow read of its header came back when the slot was another segment's, and stood for that.
  it('does not take a freed segment for the one that has its slot now', async () => {
    const run = new Run(4);
    run.cacheBytes = 1e6;
    await run.world.run(async () => {
      await run.open();
      const { undo } = run;
      const [one, other] = [run.batch(), run.batch()];
      const [image, later] = [one[0]?.image, other[0]?.image];
      if (image === undefined || later === undefined) throw new Error('there is one in each');
      await undo.put(one, generationOf(run.now));
      const [segment] = undo.segments.keys();
      if (segment === undefined) throw new Error('a segment is there');
      const slow = undo.images.find(image.block, 1, image.from);
      await undo.free(segment);
      await undo.put(other, generationOf(run.now));
      await slow;
      const [found = []] = (await undo.images.find(later.block, 1, later.from)).copies;
      expect(found.map((copy) => copy.image)).toEqual([later]);
    });
  });

  it('passes over what the horizon has not passed, now and at the next opening', async () => {
    const run = new Run(5);
    await run.world.run(async () => {
      await run.open();
      const batch = run.batch();
      const [one] = batch;
      if (one === undefined) throw new Error('there is one');
      const { block, from, until } = one.image;
      await run.undo.put(batch, generationOf(run.now));
      await run.undo.sync();
      run.slotsUsed = run.undo.slotsUsed;
      run.horizon = generationOf(until - 1);
      expect((await run.undo.images.find(block, 1, from)).copies).toEqual([[]]);
      await run.open();
      expect(run.stated).toEqual([]);
      run.horizon = generationOf(2 ** 40);
      await run.open();
      expect(run.stated).toHaveLength(batch.length);
    });
  });

  it('reads the newer of two equal images, and the older one when that is damaged', async () => {
    const run = new Run(3);
    await run.world.run(async () => {
      await run.open();
      const batch = run.batch().filter(({ content }) => content !== undefined);
      const [one] = batch;
      if (one === undefined) throw new Error('there is an image with data');
      await run.undo.put([one], generationOf(run.now));
      run.slotsUsed = run.undo.slotsUsed;
      await run.open();
      await run.undo.put([one], generationOf(run.now));
      const { block, from } = one.image;
      const [copies = []] = (await run.undo.images.find(block, 1, from)).copies;
      expect(copies).toHaveLength(2);
      const [newer, older] = copies;
      if (newer === undefined || older === undefined) throw new Error('there are two');
      expect(newer.segment).toBeGreaterThan(older.segment);
      run.disk.corrupt(byteOffset(newer.place), new Uint8Array(BLOCK_BYTES));
      expect(await run.undo.images.read(newer, block)).toBeUndefined();
      expect(await run.undo.images.read(older, block)).toEqual(one.content);
    });
  });
});
