/**
 * Which requests cover which blocks. The disk is cut where any part begins or ends, so that each
 * request covers a piece whole or not at all; a trim of terabytes is a piece like any other.
 *
 * Invariants:
 *   - Pieces are disjoint and ascending; the versions of a piece are in request order.
 *   - Two versions of a piece have the same content number exactly when all checksums of their
 *     blocks are equal.
 */
import { assert } from '../base/assert.ts';
import { bisect } from '../base/bisect.ts';
import { crc32c } from '../base/crc32c.ts';
import { BLOCK_BYTES, block, blockCount, type Block, type BlockCount } from '../base/units.ts';
import type { RequestPart, RequestRecord } from '../device/request-record.ts';

/** What no request of the stretch covers. */
export const UNTOUCHED = -1;
const ZERO_CRC = crc32c(new Uint8Array(BLOCK_BYTES));
const CONTENT_ZERO = 0;
/** Of a piece that nothing touched: equal to no version. */
const CONTENT_UNKNOWN = -1;

export interface Piece {
  readonly start: Block;
  readonly count: BlockCount;
}

export class Coverage {
  /** Where pieces begin, and in the end where the last one ends. */
  readonly #edges: Float64Array;
  /** Positions of the requests that cover a piece, ascending. */
  readonly #versions: number[][];
  /** Pieces of each request, and the content that each of them has. */
  readonly #pieces: Int32Array[] = [];
  readonly #contents: Int32Array[] = [];
  readonly #known = new Map<string, number>();

  /** @param requests - in generation order; a request is called by its position in it */
  constructor(requests: readonly RequestRecord[]) {
    const edges = new Set<number>();
    for (const { parts } of requests) {
      for (const { start, count } of parts) edges.add(start).add(start + count);
    }
    this.#edges = Float64Array.from(edges).sort();
    this.#versions = Array.from({ length: Math.max(0, this.#edges.length - 1) }, () => []);
    requests.forEach(({ parts }, position) => this.#cover(position, parts));
  }

  get pieces(): number {
    return this.#versions.length;
  }

  /** Pieces that a request covers. */
  piecesOf(position: number): Int32Array {
    const pieces = this.#pieces[position];
    assert(pieces !== undefined, 'a request of the stretch');
    return pieces;
  }

  /** Content numbers, one for each of `piecesOf`. */
  contentsOf(position: number): Int32Array {
    const contents = this.#contents[position];
    assert(contents !== undefined, 'a request of the stretch');
    return contents;
  }

  pieceAt(index: number): Piece {
    const start = this.#edges[index] ?? 0;
    return { start: block(start), count: blockCount((this.#edges[index + 1] ?? start) - start) };
  }

  /** The piece that holds the block; where none does, UNTOUCHED and the blocks up to the next. */
  find(wanted: Block): { readonly piece: number; readonly count: number } {
    const piece = this.#lastAtOrBefore(wanted);
    const end = this.#edges[piece + 1];
    if (end === undefined) return { piece: UNTOUCHED, count: Infinity };
    return { piece: piece < 0 ? UNTOUCHED : piece, count: end - wanted };
  }

  /** The newest request before position `end` that covers the piece, or UNTOUCHED. */
  newestBefore(piece: number, end: number): number {
    const versions = this.#versions[piece] ?? [];
    const before = bisect(versions.length, (at) => (versions[at] ?? 0) < end);
    return versions[before - 1] ?? UNTOUCHED;
  }

  /** The first request after `position` that covers the piece, or undefined. */
  nextAfter(piece: number, position: number): number | undefined {
    const versions = this.#versions[piece] ?? [];
    return versions[bisect(versions.length, (at) => (versions[at] ?? 0) <= position)];
  }

  contentOf(position: number, piece: number): number {
    if (position === UNTOUCHED) return CONTENT_UNKNOWN;
    const pieces = this.piecesOf(position);
    const found = bisect(pieces.length, (at) => (pieces[at] ?? 0) < piece);
    assert(pieces[found] === piece, 'the request covers the piece');
    return this.contentsOf(position)[found] ?? CONTENT_UNKNOWN;
  }

  #cover(position: number, parts: readonly RequestPart[]): void {
    const pieces: number[] = [];
    const contents: number[] = [];
    for (const part of parts.toSorted((one, other) => one.start - other.start)) {
      const end = part.start + part.count;
      for (let at = this.#lastAtOrBefore(part.start); (this.#edges[at] ?? end) < end; at++) {
        pieces.push(at);
        contents.push(this.#content(part, this.pieceAt(at)));
        this.#versions[at]?.push(position);
      }
    }
    this.#pieces.push(Int32Array.from(pieces));
    this.#contents.push(Int32Array.from(contents));
  }

  #content({ start, crcs }: RequestPart, piece: Piece): number {
    if (crcs === undefined) return CONTENT_ZERO;
    const from = piece.start - start;
    const own = crcs.slice(from, from + piece.count);
    assert(own.length === piece.count, 'a data part has a checksum for each block');
    if (own.every((crc) => crc === ZERO_CRC)) return CONTENT_ZERO;
    const text = own.join();
    const known = this.#known.get(text);
    if (known !== undefined) return known;
    this.#known.set(text, this.#known.size + 1);
    return this.#known.size;
  }

  /** The last edge at or before; -1 when there is none. */
  #lastAtOrBefore(wanted: number): number {
    return bisect(this.#edges.length, (at) => (this.#edges[at] ?? 0) <= wanted) - 1;
  }
}
