/** Parts of ranges that a round leaves alone: see find-blank-parts.ts. Pure. */
import { bisect } from '../base/bisect.ts';

export interface Part {
  readonly start: number;
  readonly end: number;
}

export class BlankParts {
  /** Ascending, apart from each other. */
  readonly #parts: readonly Part[];

  constructor(parts: readonly Part[]) {
    this.#parts = parts;
  }

  /** What is left of a range without them. */
  *others(start: number, end: number): Generator<Part> {
    let at = start;
    const isBefore = (i: number): boolean => (this.#parts[i]?.end ?? Infinity) <= start;
    for (let i = bisect(this.#parts.length, isBefore); i < this.#parts.length; i++) {
      const part = this.#parts[i];
      if (part === undefined || part.start >= end) break;
      if (part.start > at) yield { start: at, end: part.start };
      at = Math.max(at, part.end);
    }
    if (at < end) yield { start: at, end };
  }
}

/** Of a round that treats all of its ranges alike. */
export const NO_BLANK_PARTS = new BlankParts([]);

/** The same blocks, ascending, apart from each other. */
export function united(parts: readonly Part[]): readonly Part[] {
  const out: Part[] = [];
  for (const part of [...parts].sort((one, other) => one.start - other.start)) {
    const last = out.at(-1);
    if (last === undefined || last.end < part.start) out.push(part);
    else if (part.end > last.end) out[out.length - 1] = { start: last.start, end: part.end };
  }
  return out;
}
