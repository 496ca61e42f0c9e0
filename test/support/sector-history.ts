/**
 * What may be on a disk after a crash, by sectors of 512 bytes: every write fills its sectors with
 * a stamp of its own, so that what is read back tells which requests are there.
 *
 * Two rules, both sound:
 *   - `checkPrefix`, for requests made one after the other: the content is exactly the state after
 *     the first p of them, with p at or after everything that had to last.
 *   - `checkOrder`, for writes in flight together: there is an order of the requests, in which each
 *     stands behind those that were answered before it was made, such that the content is exactly
 *     the state after some first part of it, with everything that had to last.
 */
import { assert } from '../../src/base/assert.ts';
import { inOrder } from './linear-order.ts';

export const SECTOR_BYTES = 512;
const STAMP_BYTES = 8;

export interface SectorRequest {
  /** Counts from 1 over the whole life of the disk; what its sectors hold. 0: zeros. */
  readonly number: number;
  readonly kind: 'write' | 'zero' | 'trim';
  readonly from: number;
  readonly to: number;
  readonly fua: boolean;
  /** Moments of one count of events. */
  readonly made: number;
  answered: number;
  /** Must be there after any crash. */
  lasts: boolean;
}

export class SectorHistory {
  readonly sectors: number;
  readonly #salt: number;
  /** The number in each sector when `requests` began. */
  #base: Uint32Array;
  #requests: SectorRequest[] = [];
  #events = 0;
  #numbers = 0;

  constructor(bytes: number, salt: number) {
    this.sectors = bytes / SECTOR_BYTES;
    this.#salt = salt >>> 0;
    this.#base = new Uint32Array(this.sectors);
  }

  get requests(): readonly SectorRequest[] {
    return this.#requests;
  }

  make(request: Pick<SectorRequest, 'kind' | 'from' | 'to' | 'fua'>): SectorRequest {
    const made: SectorRequest = {
      ...request,
      number: ++this.#numbers,
      made: ++this.#events,
      answered: Infinity,
      lasts: false,
    };
    this.#requests.push(made);
    return made;
  }

  answer(request: SectorRequest): void {
    request.answered = ++this.#events;
  }

  /** Call when a flush is made; the result is to be called when it is answered. */
  flush(): () => void {
    const covered = this.#requests.filter(({ answered, lasts }) => !lasts && answered < Infinity);
    return () => {
      for (const request of covered) request.lasts = true;
    };
  }

  stamp(number: number): Buffer {
    const stamp = Buffer.alloc(STAMP_BYTES);
    stamp.writeUInt32LE(this.#salt, 0);
    stamp.writeUInt32LE(number, 4);
    return stamp;
  }

  /** The number in each sector; fails on a sector that is no whole stamp of this history. */
  decode(content: Buffer): Uint32Array {
    assert(content.length === this.sectors * SECTOR_BYTES, 'the whole disk was read');
    const words = new Uint32Array(content.buffer, content.byteOffset, content.length / 4);
    const numbers = new Uint32Array(this.sectors);
    const wordsPerSector = SECTOR_BYTES / 4;
    for (let sector = 0; sector < this.sectors; sector++) {
      const at = sector * wordsPerSector;
      const number = words[at + 1] ?? 0;
      const salt = number === 0 ? 0 : this.#salt;
      for (let i = 0; i < wordsPerSector; i += 2) {
        const whole = words[at + i] === salt && words[at + i + 1] === number;
        assert(whole, `sector ${sector} is one whole stamp, not torn at ${i * 4} (${number})`);
      }
      numbers[sector] = number;
    }
    return numbers;
  }

  /** What was found becomes the beginning of the next history. */
  restart(found: Uint32Array): void {
    this.#base = found;
    this.#requests = [];
  }

  /** @returns every p for which the content is that after the first p requests */
  checkPrefix(found: Uint32Array): readonly number[] {
    const state = this.#base.slice();
    let wrong = 0;
    for (let sector = 0; sector < this.sectors; sector++) {
      if (state[sector] !== found[sector]) wrong += 1;
    }
    const floor = this.#requests.findLastIndex(({ lasts }) => lasts) + 1;
    const fits = wrong === 0 && floor === 0 ? [0] : [];
    let lost = wrong === 0 && floor > 0 ? 0 : -1;
    for (const [index, { kind, number, from, to }] of this.#requests.entries()) {
      const value = kind === 'write' ? number : 0;
      for (let sector = from; sector < to; sector++) {
        const wanted = found[sector];
        if (state[sector] !== wanted) wrong -= 1;
        if (value !== wanted) wrong += 1;
        state[sector] = value;
      }
      if (wrong !== 0) continue;
      if (index + 1 >= floor) fits.push(index + 1);
      else lost = index + 1;
    }
    assert(
      fits.length > 0,
      lost < 0
        ? `the content is the state after some first part of ${this.#requests.length} requests`
        : `the first ${floor} of ${this.#requests.length} requests last; it is that after ${lost}`,
    );
    return fits;
  }

  /** @returns the fewest and the most requests that may have been accepted */
  checkOrder(found: Uint32Array): { readonly least: number; readonly most: number } {
    const byNumber = new Map(this.#requests.map((request) => [request.number, request]));
    const shown = new Set(this.#requests.filter(({ lasts }) => lasts));
    for (let sector = 0; sector < this.sectors; sector++) {
      const number = found[sector] ?? 0;
      const request = byNumber.get(number);
      if (request === undefined) {
        assert(number === this.#base[sector], `sector ${sector}: ${number} was never written here`);
      } else {
        assert(sector >= request.from && sector < request.to, `sector ${sector}: misdirected`);
        shown.add(request);
      }
    }
    // All that were answered before one that is there was made are there as well.
    const newest = Math.max(-1, ...[...shown].map(({ made }) => made));
    const inside = this.#requests.filter((one) => shown.has(one) || one.answered < newest);
    const before = this.#coverings(found, byNumber, new Set(inside));
    assert(inOrder(inside, before.edges), 'one order of the writes explains the content');
    return { least: inside.length, most: this.#requests.length - before.outside.size };
  }

  /**
   * Where a write that is there is not what a sector shows, it came before what is shown.
   * Nothing that is certainly missing may be there.
   */
  #coverings(
    found: Uint32Array,
    byNumber: ReadonlyMap<number, SectorRequest>,
    inside: ReadonlySet<SectorRequest>,
  ): { edges: Map<SectorRequest, Set<SectorRequest>>; outside: Set<SectorRequest> } {
    const edges = new Map<SectorRequest, Set<SectorRequest>>();
    const outside = new Set<SectorRequest>();
    for (const request of this.#requests) {
      for (let sector = request.from; sector < request.to; sector++) {
        const shown = byNumber.get(found[sector] ?? 0);
        if (shown === request) continue;
        const overwritten = shown === undefined || shown.answered < request.made;
        if (overwritten) outside.add(request);
        if (!inside.has(request)) continue;
        assert(
          !overwritten,
          `request ${request.number} is there (${request.lasts ? 'it lasts' : 'as others show'}), ` +
            `yet sector ${sector} holds ${found[sector]}, which is older`,
        );
        const later = edges.get(request) ?? new Set();
        edges.set(request, later.add(shown));
      }
    }
    return { edges, outside };
  }
}
