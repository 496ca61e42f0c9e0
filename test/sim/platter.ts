/**
 * What a simulated disk holds: what a reader sees now, what a power cut can't take, and the
 * changes in between. No time and no promises here.
 *
 * Invariants:
 *   - A page, once in a map or in a change, is never written again: pages are shared freely.
 *   - Where no change is pending and nothing was forgotten, both images are equal.
 *   - After a power cut both images are equal, and each is the durable image with some subset of
 *     the pending changes applied in some order, torn at 512 bytes.
 */
import { assert } from '../../src/base/assert.ts';
import { crc32c } from '../../src/base/crc32c.ts';
import { checksum, type Checksum } from '../../src/base/units.ts';
import type { SeededRandom } from './random.ts';

export const PAGE_BYTES = 4096;
/** What a disk writes in one piece: a torn write is torn between these. */
export const SECTOR_BYTES = 512;

const ZERO_PAGE = new Uint8Array(PAGE_BYTES);

type Pages = Map<number, Uint8Array>;

/** New bytes of one page, from `start` in it on. Undefined: zeros. */
interface Piece {
  readonly page: number;
  readonly start: number;
  readonly length: number;
  readonly bytes: Uint8Array | undefined;
}

/** A write or punch that readers see and a power cut may take. */
export interface Change {
  readonly offset: number;
  readonly length: number;
  /** Undefined: a punch. */
  pieces: readonly Piece[] | undefined;
  /** Answered: the next sync covers it. */
  settled: boolean;
}

/** How a cut treats the pending changes of one disk; drawn once a cut, so that extremes happen. */
interface Mood {
  readonly keep: number;
  readonly tear: number;
}

const MOODS: readonly Mood[] = [
  { keep: 1, tear: 0 },
  { keep: 0, tear: 0 },
  { keep: 0.5, tear: 0 },
  { keep: 0.4, tear: 0.4 },
  { keep: 0.2, tear: 0.6 },
  { keep: 0.9, tear: 0.05 },
  { keep: 0.05, tear: 0.3 },
];

/** Parts of [offset, offset + length) page by page. */
function* pageParts(offset: number, length: number): Generator<Omit<Piece, 'bytes'>> {
  const end = offset + length;
  for (let at = offset; at < end;) {
    const page = Math.floor(at / PAGE_BYTES);
    const start = at - page * PAGE_BYTES;
    const part = Math.min(PAGE_BYTES - start, end - at);
    yield { page, start, length: part };
    at += part;
  }
}

function isZero(bytes: Uint8Array): boolean {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return view.equals(bytes.length === PAGE_BYTES ? ZERO_PAGE : new Uint8Array(bytes.length));
}

function concatenated(sources: readonly Uint8Array[]): Uint8Array {
  const [only] = sources;
  return sources.length === 1 && only !== undefined ? only : Buffer.concat(sources);
}

/** Puts one piece, or a part of it, into an image. */
function applyPiece(pages: Pages, { page, start, length, bytes }: Piece): void {
  if (length === PAGE_BYTES) {
    if (bytes === undefined) pages.delete(page);
    else pages.set(page, bytes);
    return;
  }
  const before = pages.get(page);
  if (before === undefined && bytes === undefined) return;
  const after = Uint8Array.from(before ?? ZERO_PAGE);
  if (bytes === undefined) after.fill(0, start, start + length);
  else after.set(bytes, start);
  pages.set(page, after);
}

/** The piece with what `bytes` puts on top of it. */
function patched(piece: Piece, offset: number, bytes: Uint8Array): Piece {
  const start = piece.page * PAGE_BYTES + piece.start;
  const from = Math.max(start, offset);
  const to = Math.min(start + piece.length, offset + bytes.length);
  if (from >= to) return piece;
  const after = Uint8Array.from(piece.bytes ?? new Uint8Array(piece.length));
  after.set(bytes.subarray(from - offset, to - offset), from - start);
  return { ...piece, bytes: after };
}

