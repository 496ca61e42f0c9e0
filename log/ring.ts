/**
 * The RAM ring: the newest part of the stream, in the log's own format.
 *
 * Invariants:
 *   - Position p of the stream lies at byte p mod ringBytes; both are whole blocks, so no block
 *     wraps.
 *   - It holds [tail, head): tail = max(start, head - ringBytes). What the log device has not made
 *     durable yet is never overwritten (the stream asks `room` first).
 */
import { assert } from '../src/base/assert.ts';
import { BLOCK_BYTES, lsn, type ByteCount, type Lsn } from '../src/base/units.ts';
import { viewOf } from '../src/format/record.ts';

export class Ring {
  readonly size: ByteCount;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly #start: Lsn;
  #head: Lsn;

  /** @param start - where the stream goes on; nothing before it is in RAM */
  constructor(size: ByteCount, start: Lsn) {
    assert(size > 0 && size % BLOCK_BYTES === 0, 'a ring is whole blocks');
    assert(start % BLOCK_BYTES === 0, 'positions of the stream are whole blocks');
    this.size = size;
    this.bytes = new Uint8Array(size);
    this.view = viewOf(this.bytes);
    this.#start = start;
    this.#head = start;
  }

  get head(): Lsn {
    return this.#head;
  }

  get tail(): Lsn {
    return lsn(Math.max(this.#start, this.#head - this.size));
  }

  /** Bytes that can be added while everything from `keep` on stays. */
  room(keep: Lsn): number {
    return this.size - (this.#head - keep);
  }

  /** Takes the next block; what lay there before is gone. @returns its byte position in `bytes` */
  take(): number {
    const at = this.#head % this.size;
    this.#head = lsn(this.#head + BLOCK_BYTES);
    return at;
  }

  holds(position: Lsn): boolean {
    return position >= this.tail && position < this.#head;
  }

  /** The block at `position`: a view that is valid until the next `take`. */
  blockAt(position: Lsn): Uint8Array {
    assert(this.holds(position), 'the ring holds the position');
    const at = position % this.size;
    return this.bytes.subarray(at, at + BLOCK_BYTES);
  }

  /** [from, to) as one or two views. */
  slices(from: Lsn, to: Lsn): Uint8Array[] {
    assert(from >= this.tail && to <= this.#head && from < to, 'the ring holds the range');
    const first = from % this.size;
    const length = to - from;
    const untilEnd = this.size - first;
    if (length <= untilEnd) return [this.bytes.subarray(first, first + length)];
    return [this.bytes.subarray(first), this.bytes.subarray(0, length - untilEnd)];
  }
}
