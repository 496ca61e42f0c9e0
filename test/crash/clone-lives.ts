/**
 * Lives of a directory whose volumes are clones of each other: written, cloned, flattened, their
 * snapshots deleted, and cut anywhere. Each volume is what was written to it and what it began as; a
 * clone is there whole or not at all, and the snapshot that it needs with it.
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount, byteOffset, mebibytes } from '../../src/base/units.ts';
import { LocalOperator } from '../../src/control/local-operator.ts';
import { VolumeDirectory } from '../../src/control/volume-directory.ts';
import { ServedVolumes } from '../../src/control/volume-pool.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import type { SeededRandom } from '../sim/random.ts';
import { SimFiles } from '../sim/sim-files.ts';
import { SimWorld } from '../sim/sim-world.ts';
import { loadVolumes } from '../support/volume-code.ts';
import type { OneSeed } from './one-seed.ts';

const BLOCKS = 300;
const SIZE = byteCount(BLOCKS * BLOCK_BYTES);
const VOLUMES_MAX = 6;
const STEPS = 40;
const ROOT = 'root';
const quiet = (): void => undefined;

export interface CloneLivesOptions extends OneSeed {
  readonly lives?: number;
}

export interface CloneCounts {
  clones: number;
  flattened: number;
  refused: number;
  deleted: number;
  cuts: number;
}

/** What was asked for when the power went: it is done, or not. */
type Asked =
  | { readonly kind: 'write'; readonly name: string; readonly content: Uint8Array }
  | { readonly kind: 'clone'; readonly name: string; readonly content: Uint8Array };

class CloneLives {
  readonly counts: CloneCounts = { clones: 0, flattened: 0, refused: 0, deleted: 0, cuts: 0 };
  readonly #options: CloneLivesOptions;
  readonly #world: SimWorld;
  readonly #power: PowerSupply;
  readonly #files: SimFiles;
  readonly #random: SeededRandom;
  readonly #model = new Map<string, Uint8Array>();
  #asked: Asked | undefined;
  #made = 0;

  constructor(options: CloneLivesOptions) {
    this.#options = options;
    this.#world = new SimWorld(options.seed);
    this.#power = new PowerSupply(this.#world);
    this.#files = SimFiles.create(this.#power);
    this.#random = this.#world.random.fork('clones');
  }

