/**
 * Questions about the past, beside the model: what changed between two moments, the versions of a
 * block, and where and when a pattern was there. Pages are small, so that most answers take
 * several; writes, rounds and openings come in between.
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError } from '../../src/base/errors.ts';
import {
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  generation,
  kibibytes,
  mebibytes,
  type ByteCount,
  type ByteOffset,
  type Generation,
} from '../../src/base/units.ts';
import type { BlockDevice } from '../../src/device/block-device.ts';
import { isZero } from '../../src/device/zeros.ts';
import type { SearchQuery, VersionInfo } from '../../src/volume/past-report.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { slowReads } from '../crash/slow-reads.ts';
import { VolumeModel } from '../model/volume-model.ts';
import { MemoryBase } from '../support/memory-base.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import type { SeededRandom } from '../sim/random.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';

export interface PastOptions {
  readonly seed: number;
  /** The volume is based on another disk. */
  readonly isBased?: boolean;
  /** Told of each request. */
  readonly onStep?: () => void;
}

/** Blocks that are used, at the beginning of the disk and at its end; the last one is partial. */
const USED_BLOCKS = 24;
const LOW_BLOCKS = 12;
const USED_BYTES = USED_BLOCKS * BLOCK_BYTES - 1500;
/** Some disks have blocks between the two that are hardly used: at regions of the index, and trimmed. */
const GAP_BLOCKS = 1000;
const ISLAND_BLOCKS: readonly number[] = [256, 512];
/** No write is longer. */
const WRITE_BLOCKS_MAX = 9;
const LIVES = 3;
const STEPS = 90;
const NO = { fua: false };
const CHANGES_BESIDE = 60;
const SNAPSHOTS_MAX = 4;
/** The second one is found within itself, the third one is longer than most writes. */
const WORDS = ['needle', 'ababab', `long ${'word '.repeat(60)}`].map((word) => Buffer.from(word));
/** Blocks of zeros beside it are part of what is found. */
const ISLAND = Buffer.from('\0\0\0island\0\0\0');

export interface PastCounts {
  diffs: number;
  /** Of them. */
  belowHorizon: number;
  changedBlocks: number;
  versions: number;
  searches: number;
  spells: number;
  straddling: number;
}

/** Versions of a block, as they were listed. */
interface BlockPast {
  readonly block: number;
  readonly at: Generation;
  readonly versions: VersionInfo[];
}

class PastRun {
  readonly counts: PastCounts = {
    diffs: 0,
    belowHorizon: 0,
    changedBlocks: 0,
    versions: 0,
    searches: 0,
    spells: 0,
    straddling: 0,
  };
  readonly #world: SimWorld;
  readonly #sim: SimVolume;
  readonly #random: SeededRandom;
  readonly #model: VolumeModel;
  readonly #gapBytes: number;
  readonly #size: ByteCount;
  readonly #onStep: (() => void) | undefined;
  #pinned = 0;