export class Platter {
  readonly size: number;
  #current: Pages = new Map();
  #durable: Pages = new Map();
  /** In the order in which readers saw them. */
  #pending = new Set<Change>();
  /** Every page where the two images may differ. */
  #diverged = new Set<number>();

  constructor(size: number) {
    assert(Number.isSafeInteger(size) && size > 0, 'a disk has a size');
    this.size = size;
  }

  /** Bytes in pages that were written and not punched since. */
  get allocatedBytes(): number {
    return this.#current.size * PAGE_BYTES;
  }

  get pendingCount(): number {
    return this.#pending.size;
  }

  /** How many bytes a write there would newly allocate. */
  newBytes(offset: number, length: number): number {
    let count = 0;
    for (const { page } of pageParts(offset, length)) {
      if (!this.#current.has(page)) count += 1;
    }
    return count * PAGE_BYTES;
  }

  read(offset: number, target: Uint8Array): void {
    this.#readFrom(this.#current, offset, target);
  }

  /** What a cut that loses everything pending would leave. */
  readDurable(offset: number, target: Uint8Array): void {
    this.#readFrom(this.#durable, offset, target);
  }

  /** Readers see it at once; its `settled` and `makeDurable` come later. */
  write(offset: number, sources: readonly Uint8Array[]): Change {
    const source = concatenated(sources);
    const pieces: Piece[] = [];
    let from = 0;
    for (const part of pageParts(offset, source.length)) {
      const slice = source.subarray(from, from + part.length);
      // One shared page of zeros: a log of gigabytes, zeroed at creation, costs a map entry a page.
      const zero = part.length === PAGE_BYTES && isZero(slice);
      pieces.push({ ...part, bytes: zero ? ZERO_PAGE : Uint8Array.from(slice) });
      from += part.length;
    }
    const change = { offset, length: source.length, pieces, settled: false };
    this.#apply(this.#current, change);
    this.#pending.add(change);
    return change;
  }

  punch(offset: number, length: number): Change {
    const change = { offset, length, pieces: undefined, settled: false };
    this.#apply(this.#current, change);
    this.#pending.add(change);
    return change;
  }

  /** All that was seen by readers is in the page cache, which a kill leaves alone. */
  settleAll(): void {
    for (const change of this.#pending) change.settled = true;
  }

  /** What a sync that begins now covers. */
  settledChanges(): Change[] {
    return [...this.#pending].filter(({ settled }) => settled);
  }

  makeDurable(changes: readonly Change[]): void {
    for (const change of changes) {
      // Another sync, begun before, may have covered it too.
      if (this.#pending.delete(change)) this.#apply(this.#durable, change);
    }
    if (this.#pending.size > 0) return;
    for (const page of this.#diverged) {
      if (this.#current.get(page) === this.#durable.get(page)) this.#diverged.delete(page);
    }
  }

  /**
   * A failed sync: the changes are never durable, as if the page cache had marked them clean.
   * @param evict - readers see the old content from now on; else not before the next cut
   */
  forget(changes: readonly Change[], { evict }: { readonly evict: boolean }): void {
    for (const change of changes) this.#pending.delete(change);
    if (!evict) return;
    this.#revert();
    for (const change of this.#pending) this.#apply(this.#current, change);
  }

  /** Every pending change is kept, lost or torn. */
  powerCut(random: SeededRandom): void {
    const mood = random.pick(MOODS);
    for (const change of random.shuffle([...this.#pending])) {
      const fate = random.fraction();
      if (fate < mood.keep) this.#apply(this.#durable, change);
      else if (fate < mood.keep + mood.tear) this.#tear(change, random);
    }
    this.#pending.clear();
    this.#revert();
  }

  /** Changes both images, as bit rot does, and what is pending: whatever of that lands, it stays. */
  corrupt(offset: number, bytes: Uint8Array): void {
    for (const change of this.#pending) {
      if (change.offset >= offset + bytes.length || offset >= change.offset + change.length) {
        continue;
      }
      const pieces = change.pieces ?? [...this.#holePieces(change.offset, change.length)];
      change.pieces = pieces.map((piece) => patched(piece, offset, bytes));
    }
    let from = 0;
    for (const part of pageParts(offset, bytes.length)) {
      const piece = { ...part, bytes: bytes.slice(from, from + part.length) };
      applyPiece(this.#current, piece);
      applyPiece(this.#durable, piece);
      this.#diverged.add(part.page);
      from += part.length;
    }
  }

  /** An independent copy; costs a map entry a page. */
  clone(): Platter {
    const copy = new Platter(this.size);
    copy.#current = new Map(this.#current);
    copy.#durable = new Map(this.#durable);
    copy.#diverged = new Set(this.#diverged);
    copy.#pending = new Set([...this.#pending].map((change) => ({ ...change })));
    return copy;
  }

  /** A CRC of all that readers see. */
  contentChecksum(): Checksum {
    let crc = checksum(0);
    for (const page of [...this.#current.keys()].sort((left, right) => left - right)) {
      const bytes = this.#current.get(page);
      // A page of zeros is content as a hole is: it has to give the same.
      if (bytes === undefined || isZero(bytes)) continue;
      crc = crc32c(bytes, crc32c(new Uint8Array(new Float64Array([page]).buffer), crc));
    }
    return crc;
  }

  #readFrom(pages: Pages, offset: number, target: Uint8Array): void {
    let from = 0;
    for (const { page, start, length } of pageParts(offset, target.length)) {
      const bytes = pages.get(page);
      if (bytes === undefined) target.fill(0, from, from + length);
      else target.set(length === PAGE_BYTES ? bytes : bytes.subarray(start, start + length), from);
      from += length;
    }
  }

  #apply(pages: Pages, { offset, length, pieces }: Change): void {
    for (const piece of pieces ?? this.#holePieces(offset, length)) {
      applyPiece(pages, piece);
      this.#diverged.add(piece.page);
    }
  }

  /** A punch as pieces; only of pages that exist somewhere, as a hole in a hole changes nothing. */
  *#holePieces(offset: number, length: number): Generator<Piece> {
    const first = Math.floor(offset / PAGE_BYTES);
    const last = Math.floor((offset + length - 1) / PAGE_BYTES);
    const known = this.#current.size + this.#durable.size;
    const pages =
      last - first < known
        ? Array.from({ length: last - first + 1 }, (_, at) => first + at)
        : [...new Set([...this.#current.keys(), ...this.#durable.keys()])];
    for (const page of pages) {
      if (page < first || page > last) continue;
      const start = Math.max(0, offset - page * PAGE_BYTES);
      const end = Math.min(PAGE_BYTES, offset + length - page * PAGE_BYTES);
      yield { page, start, length: end - start, bytes: undefined };
    }
  }

  /** Each sector on its own is old or new; sometimes only a beginning is new. */
  #tear(change: Change, random: SeededRandom): void {
    const { offset, length, pieces } = change;
    const newEnd = random.chance(0.3) ? offset + random.below(length) : undefined;
    const newShare = random.pick([0.1, 0.5, 0.9]);
    for (const piece of pieces ?? this.#holePieces(offset, length)) {
      for (let at = piece.start; at < piece.start + piece.length;) {
        const sectorEnd = Math.min(
          piece.start + piece.length,
          at - (at % SECTOR_BYTES) + SECTOR_BYTES,
        );
        const position = piece.page * PAGE_BYTES + sectorEnd;
        const isNew = newEnd === undefined ? random.chance(newShare) : position <= newEnd;
        if (isNew) this.#applyPart(piece, at, sectorEnd);
        at = sectorEnd;
      }
    }
  }

  #applyPart({ page, start, bytes }: Piece, from: number, to: number): void {
    const part = bytes?.subarray(from - start, to - start);
    applyPiece(this.#durable, { page, start: from, length: to - from, bytes: part });
    this.#diverged.add(page);
  }

  /** What readers see becomes the durable image. */
  #revert(): void {
    for (const page of this.#diverged) {
      const bytes = this.#durable.get(page);
      if (bytes === undefined) this.#current.delete(page);
      else this.#current.set(page, bytes);
    }
    this.#diverged.clear();
  }
}
