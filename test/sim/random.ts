/**
 * Seeded random numbers: xoshiro128**, its state filled by splitmix32. The same seed gives the
 * same run on every machine, so a failing seed is a whole bug report.
 * Source: https://prng.di.unimi.it (public domain).
 *
 * Invariants:
 *   - A stream is touched by one user only: what one part draws never shifts what another draws
 *     (`fork` gives each its own).
 */
import { assert } from '../../src/base/assert.ts';
import type { Random } from '../../src/base/world.ts';

const WORD = 2 ** 32;

function splitmix32(state: number): () => number {
  let at = state >>> 0;
  return () => {
    at = (at + 0x9e3779b9) >>> 0;
    let mixed = at ^ (at >>> 16);
    mixed = Math.imul(mixed, 0x21f0aaad);
    mixed ^= mixed >>> 15;
    mixed = Math.imul(mixed, 0x735a2d97);
    return (mixed ^ (mixed >>> 15)) >>> 0;
  };
}

function labelHash(label: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < label.length; at++) {
    hash = Math.imul(hash ^ label.charCodeAt(at), 0x01000193);
  }
  return hash >>> 0;
}

export class SeededRandom implements Random {
  readonly #seed: number;
  #a: number;
  #b: number;
  #c: number;
  #d: number;

  /** @param seed - a safe integer, 0 or greater */
  constructor(seed: number) {
    assert(Number.isSafeInteger(seed) && seed >= 0, 'a seed is a safe integer from 0 on');
    this.#seed = seed;
    const low = splitmix32(seed % WORD);
    const high = splitmix32(Math.floor(seed / WORD) ^ 0x5bd1e995);
    this.#a = low() ^ high();
    this.#b = low() ^ high();
    this.#c = low() ^ high();
    this.#d = (low() ^ high()) | 1; // never all zero: that state would stay zero
  }

  /** Uniform in [0, 2^32). */
  next32(): number {
    const product = Math.imul(this.#b, 5);
    const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0;
    const shifted = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= shifted;
    this.#d = (this.#d << 11) | (this.#d >>> 21);
    return result;
  }

  /** Uniform in [0, 1), with 53 bits. */
  fraction(): number {
    return ((this.next32() >>> 5) * 2 ** 26 + (this.next32() >>> 6)) / 2 ** 53;
  }

  /** Uniform integer in [0, bound). */
  below(bound: number): number {
    assert(bound > 0, 'a bound is positive');
    return bound <= WORD
      ? Math.floor((this.next32() / WORD) * bound)
      : Math.floor(this.fraction() * bound);
  }

  /** Uniform integer in [min, max], both included. */
  between(min: number, max: number): number {
    return min + this.below(max - min + 1);
  }

  chance(probability: number): boolean {
    return this.next32() < probability * WORD;
  }

  pick<T>(list: readonly T[]): T {
    const picked = list[this.below(list.length)];
    assert(picked !== undefined, 'one picks from a list without holes');
    return picked;
  }

  /** In place; returns its argument. */
  shuffle<T>(list: T[]): T[] {
    for (let last = list.length - 1; last > 0; last--) {
      const other = this.below(last + 1);
      const kept = list[last];
      const moved = list[other];
      if (kept === undefined || moved === undefined) continue;
      list[last] = moved;
      list[other] = kept;
    }
    return list;
  }

  bytes(count: number): Uint8Array {
    const result = new Uint8Array(count);
    this.fill(result);
    return result;
  }

  fill(target: Uint8Array): void {
    for (let at = 0; at < target.length; at += 4) {
      const word = this.next32();
      target[at] = word;
      if (at + 1 < target.length) target[at + 1] = word >>> 8;
      if (at + 2 < target.length) target[at + 2] = word >>> 16;
      if (at + 3 < target.length) target[at + 3] = word >>> 24;
    }
  }

  /** An own stream for `label`: depends on the seed and the label, not on what was drawn so far. */
  fork(label: string): SeededRandom {
    const child = splitmix32((this.#seed % WORD) ^ labelHash(label));
    const high = Math.floor(this.#seed / WORD) % 2 ** 21;
    return new SeededRandom(((child() ^ high) >>> 11) * WORD + child());
  }
}