  #directory(): VolumeDirectory {
    const files = this.#files.reopen();
    const { openDevice } = files;
    const world = this.#power.life;
    return new VolumeDirectory('/srv/varve', { files, openDevice, world, loadVolumes });
  }

  async run(): Promise<void> {
    this.#model.set(ROOT, new Uint8Array(SIZE));
    const options = { size: SIZE, logSize: mebibytes(80) };
    await this.#world.run(() => this.#directory().create(ROOT, options, quiet));
    const { lives = 4 } = this.#options;
    for (let life = 0; life < lives; life++) {
      const isCut = life < lives - 1 && this.#random.chance(0.85);
      const afterOperations = 1 + this.#random.below(this.#random.pick([200, 1000, 3000]));
      if (isCut) this.#power.plan({ loss: 'cut', afterOperations });
      await this.#power.runLife(() => this.#live());
      if (!this.#power.alive) this.counts.cuts += 1;
      if (this.#power.alive) this.#power.cut();
      this.#power.restore();
    }
    await this.#power.runLife(async () => {
      const pool = await ServedVolumes.open(this.#directory());
      await this.#recovered(pool);
      await pool.close();
    });
  }

  async #live(): Promise<void> {
    const directory = this.#directory();
    const pool = await ServedVolumes.open(directory);
    const operator = new LocalOperator(directory, pool, { isServed: true });
    await this.#recovered(pool);
    for (let step = 0; step < STEPS; step++) {
      this.#options.onStep?.();
      const die = this.#random.below(20);
      if (die < 12) await this.#write(pool);
      else if (die < 15) await this.#clone(operator);
      else if (die < 16) await this.#flatten(operator);
      else if (die < 18) await this.#delete(operator, directory);
      else await this.#compare(pool, this.#random.pick([...this.#model.keys()]));
    }
    for (const name of this.#model.keys()) await this.#compare(pool, name);
    await pool.close();
  }

  /** What was under way is done or not; everything else is as it was. */
  async #recovered(pool: ServedVolumes): Promise<void> {
    const asked = this.#asked;
    this.#asked = undefined;
    if (asked?.kind === 'clone' && pool.names().includes(asked.name)) {
      this.#model.set(asked.name, asked.content);
    }
    if (asked?.kind === 'write') {
      const got = await contentOf(this.#volume(pool, asked.name));
      if (Buffer.compare(got, asked.content) === 0) this.#model.set(asked.name, asked.content);
    }
    const names = [...this.#model.keys()].sort().join();
    assert(pool.names().join() === names, `the volumes are ${names}, not ${pool.names().join()}`);
    for (const name of this.#model.keys()) await this.#compare(pool, name);
  }

  #volume(pool: ServedVolumes, name: string): Volume {
    const volume = pool.find(name);
    assert(volume !== undefined, 'every volume is open');
    return volume;
  }

  async #write(pool: ServedVolumes): Promise<void> {
    const random = this.#random;
    const name = random.pick([...this.#model.keys()]);
    const first = random.below(BLOCKS);
    const count = 1 + random.below(Math.min(random.chance(0.2) ? BLOCKS : 6, BLOCKS - first));
    const [offset, length] = [byteOffset(first * BLOCK_BYTES), byteCount(count * BLOCK_BYTES)];
    const content = (this.#model.get(name) ?? new Uint8Array(SIZE)).slice();
    const device = this.#volume(pool, name).live();
    if (random.chance(0.3)) {
      content.fill(0, offset, offset + length);
      this.#asked = { kind: 'write', name, content };
      await device.trim(offset, length, { fua: true });
    } else {
      const bytes = random.bytes(Math.min(length, 32 * BLOCK_BYTES));
      content.set(bytes, offset);
      this.#asked = { kind: 'write', name, content };
      await device.write(offset, bytes, { fua: true });
    }
    this.#model.set(name, content);
    this.#asked = undefined;
  }

  async #clone(operator: LocalOperator): Promise<void> {
    if (this.#model.size >= VOLUMES_MAX) return;
    const of = this.#random.pick([...this.#model.keys()]);
    const name = `clone${this.#made++}`;
    const content = (this.#model.get(of) ?? new Uint8Array(SIZE)).slice();
    this.#asked = { kind: 'clone', name, content };
    await operator.clone(name, { of, logSize: mebibytes(6) }, quiet);
    this.#asked = undefined;
    this.#model.set(name, content);
    this.counts.clones += 1;
  }

  async #flatten(operator: LocalOperator): Promise<void> {
    const name = this.#random.pick([...this.#model.keys()]);
    try {
      await operator.flatten(name, quiet);
      this.counts.flattened += 1;
    } catch (error) {
      if (!isVarveError(error, 'BASE_NONE')) throw error;
    }
  }

  /** Refused where a record says that it is needed, and nowhere else. */
  async #delete(operator: LocalOperator, directory: VolumeDirectory): Promise<void> {
    const name = this.#random.pick([...this.#model.keys()]);
    const snapshots = await operator.snapshots(name);
    if (snapshots.length === 0) return;
    const { label } = this.#random.pick(snapshots);
    const { uuid } = await directory.record(name);
    let isNeeded = false;
    for (const other of await directory.names()) {
      const { base } = await directory.record(other);
      if (base?.kind === 'volume' && base.uuid === uuid && base.snapshot === label) isNeeded = true;
    }
    try {
      await operator.deleteSnapshot(name, label);
      assert(!isNeeded, 'a snapshot that a clone needs is not deleted');
      this.counts.deleted += 1;
    } catch (error) {
      if (!isVarveError(error, 'SNAPSHOT_IN_USE')) throw error;
      assert(isNeeded, 'a snapshot that no clone needs is deleted');
      this.counts.refused += 1;
    }
  }

  async #compare(pool: ServedVolumes, name: string): Promise<void> {
    const got = await contentOf(this.#volume(pool, name));
    const expected = this.#model.get(name) ?? new Uint8Array(0);
    for (let block = 0; block < BLOCKS; block++) {
      const [from, to] = [block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES];
      const isSame = Buffer.compare(got.subarray(from, to), expected.subarray(from, to)) === 0;
      assert(isSame, `block ${block} of ${name} is what was written last, or what it began as`);
    }
  }
}

async function contentOf(volume: Volume): Promise<Uint8Array> {
  const content = new Uint8Array(SIZE);
  await volume.live().read(byteOffset(0), content);
  return content;
}

export async function runCloneLives(options: CloneLivesOptions): Promise<CloneCounts> {
  const lives = new CloneLives(options);
  await lives.run();
  return lives.counts;
}
