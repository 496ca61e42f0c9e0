/**
 * Lives of a volume whose flatten gets into trouble: syncs fail while the page cache goes on to show
 * what they dropped, the process is killed or the power cut, and it is begun again, once or more often.
 * Once it has told of success nothing may rest on the base, nor on what no disk has.
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError, VarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount } from '../../src/base/units.ts';
import { copyBase } from '../../src/volume/flatten.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { MemoryBase } from '../support/memory-base.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import type { SeededRandom } from '../sim/random.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';
import { get, put } from './bench.ts';
import type { OneSeed } from './one-seed.ts';

/** A whole page of sums, and a part of one. */
const BLOCKS = 400;
const SIZE = byteCount(BLOCKS * BLOCK_BYTES);
const LIVES = 5;
const ATTEMPTS = 3;
const WRITE_BLOCKS_MAX = 4;

export interface FlattenLivesReport {
  /** Attempts that ended with a failed sync. */
  readonly failed: number;
  readonly losses: number;
  readonly flattened: boolean;
}

interface Write {
  readonly first: number;
  readonly bytes: Uint8Array;
}

/** A little data among zeros: most sectors of a page of sums tell of nothing then. */
function sparseBase(random: SeededRandom): MemoryBase {
  const bytes = new Uint8Array(SIZE);
  for (let i = 1 + random.below(3); i > 0; i--) {
    const count = 1 + random.below(4);
    bytes.set(random.bytes(count * BLOCK_BYTES), random.below(BLOCKS - count) * BLOCK_BYTES);
  }
  return new MemoryBase(bytes);
}

class FlattenLives {
  readonly #options: OneSeed;
  readonly #random: SeededRandom;
  readonly #power: PowerSupply;
  readonly #sim: SimVolume;
  readonly #base: MemoryBase;
  readonly #expected: Uint8Array;
  /** On its way when the life ended: there, or not. */
  #asked: Write | undefined;
  failed = 0;
  losses = 0;

  constructor(options: OneSeed) {
    const world = new SimWorld(options.seed);
    this.#options = options;
    this.#random = world.random.fork('flatten');
    this.#power = new PowerSupply(world);
    const isSparse = this.#random.chance(0.5);
    this.#base = isSparse ? sparseBase(this.#random) : MemoryBase.of(this.#random, SIZE);
    this.#expected = new Uint8Array(SIZE);
    this.#expected.set(this.#base.bytes);
    this.#sim = new SimVolume(this.#power, { size: SIZE, slots: 10, base: this.#base });
  }

  get flattened(): boolean {
    return this.#sim.baseState === 'copied';
  }

  async run(): Promise<void> {
    const power = this.#power;
    await power.runLife((machine) => this.#sim.format(machine));
    for (let life = 0; life < LIVES; life++) {
      const end = await power.runLife(async (machine) => {
        const volume = await this.#sim.open(machine);
        await this.#live(volume);
        if (this.#random.chance(0.2)) await volume.close();
      });
      if (end.kind === 'lost') this.losses += 1;
      if (power.alive && this.#random.chance(0.3)) power.kill();
      if (power.alive) power.cut();
      power.restore();
      for (const disk of [this.#sim.final, this.#sim.sums]) disk.faults.clear();
    }
    await power.runLife(async (machine) => {
      const volume = await this.#sim.open(machine);
      await this.#compare(volume);
      await volume.close();
    });
  }

  async #live(volume: Volume): Promise<void> {
    const random = this.#random;
    this.#options.onStep?.();
    await this.#compare(volume);
    // Now and then enough for a round, which may be the first to write a page of sums.
    await this.#writes(volume, random.pick([0, 2, 60]));
    if (random.chance(0.5)) {
      const loss = random.chance(0.5) ? 'cut' : 'kill';
      this.#power.plan({ loss, afterOperations: 1 + random.below(random.pick([12, 60, 300])) });
    }
    const beside = this.#writes(volume, random.pick([0, 0, 10]));
    for (let attempt = 0; attempt < ATTEMPTS && !this.flattened; attempt++) {
      this.#options.onStep?.();
      await this.#flatten(volume);
    }
    await beside;
    await this.#compare(volume);
  }

  /** As an operator does it; a sync fails on the way, or somebody stops it. */
  async #flatten(volume: Volume): Promise<void> {
    const random = this.#random;
    const sim = this.#sim;
    sim.baseState = 'copying';
    const chunkBlocks = 1 + random.below(random.pick([40, 400]));
    const failsAt = random.chance(0.5) ? random.below(BLOCKS) : undefined;
    const stopsAt = random.chance(0.2) ? random.below(BLOCKS) : undefined;
    let hasFailed = false;
    const progress = (bytes: number): void => {
      const done = bytes / BLOCK_BYTES;
      if (stopsAt !== undefined && done > stopsAt) throw new VarveError('CLOSED', 'stopped');
      if (failsAt === undefined || hasFailed || done + chunkBlocks <= failsAt) return;
      hasFailed = true;
      const point = random.chance(0.7) ? 'sums' : 'final';
      const fault = { dropDirty: true, evict: random.chance(0.3), point } as const;
      (point === 'sums' ? sim.sums : sim.final).failNextSync(fault);
    };
    try {
      await copyBase(volume.core, progress, chunkBlocks);
    } catch (error) {
      if (!isVarveError(error, 'CLOSED') && !isVarveError(error, 'DEVICE_IO')) throw error;
      this.failed += error.code === 'DEVICE_IO' ? 1 : 0;
      return;
    }
    sim.baseState = 'copied';
    await volume.core.final.dropBase();
    this.#base.bytes.fill(0xee);
  }

  async #writes(volume: Volume, count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      const blocks = 1 + this.#random.below(WRITE_BLOCKS_MAX);
      const first = this.#random.below(BLOCKS - blocks);
      this.#asked = { first, bytes: this.#random.bytes(blocks * BLOCK_BYTES) };
      await put(volume, first, this.#asked.bytes, true);
      this.#expected.set(this.#asked.bytes, first * BLOCK_BYTES);
      this.#asked = undefined;
    }
  }

  async #compare(volume: Volume): Promise<void> {
    const content = await get(volume.live(), 0, BLOCKS);
    const asked = this.#asked;
    this.#asked = undefined;
    if (asked !== undefined) {
      const [from, to] = [
        asked.first * BLOCK_BYTES,
        asked.first * BLOCK_BYTES + asked.bytes.length,
      ];
      const isThere = Buffer.compare(content.subarray(from, to), asked.bytes) === 0;
      if (isThere) this.#expected.set(asked.bytes, from);
    }
    for (let block = 0; block < BLOCKS; block++) {
      const [from, to] = [block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES];
      const isSame =
        Buffer.compare(content.subarray(from, to), this.#expected.subarray(from, to)) === 0;
      assert(isSame, `block ${block} is what was written, or what the base had`);
    }
  }
}

export async function runFlattenLives(options: OneSeed): Promise<FlattenLivesReport> {
  const lives = new FlattenLives(options);
  await lives.run();
  const { failed, losses, flattened } = lives;
  return { failed, losses, flattened };
}
