/**
 * One scrub under way: its options, its pace, and what it has found so far.
 *
 * Invariants:
 *   - A report holds a bounded number of damages, and counts all of them.
 *   - Between any two steps it is asked whether anybody still wants it.
 */
import { VarveError } from '../base/errors.ts';
import {
  BLOCK_BYTES,
  byteOffset,
  type Block,
  type Generation,
  type SegmentSequence,
} from '../base/units.ts';
import type { Core } from './core.ts';
import type { OtherCopies } from './other-copies.ts';
import { Pace } from './pace.ts';
import type { Damage, DamagePlace, Progress, SeenBy } from './report.ts';
import { seenBy } from './seen-by.ts';

/** A report names this many damages, and counts the rest. */
const DAMAGES_MAX = 500;
const LOCK_WAIT_MS = 20;

export interface ScrubOptions {
  /** False: damage is reported, nothing is written. */
  readonly repair: boolean;
  /** Bytes a second; 0: no limit. */
  readonly bytesPerSecond: number;
  /** Called often; what it throws ends the scrub. */
  readonly progress: Progress;
  /** A segment that was held is let go: recycling may be waiting for it. */
  readonly onRelease: () => void;
}

export interface Found {
  readonly place: DamagePlace;
  readonly what: string;
  /** Where the good copy came from; undefined: it is still damaged. */
  readonly repairedFrom: string | undefined;
  readonly block?: Block | undefined;
  readonly generation?: Generation | undefined;
  readonly seenBy?: SeenBy | undefined;
}

export class ScrubRun {
  readonly core: Core;
  readonly copies: OtherCopies;
  readonly repair: boolean;
  readonly onRelease: () => void;
  readonly checked: string[] = [];
  readonly damages: Damage[] = [];
  repaired = 0;
  left = 0;
  bytesRead = 0;
  /** Steps of progress, in bytes. */
  done = 0;
  total = 0;
  /** A segment of the log that is being read, and so can't be recycled. */
  held: SegmentSequence | undefined;
  readonly #pace: Pace;
  readonly #progress: Progress;

  constructor(core: Core, copies: OtherCopies, options: ScrubOptions) {
    this.core = core;
    this.copies = copies;
    this.repair = options.repair && !core.readOnly;
    this.#pace = new Pace(core.world, options.bytesPerSecond);
    this.#progress = options.progress;
    this.onRelease = options.onRelease;
  }

  /** After so many bytes were read. @throws VarveError CLOSED, and what `progress` throws */
  async step(bytes: number): Promise<void> {
    this.bytesRead += bytes;
    this.done += bytes;
    await this.#pace.spend(bytes, this.#goOn, () => this.isWanted);
  }

  /** A round is done with the segment that is held: writers may be waiting for its slot. */
  get isWanted(): boolean {
    return this.held !== undefined && this.held < this.core.log.tail;
  }

  readonly #goOn = (): void => {
    if (this.core.closed) throw new VarveError('CLOSED', 'the volume is closed');
    this.#progress(Math.min(this.done, this.total), this.total);
  };

  /** Runs `work` while no round and no other repair changes home locations. */
  async alone<T>(work: () => Promise<T>): Promise<T> {
    const { home } = this.core;
    // A round that meets a full file system waits in its place: that must not keep us from ending.
    while (home.busy) {
      await this.#pace.wait(LOCK_WAIT_MS);
      this.#goOn();
    }
    return await home.run(work);
  }

  note(found: Found): void {
    const { place, what, repairedFrom, block, generation, seenBy } = found;
    if (repairedFrom === undefined) this.left += 1;
    else {
      this.repaired += 1;
      this.core.counters.repairs += 1;
    }
    // What is still damaged is told first of all: it takes the place of what was repaired.
    if (this.damages.length >= DAMAGES_MAX) {
      const victim = this.damages.findIndex(({ outcome }) => outcome === 'repaired');
      if (repairedFrom !== undefined || victim < 0) return;
      this.damages.splice(victim, 1);
    }
    this.damages.push({
      place,
      what,
      outcome: repairedFrom === undefined ? 'left' : 'repaired',
      repairedFrom,
      block,
      offset: block === undefined ? undefined : byteOffset(block * BLOCK_BYTES),
      generation,
      wallUs: this.#wallOf(generation),
      seenBy,
    });
  }

  #wallOf(generation: Generation | undefined): Damage['wallUs'] {
    const { horizon, timeline } = this.core;
    if (generation === undefined || generation < horizon.generation) return undefined;
    return timeline.wallAt(generation);
  }

  /** Who reads a version: the moments from `from` until the block changed next. */
  seenBy(block: Block, from: Generation): SeenBy {
    return seenBy(this.core, block, from);
  }
}
