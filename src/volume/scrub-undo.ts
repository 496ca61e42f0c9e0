/**
 * The undo device's part of a scrub: each before-image that a snapshot or an open moment needs. It has
 * one copy, so damage is told, not mended.
 */
import { isVarveError, type VarveError } from '../base/errors.ts';
import { BLOCK_BYTES, type Generation } from '../base/units.ts';
import type { FoundImage } from '../../log/found-image.ts';
import type { UndoBatch } from '../../log/undo-images.ts';
import type { SeenBy } from './report.ts';
import type { ScrubRun } from './scrub-run.ts';
import { namedSnapshots } from './seen-by.ts';

export class ScrubUndo {
  readonly #run: ScrubRun;
  #images = 0;

  constructor(run: ScrubRun) {
    this.#run = run;
  }

  /** What there is to read, about. */
  get bytes(): number {
    return this.#run.core.undo.held.bytes;
  }

  async all(): Promise<void> {
    const { undo } = this.#run.core;
    for (const batch of undo.batches()) {
      if (!undo.isThere(batch)) continue;
      await this.#batch(batch);
    }
    this.#run.checked.push(`before-images: ${this.#images}, with the snapshots that need them`);
  }

  async #batch(batch: UndoBatch): Promise<void> {
    const { undo } = this.#run.core;
    let found: readonly FoundImage[];
    try {
      found = await undo.imagesOf(batch);
    } catch (error) {
      if (!isTold(error)) throw error;
      // A segment that was freed meanwhile is nobody's.
      if (undo.isThere(batch)) this.#note(error.detail);
      return;
    }
    await this.#run.step(BLOCK_BYTES);
    for (const one of found) {
      const { block, from, until, checksum } = one.image;
      // Of a round that has not come so far: home has it, and the round puts it again if it must.
      const isAhead = until > this.#run.core.log.superblock.horizon.generation;
      if (isAhead || !undo.isNeeded(from, until)) continue;
      this.#images += 1;
      if (checksum === undefined) continue;
      const problem = await this.#problemOf(one);
      await this.#run.step(BLOCK_BYTES);
      if (problem === undefined || !undo.isThere(batch)) continue;
      this.#run.note({
        place: 'before-image',
        what: `block ${block}, generation ${from}: ${problem}`,
        repairedFrom: undefined,
        block,
        generation: from,
        seenBy: this.#seenBy(from, until),
      });
    }
  }

  /** @returns undefined when it is sound, or a copy of it is */
  async #problemOf(one: FoundImage): Promise<string | undefined> {
    const { undo } = this.#run.core;
    const { block, from } = one.image;
    let problem = 'it fails its checksum';
    try {
      if ((await undo.read(one, block)) !== undefined) return undefined;
      const { copies } = await undo.find(block, 1, from);
      for (const copy of copies[0] ?? []) {
        if ((await undo.read(copy, block)) !== undefined) return undefined;
      }
    } catch (error) {
      if (!isTold(error)) throw error;
      problem = error.detail;
    }
    return problem;
  }

  #note(what: string): void {
    this.#run.note({ place: 'before-image', what, repairedFrom: undefined });
  }

  #seenBy(from: Generation, until: Generation): SeenBy {
    const to = until - 1;
    return { live: false, from, to, ...namedSnapshots(this.#run.core, from, to) };
  }
}

function isTold(error: unknown): error is VarveError {
  return isVarveError(error, 'VOLUME_CORRUPT') || isVarveError(error, 'DEVICE_IO');
}
