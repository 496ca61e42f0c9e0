/**
 * Where before-images of a segment lie: runs of batches whose images are in order of block, each with
 * fences. In RAM, a few bytes for each batch; the images themselves stay on the device. Pure.
 *
 * Invariants:
 *   - Along a run the first blocks of its batches never decrease.
 *   - What `overlapping` gives includes every batch with an image in the range.
 */
import { assert } from '../src/base/assert.ts';
import { BLOCK_BYTES, byteOffset, type ByteOffset, type Generation } from '../src/base/units.ts';
import { endOfImage, type BeforeImage } from './before-image.ts';

interface Run {
  /** First block of each batch. */
  readonly firsts: number[];
  /** Behind the last block of this batch and of those before it. */
  readonly ends: number[];
  /** Of the batch headers, in blocks of the device. */
  readonly places: number[];
  fromMin: number;
  untilMax: number;
}

export class UndoRuns {
  readonly #runs: Run[] = [];
  readonly #gone: ByteOffset[] = [];

  /** @param images - of one batch, in order of block; at least one */
  add(place: ByteOffset, images: readonly BeforeImage[]): void {
    const [first] = images;
    if (first === undefined) return;
    let run = this.#runs.at(-1);
    if (run === undefined || (run.firsts.at(-1) ?? 0) > first.block) {
      run = { firsts: [], ends: [], places: [], fromMin: Infinity, untilMax: 0 };
      this.#runs.push(run);
    }
    let end = run.ends.at(-1) ?? 0;
    for (const image of images) {
      end = Math.max(end, endOfImage(image));
      run.fromMin = Math.min(run.fromMin, image.from);
      run.untilMax = Math.max(run.untilMax, image.until);
    }
    run.firsts.push(first.block);
    run.ends.push(end);
    run.places.push(place / BLOCK_BYTES);
  }

  /** Takes the last so many batches back; fences stay as they are. @returns where they lay */
  takeBack(count: number): readonly ByteOffset[] {
    const places: ByteOffset[] = [];
    while (places.length < count) {
      const run = this.#runs.at(-1);
      assert(run !== undefined, 'what is taken back was added');
      run.firsts.pop();
      run.ends.pop();
      places.push(byteOffset((run.places.pop() ?? 0) * BLOCK_BYTES));
      if (run.places.length === 0) this.#runs.pop();
    }
    this.#gone.push(...places);
    return places;
  }

  has(place: ByteOffset): boolean {
    return this.#runs.some(({ places }) => places.includes(place / BLOCK_BYTES));
  }

  /** Headers of batches that may have images of blocks [first, end) which a pin at `at` sees. */
  *overlapping(first: number, end: number, at: Generation): Generator<ByteOffset> {
    for (const run of this.#runs) {
      if (run.untilMax <= at || run.fromMin > at) continue;
      for (let i = lastBelow(run.firsts, end); i >= 0; i--) {
        if ((run.ends[i] ?? 0) <= first) break;
        yield byteOffset((run.places[i] ?? 0) * BLOCK_BYTES);
      }
    }
  }

  /** Whether some batch may have images of blocks [first, end). */
  mayHave(first: number, end: number): boolean {
    return this.#runs.some(({ firsts, ends }) => {
      const i = lastBelow(firsts, end);
      return i >= 0 && (ends[i] ?? 0) > first;
    });
  }

  /** Headers of all batches. */
  *places(): Generator<ByteOffset> {
    for (const { places } of this.#runs) {
      for (const place of places) yield byteOffset(place * BLOCK_BYTES);
    }
  }

  /** The same, and of those that were taken back. */
  *allPlaces(): Generator<ByteOffset> {
    yield* this.places();
    yield* this.#gone;
  }

  get bytes(): number {
    return this.#runs.reduce((sum, { firsts }) => sum + 64 + firsts.length * 24, 0);
  }
}

/** Index of the last value below `limit`, or -1. */
function lastBelow(values: readonly number[], limit: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((values[middle] ?? 0) < limit) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
