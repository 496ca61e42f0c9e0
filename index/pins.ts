/**
 * Pins: reasons to keep a moment, counted by generation.
 *
 * Invariants:
 *   - A generation is listed while at least one reason stands, and not longer.
 *   - A handle is removed once; removing it again is a bug.
 */
import { assert } from '../src/base/assert.ts';
import { generation as toGeneration, type Generation } from '../src/base/units.ts';
import { sortedMap } from './sorted-map.ts';

/** One reason, as it was added; its identity is what `remove` takes. */
export interface PinHandle<Reason> {
  readonly generation: Generation;
  readonly reason: Reason;
}

export interface Pinned<Reason> {
  readonly generation: Generation;
  /** In the order in which they were added. */
  readonly reasons: readonly Reason[];
}

export class Pins<Reason> {
  readonly #byGeneration = sortedMap<Set<PinHandle<Reason>>>();
  #count = 0;

  /** How many reasons stand. */
  get count(): number {
    return this.#count;
  }

  /** How many generations are pinned. */
  get generations(): number {
    return this.#byGeneration.size;
  }

  add(generation: Generation, reason: Reason): PinHandle<Reason> {
    const handle: PinHandle<Reason> = { generation, reason };
    const handles = this.#byGeneration.get(generation);
    if (handles === undefined) this.#byGeneration.set(generation, new Set([handle]));
    else handles.add(handle);
    this.#count++;
    return handle;
  }

  remove(handle: PinHandle<Reason>): void {
    const handles = this.#byGeneration.get(handle.generation);
    assert(handles !== undefined && handles.delete(handle), 'a pin is removed once');
    if (handles.size === 0) this.#byGeneration.delete(handle.generation);
    this.#count--;
  }

  isPinned(generation: Generation): boolean {
    return this.#byGeneration.has(generation);
  }

  smallest(): Pinned<Reason> | undefined {
    return this.#pinned(this.#byGeneration.minKey());
  }

  /** @returns undefined when it is not pinned */
  at(generation: Generation): Pinned<Reason> | undefined {
    return this.isPinned(generation) ? this.#pinned(generation) : undefined;
  }

  /** The smallest pinned generation above this one. */
  smallestAbove(generation: Generation): Pinned<Reason> | undefined {
    return this.#pinned(this.#byGeneration.nextHigherKey(generation));
  }

  /** The largest pinned generation at or below this one. */
  largestUpTo(generation: Generation): Pinned<Reason> | undefined {
    return this.#pinned(this.#byGeneration.getPairOrNextLower(generation)?.[0]);
  }

  /** All of them, by generation. */
  list(): readonly Pinned<Reason>[] {
    return this.#byGeneration.toArray().map(([generation, handles]) => {
      return pinnedOf(generation, handles);
    });
  }

  check(): void {
    this.#byGeneration.checkValid(true);
    let count = 0;
    for (const [generation, handles] of this.#byGeneration.toArray()) {
      assert(handles.size > 0, 'a pinned generation has a reason');
      for (const handle of handles) assert(handle.generation === generation, 'a pin is in place');
      count += handles.size;
    }
    assert(count === this.#count, 'every reason is counted');
  }

  #pinned(generation: number | undefined): Pinned<Reason> | undefined {
    if (generation === undefined) return undefined;
    const handles = this.#byGeneration.get(generation);
    return handles === undefined ? undefined : pinnedOf(generation, handles);
  }
}

function pinnedOf<Reason>(
  generation: number,
  handles: ReadonlySet<PinHandle<Reason>>,
): Pinned<Reason> {
  return {
    generation: toGeneration(generation),
    reasons: Array.from(handles, ({ reason }) => reason),
  };
}