  constructor({ seed, isBased = false, onStep }: PastOptions) {
    this.#world = new SimWorld(seed);
    this.#random = this.#world.random.fork('past');
    const power = new PowerSupply(this.#world);
    const hasGap = this.#random.chance(0.3) && !isBased;
    this.#gapBytes = hasGap ? GAP_BLOCKS * BLOCK_BYTES : 0;
    this.#size = byteCount(USED_BYTES + this.#gapBytes);
    const base = isBased ? MemoryBase.of(this.#world.random.fork('base'), this.#size) : undefined;
    this.#model = new VolumeModel(this.#size, base?.bytes);
    this.#sim = new SimVolume(power, {
      base,
      size: this.#size,
      segmentBytes: kibibytes(32),
      slots: 14,
      requestBytesMax: kibibytes(32),
      undoBytes: mebibytes(16),
    });
    slowReads(this.#sim, this.#world, this.#random.fork('slow'));
    this.#onStep = onStep;
  }

  async run(): Promise<void> {
    const life = this.#sim.power.life;
    await this.#world.run(async () => {
      await this.#sim.format(life);
      for (let i = 0; i < LIVES; i++) {
        const volume = await this.#sim.open(life);
        for (let step = 0; step < STEPS; step++) await this.#step(volume);
        volume.core.check();
        await volume.close();
      }
    });
  }

  async #step(volume: Volume): Promise<void> {
    this.#onStep?.();
    const random = this.#random;
    const die = random.below(21);
    if (die === 20) await this.#pin(volume);
    else if (die < 15) await this.#change(volume);
    else if (die === 15) await this.#diff(volume);
    else if (die === 16) await this.#blame(volume);
    else await this.#search(volume, die === 17);
  }

  async #change(volume: Volume): Promise<void> {
    const random = this.#random;
    const live = volume.live();
    const kind = random.below(10);
    const length = byteCount(1 + random.below((kind < 2 ? WRITE_BLOCKS_MAX : 2) * BLOCK_BYTES));
    const offset = this.#place(random.below(USED_BYTES - length));
    if (kind === 0 && random.chance(0.3)) {
      this.#model.trim(0, this.#size);
      await live.trim(byteOffset(0), this.#size, NO);
    } else if (kind === 0) {
      this.#model.trim(offset, length);
      await live.trim(offset, length, NO);
    } else if (kind === 1) {
      this.#model.zero(offset, length);
      await live.zero(offset, length, { fua: false, allocate: random.chance(0.5) });
    } else if (kind < 4) {
      const content = random.bytes(length);
      this.#model.write(offset, content);
      await live.write(offset, content, NO);
    } else {
      if (this.#gapBytes > 0 && random.chance(0.2)) return await this.#changeIsland(live);
      const word = random.pick(WORDS);
      // Often over the edge of two blocks.
      const edge =
        (1 + random.below(USED_BLOCKS - 1)) * BLOCK_BYTES - random.below(word.length + 1);
      const at = random.chance(0.7)
        ? this.#place(Math.min(edge, USED_BYTES - word.length))
        : offset;
      const part = word.subarray(0, this.#size - at);
      this.#model.write(at, part);
      await live.write(at, part, NO);
    }
  }

  /** A word over the edge of a region of the index, or just behind or before it, among zeros. */
  async #changeIsland(live: BlockDevice): Promise<void> {
    const random = this.#random;
    const part = random.pick([ISLAND, ISLAND.subarray(3), ISLAND.subarray(0, -3)]);
    const before = random.pick([0, part.length, random.below(part.length)]);
    const at = byteOffset(random.pick(ISLAND_BLOCKS) * BLOCK_BYTES - before);
    this.#model.write(at, part);
    await live.write(at, part, NO);
  }

  /** A byte of the disk, from one of those that are used. */
  #place(used: number): ByteOffset {
    return byteOffset(used < LOW_BLOCKS * BLOCK_BYTES ? used : used + this.#gapBytes);
  }

  /** Two moments of the window, in order. */
  #moments(volume: Volume): readonly [Generation, Generation] {
    const { horizon, head } = volume.core;
    const span = head - horizon.generation + 1;
    const moments = [0, 0].map(() => horizon.generation + this.#random.below(span));
    return [generation(Math.min(...moments)), generation(Math.max(...moments))];
  }

  /** A snapshot comes, or one goes. */
  async #pin(volume: Volume): Promise<void> {
    const random = this.#random;
    const snapshots = volume.snapshots();
    if (snapshots.length < SNAPSHOTS_MAX && random.chance(0.7)) {
      this.#pinned += 1;
      const [, at] = this.#moments(volume);
      await volume.createSnapshot(`s${this.#pinned}`, `gen=${at}`);
    } else if (snapshots.length > 0) await volume.deleteSnapshot(random.pick(snapshots).label);
  }

  /** Two moments that can be opened, in order: of the window, or of snapshots older than it. */
  #openable(volume: Volume): readonly [Generation, Generation] {
    const snapshots = volume.snapshots();
    const moments = this.#moments(volume).map((one) =>
      snapshots.length > 0 && this.#random.chance(0.5)
        ? this.#random.pick(snapshots).generation
        : one,
    );
    return [generation(Math.min(...moments)), generation(Math.max(...moments))];
  }

  /** With the older moment open, and some writes beside the question. */
  async #beside<T>(
    volume: Volume,
    older: Generation,
    question: () => Promise<T>,
  ): Promise<T | undefined> {
    const open = volume.openMoment({ generation: older });
    try {
      const [answer] = await allEnded([
        question(),
        this.#random.chance(0.5) ? this.#change(volume) : undefined,
      ]);
      return answer;
    } catch (error) {
      // A moment that no snapshot keeps may leave while writers need its space.
      if (isVarveError(error, 'MOMENT_OUTSIDE') || isVarveError(error, 'MOMENT_GONE')) {
        assert(volume.core.horizon.generation > older, 'only a moment that left is refused');
        return undefined;
      }
      throw error;
    } finally {
      await open.close();
    }
  }

  async #diff(volume: Volume): Promise<void> {
    const random = this.#random;
    const [older, newer] = this.#openable(volume);
    if (older < volume.core.horizon.generation) this.counts.belowHorizon += 1;
    const [from, to] = random.chance(0.5) ? [older, newer] : [newer, older];
    const rangesMax = random.pick([1, 2, 5, 1000]);
    const became = new Map<number, string>();
    const whole = await this.#beside(volume, older, async () => {
      for (let next: ByteOffset | undefined = byteOffset(0); next !== undefined;) {
        const page = await volume.past.changed({ from, to, offset: next, rangesMax });
        assert(page.ranges.length <= rangesMax, 'a page is within its limit');
        assert(page.next === undefined || page.next > next, 'a page gets somewhere');
        for (const range of page.ranges) {
          const end = range.offset + range.length;
          assert(range.offset >= next && end <= (page.next ?? this.#size), 'ranges ascend');
          assert(range.offset % BLOCK_BYTES === 0, 'ranges are of whole blocks');
          assert(end % BLOCK_BYTES === 0 || end === this.#size, 'ranges are of whole blocks');
          for (let at: number = range.offset; at < end; at += BLOCK_BYTES) {
            became.set(at / BLOCK_BYTES, range.became);
          }
        }
        next = page.next;
      }
      return true;
    });
    if (whole === undefined) return;
    this.counts.diffs += 1;
    for (let block = 0; block < this.#model.blocks; block++) {
      const isChanged = this.#model.generationAt(block, newer) > older;
      const got = became.get(block);
      // Nothing is kept of the trim of what is blank by now, though it once held something.
      const isUntold = got === undefined && this.#model.stayedZeros(block, older, newer);
      const isRight = (got !== undefined) === isChanged || isUntold;
      assert(isRight, `block ${block}: changed in (${older}, ${newer}]`);
      if (got === undefined) continue;
      this.counts.changedBlocks += 1;
      const content = this.#model.blockAt(block, to);
      if (got === 'zeros') assert(isZero(content), `block ${block} is zeros at ${to}`);
      else assert(!this.#model.isHoleAt(block, to), `block ${block} has data at ${to}`);
    }
  }

  async #blame(volume: Volume): Promise<void> {
    const random = this.#random;
    const block = Math.floor(this.#place(random.below(USED_BYTES)) / BLOCK_BYTES);
    const versionsMax = random.pick([1, 2, 5, 1000]);
    const [, newest] = this.#moments(volume);
    const at = random.chance(0.3) ? undefined : newest;
    const offset = byteOffset(
      Math.min(this.#size - 1, block * BLOCK_BYTES + random.below(BLOCK_BYTES)),
    );
    const whole: BlockPast = { block, at: at ?? volume.core.head, versions: [] };
    // Rounds come meanwhile: what was listed is of some horizon from before to after.
    const before = volume.core.horizon.generation;
    const changes = random.chance(0.5) ? 0 : CHANGES_BESIDE;
    let isOver = false;
    const list = this.#list(volume, { ...whole, offset, versionsMax }).finally(() => {
      isOver = true;
    });
    const write = async (): Promise<void> => {
      for (let i = 0; i < changes && !isOver; i++) await this.#change(volume);
    };
    const [ended] = await Promise.allSettled([list, write()]);
    if (ended.status === 'rejected') {
      assert(isVarveError(ended.reason, 'MOMENT_OUTSIDE'), 'a page is refused because it left');
      return;
    }
    // A round that earlier changes began may come without any beside it.
    if (changes === 0 && volume.core.horizon.generation === before) {
      this.#checkVersions(volume, whole);
      return;
    }
    const horizons: number[] = [];
    for (let one: number = before; one <= volume.core.horizon.generation; one++) horizons.push(one);
    const fits = horizons.some((horizon) => this.#fits(whole, horizon));
    assert(fits, `versions of ${block} are those of one horizon, ${before} or later`);
  }

  async #list(
    volume: Volume,
    { at, versions, offset, versionsMax }: BlockPast & { offset: ByteOffset; versionsMax: number },
  ): Promise<void> {
    for (let next: Generation | undefined = at; next !== undefined;) {
      const page = await volume.past.versions({ offset, at: next, versionsMax });
      assert(page.offset === offset - (offset % BLOCK_BYTES), 'it is the block that was asked for');
      assert(page.versions.length <= versionsMax, 'a page is within its limit');
      versions.push(...page.versions);
      next = page.next;
    }
  }

  /** Whether the versions are those down to that horizon, and what the block held there. */
  #fits({ block, at, versions }: BlockPast, horizon: number): boolean {
    const made = this.#model.generationsOf(block).filter((one) => one > horizon && one <= at);
    const got = versions.slice(0, -1).map((version) => version.generation ?? -1);
    const base = versions.at(-1);
    if (base === undefined || got.join() !== made.toReversed().join()) return false;
    const isHole = this.#model.isHoleAt(block, horizon);
    if (isData(base.kind) ? isHole : !isZero(this.#model.blockAt(block, horizon))) return false;
    const isUnknown = base.generation === undefined;
    return isUnknown || base.generation === this.#model.generationAt(block, horizon);
  }

  #checkVersions(volume: Volume, { block, versions, at }: BlockPast): void {
    const { horizon, head } = volume.core;
    const model = this.#model;
    const made = model.generationsOf(block).filter((one) => one > horizon.generation && one <= at);
    const expected = made.toReversed();
    const got = versions.slice(0, -1).map((version) => version.generation ?? -1);
    assert(
      got.join() === expected.join(),
      `versions of ${block}: got ${got.join()}, expected ${expected.join()}`,
    );
    const base = model.generationAt(block, horizon.generation);
    versions.forEach(({ kind, generation: one, requestBytes, wallUs, seenBy }, i) => {
      this.counts.versions += 1;
      const isBase = i === versions.length - 1;
      const when = isBase ? horizon.generation : (expected[i] ?? 0);
      const content = model.blockAt(block, when);
      assert(isData(kind) ? !model.isHoleAt(block, when) : isZero(content), `${kind} at ${when}`);
      assert(kind !== 'lost' && kind !== 'unknown', 'nothing was damaged');
      if (!isBase) {
        assert(requestBytes === model.changedBy(when) * BLOCK_BYTES, 'a request has its size');
        assert(wallUs !== undefined, 'a time of the window is known');
      } else assert(one === undefined || one === base, 'what is older is named by its own request');
      const next = model.generationsOf(block).find((other) => other > when);
      assert(
        seenBy.from === when && seenBy.to === (next ?? head + 1) - 1,
        'the moments that see it',
      );
      assert(seenBy.live === (next === undefined), 'the newest is the live one');
    });
  }

  /** Where a place may begin: the whole disk, or some part of it. */
  #region(): readonly [number, number] {
    const random = this.#random;
    const size = this.#size;
    if (random.chance(0.6)) return [0, size];
    const from = this.#place(random.below(USED_BYTES));
    const to = from + 1 + random.below(size - from);
    // Places at the edge of a block need the block behind the last one.
    const edge = Math.ceil(to / BLOCK_BYTES) * BLOCK_BYTES;
    return [from, Math.min(size, random.chance(0.5) ? edge : to)];
  }

  async #search(volume: Volume, throughout: boolean): Promise<void> {
    const random = this.#random;
    const [from, to] = this.#moments(volume);
    const pattern = random.chance(0.9) ? random.pick([...WORDS, ISLAND]) : Buffer.from('e');
    const [offset, end] = this.#region();
    const query: Omit<SearchQuery, 'next'> = {
      pattern,
      from,
      to,
      offset: byteOffset(offset),
      end: byteOffset(end),
      throughout,
      spellsMax: random.pick([1, 3, 1000]),
    };
    const got: string[] = [];
    let hidden = 0;
    const whole = await this.#beside(volume, from, async () => {
      for (let next: ByteOffset | undefined = query.offset; next !== undefined;) {
        const page = await volume.past.search({ ...query, next }, () => undefined);
        assert(page.next === undefined || page.next > next, 'a page gets somewhere');
        assert(page.unreadable === 0 && page.left === 0, 'everything is read and told');
        hidden += page.throughout;
        for (const { offset: at, since, last, gone } of page.spells) {
          assert(
            gone === undefined ? last === to : last === gone.generation - 1,
            'the last moment',
          );
          got.push(`${at}: ${since?.generation ?? 'first'} to ${gone?.generation ?? 'last'}`);
          this.counts.spells += 1;
          if (at % BLOCK_BYTES > BLOCK_BYTES - pattern.length) this.counts.straddling += 1;
        }
        next = page.next;
      }
      return true;
    });
    if (whole === undefined) return;
    this.counts.searches += 1;
    const { spells, constant } = this.#expected(query);
    const expected = throughout ? [...spells, ...constant] : spells;
    assert(
      got.toSorted().join('\n') === expected.toSorted().join('\n'),
      `${pattern.toString()} in ${offset} to ${end}: got\n${got.join('\n')}\nexpected\n${expected.join('\n')}`,
    );
    assert(hidden <= constant.length, 'only what was there all the time is not named');
  }

  /** Every generation's content, searched from end to end. */
  #expected({ pattern, from, to, offset, end }: Omit<SearchQuery, 'next'>): {
    readonly spells: readonly string[];
    readonly constant: readonly string[];
  } {
    const open = new Map<number, number | undefined>();
    const spells: string[] = [];
    const constant: string[] = [];
    for (let at: number = from; at <= to; at++) {
      const found = this.#placesOf(pattern, at);
      for (const [place, since] of open) {
        if (found.has(place)) continue;
        spells.push(`${place}: ${since ?? 'first'} to ${at}`);
        open.delete(place);
      }
      for (const place of found) {
        const isInside = place >= offset && place < end;
        if (isInside && !open.has(place)) open.set(place, at === from ? undefined : at);
      }
    }
    for (const [place, since] of open) {
      (since === undefined ? constant : spells).push(`${place}: ${since ?? 'first'} to last`);
    }
    return { spells, constant };
  }

  /** What lies between the parts that are used, and further than a write reaches, is zeros. */
  #placesOf(pattern: Uint8Array, at: number): Set<number> {
    const model = this.#model;
    const places = new Set<number>();
    const lowBytes = Math.min(this.#size, (LOW_BLOCKS + WRITE_BLOCKS_MAX + 1) * BLOCK_BYTES);
    const highFrom = Math.max(0, this.#place(LOW_BLOCKS * BLOCK_BYTES) - BLOCK_BYTES);
    const islands = this.#gapBytes === 0 ? [] : ISLAND_BLOCKS;
    const parts: readonly (readonly [number, number])[] = [
      [0, lowBytes],
      ...islands.map((at): [number, number] => [(at - 2) * BLOCK_BYTES, (at + 2) * BLOCK_BYTES]),
      [highFrom, this.#size],
    ];
    for (const [from, to] of parts) {
      const bytes = Buffer.from(model.bytesAt(from, to - from, at));
      for (let i = bytes.indexOf(pattern); i >= 0; i = bytes.indexOf(pattern, i + 1)) {
        places.add(from + i);
      }
    }
    return places;
  }
}

/** As Promise.all; also where one fails, the other is over: else a close would cut a change off. */
async function allEnded<A, B>(work: readonly [Promise<A>, B]): Promise<readonly [A, Awaited<B>]> {
  await Promise.allSettled(work);
  return await Promise.all(work);
}

function isData(kind: string): boolean {
  return kind === 'data' || kind === 'base';
}

export async function runPast(options: PastOptions): Promise<PastCounts> {
  const run = new PastRun(options);
  await run.run();
  return run.counts;
}
