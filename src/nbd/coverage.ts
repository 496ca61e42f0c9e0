/**
 * Which bytes of a read have come, from chunks in any order. Pure.
 *
 * Invariants:
 *   - Parts are kept in order, none meets another, and those that touch are one.
 *   - There are at most `PARTS_MAX`: a server that goes on leaving gaps is not followed.
 */

/** Servers send a read's chunks about in order; each gap that is open is one more part. */
const PARTS_MAX = 4096;

interface Part {
  readonly start: number;
  readonly end: number;
}

export class Coverage {
  readonly #parts: Part[] = [];
  /** Bytes that have come. */
  bytes = 0;

  /** @returns false: some of [start, end) had come before, or it leaves too many gaps */
  add(start: number, end: number): boolean {
    const parts = this.#parts;
    let low = 0;
    let high = parts.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((parts[middle]?.start ?? Infinity) < start) low = middle + 1;
      else high = middle;
    }
    const before = parts[low - 1];
    const after = parts[low];
    if ((before?.end ?? 0) > start || (after?.start ?? Infinity) < end) return false;
    const first = before?.end === start ? before : undefined;
    const last = after?.start === end ? after : undefined;
    const merged = { start: first?.start ?? start, end: last?.end ?? end };
    const from = first === undefined ? low : low - 1;
    parts.splice(from, (first === undefined ? 0 : 1) + (last === undefined ? 0 : 1), merged);
    this.bytes += end - start;
    return parts.length <= PARTS_MAX;
  }
}
