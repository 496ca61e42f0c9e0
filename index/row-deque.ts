/**
 * A deque of rows of numbers in typed arrays: appended at the back, dropped at the front.
 *
 * Invariants:
 *   - Rows are numbered from 0 for ever; the live ones are [first, end).
 *   - A full chunk is never copied; the only chunk of a short deque starts small and doubles.
 */
import { assert } from '../src/base/assert.ts';

const CHUNK_ROWS = 1024;
const CHUNK_ROWS_MIN = 16;

export class RowDeque {
  readonly #width: number;
  #chunks: Float64Array[] = [];
  /** Number of the first row of the first chunk. */
  #chunkFirst = 0;
  #first = 0;
  #end = 0;

  /** @param width - numbers in a row */
  constructor(width: number) {
    this.#width = width;
  }

  /** Number of the oldest row. */
  get first(): number {
    return this.#first;
  }

  /** Number that the next row will have. */
  get end(): number {
    return this.#end;
  }

  get length(): number {
    return this.#end - this.#first;
  }

  get bytes(): number {
    let bytes = 0;
    for (const chunk of this.#chunks) bytes += chunk.byteLength;
    return bytes;
  }

  get(row: number, column: number): number {
    const place = row - this.#chunkFirst;
    const chunk = this.#chunks[Math.trunc(place / CHUNK_ROWS)]!;
    return chunk[(place % CHUNK_ROWS) * this.#width + column]!;
  }

  set(row: number, column: number, value: number): void {
    assert(row >= this.#first && row < this.#end, 'only a live row is changed');
    const place = row - this.#chunkFirst;
    const chunk = this.#chunks[Math.trunc(place / CHUNK_ROWS)]!;
    chunk[(place % CHUNK_ROWS) * this.#width + column] = value;
  }

  /** Appends a row of zeros. @returns its number */
  push(): number {
    const place = this.#end - this.#chunkFirst;
    const position = Math.trunc(place / CHUNK_ROWS);
    const chunk = this.#chunks[position];
    if (chunk === undefined) {
      const rows = position === 0 ? CHUNK_ROWS_MIN : CHUNK_ROWS;
      this.#chunks.push(new Float64Array(rows * this.#width));
    } else if ((place % CHUNK_ROWS) * this.#width >= chunk.length) {
      const grown = new Float64Array(chunk.length * 2);
      grown.set(chunk);
      this.#chunks[position] = grown;
    }
    return this.#end++;
  }

  /** Drops the rows before `row`. */
  dropBefore(row: number): void {
    assert(row >= this.#first && row <= this.#end, 'what is dropped is there');
    this.#first = row;
    if (row === this.#end) {
      this.#chunks = [];
      this.#chunkFirst = row;
      return;
    }
    const chunks = Math.trunc((row - this.#chunkFirst) / CHUNK_ROWS);
    this.#chunks.splice(0, chunks);
    this.#chunkFirst += chunks * CHUNK_ROWS;
  }

  /** The first row of [from, to) whose column is above `value`, where the column never decreases. */
  firstAbove(column: number, value: number, from = this.#first, to = this.#end): number {
    let low = from;
    let high = to;
    while (low < high) {
      const middle = low + Math.trunc((high - low) / 2);
      if (this.get(middle, column) <= value) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
