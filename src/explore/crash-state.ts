/**
 * The states that a power cut may leave, and when two of them are the same disk.
 *
 * What is allowed: everything that a flush covers is there; between two flushes any set of requests
 * may be there, each whole, save that one with FUA is there as soon as a later one is. Of those
 * that are there the later one wins where they overlap.
 *
 * Requests are called by their position in the stretch of history that is explored.
 */
import { assert } from '../base/assert.ts';
import { scramble } from '../base/mix.ts';
import type { Generation } from '../base/units.ts';
import type { RequestRecord } from '../device/request-record.ts';
import { Coverage } from './coverage.ts';

/** The requests between two flushes: positions from `first` to `end` - 1. */
export interface Epoch {
  readonly index: number;
  readonly first: number;
  readonly end: number;
}

export interface Stretch {
  /** Everything up to here is there in every state. */
  readonly from: Generation;
  /** After `from`, without a gap. */
  readonly requests: readonly RequestRecord[];
  readonly epochs: readonly Epoch[];
  /** Those that have a request before them, each once. */
  readonly flushes: number;
  readonly coverage: Coverage;
}

/** Of a request torn by the cut: its sectors of 512 bytes from `from` to `to` - 1 are there. */
export interface Tear {
  readonly from: number;
  readonly to: number;
}

export type StateKind = 'flush' | 'prefix' | 'subset' | 'order' | 'torn';

export interface CrashState {
  readonly kind: StateKind;
  readonly epoch: Epoch;
  /** Positions of the epoch's requests that are there, ascending. */
  readonly present: readonly number[];
  /** One of `present` that reached the disk after all others. */
  readonly last: number | undefined;
  /** Of the newest of `present`. */
  readonly tear: Tear | undefined;
}

/**
 * @param requests - after `from`, in generation order
 * @param flushes - generations of flushes, ascending
 */
export function makeStretch(
  from: Generation,
  requests: readonly RequestRecord[],
  flushes: readonly Generation[],
): Stretch {
  const epochs: Epoch[] = [];
  let first = 0;
  let marks = 0;
  const close = (end: number): void => {
    if (end > first || epochs.length === 0) epochs.push({ index: epochs.length, first, end });
    first = end;
  };
  for (const flush of flushes) {
    const end = Math.min(Math.max(0, flush - from), requests.length);
    if (end <= first) continue;
    close(end);
    marks += 1;
  }
  if (first < requests.length || epochs.length === 0) close(requests.length);
  requests.forEach(({ generation }, position) => {
    assert(generation === from + position + 1, 'requests follow each other without a gap');
  });
  return { from, requests, epochs, flushes: marks, coverage: new Coverage(requests) };
}

export function subsetState(epoch: Epoch, present: readonly number[]): CrashState {
  const isPrefix = present.length === 0 || present.at(-1) === epoch.first + present.length - 1;
  const isWhole = isPrefix && (present.length === 0 || present.at(-1) === epoch.end - 1);
  const kind = isWhole ? 'flush' : isPrefix ? 'prefix' : 'subset';
  return { kind, epoch, present, last: undefined, tear: undefined };
}

/** Everything of the epoch before position `end`. */
export function prefixState(epoch: Epoch, end: number): CrashState {
  return subsetState(epoch, range(epoch.first, end));
}

export function range(from: number, end: number): readonly number[] {
  return Array.from({ length: Math.max(0, end - from) }, (_, at) => from + at);
}

/** The requests before the newest that is there, and are not there themselves. */
export function missingOf({ epoch, present }: CrashState): readonly number[] {
  const there = new Set(present);
  return range(epoch.first, (present.at(-1) ?? epoch.first - 1) + 1).filter((at) => !there.has(at));
}

/** The same with what has to be there too: requests with FUA before the newest. */
export function closure(
  { requests }: Stretch,
  epoch: Epoch,
  present: readonly number[],
): readonly number[] {
  const there = new Set(present);
  const newest = present.at(-1) ?? epoch.first - 1;
  return range(epoch.first, newest + 1).filter((at) => there.has(at) || requests[at]?.fua === true);
}

export function isAllowed(stretch: Stretch, state: CrashState): boolean {
  return closure(stretch, state.epoch, state.present).length === state.present.length;
}

/** Sums of pieces with their content, in two halves of 32 bits. */
class Digest {
  #low: number;
  #high: number;

  constructor(base?: Digest) {
    this.#low = base === undefined ? 0 : base.#low;
    this.#high = base === undefined ? 0 : base.#high;
  }

  add(piece: number, content: number): void {
    this.#low ^= scramble(scramble(piece + 0x9e3779b9) + content);
    this.#high ^= scramble(scramble(piece + 0x7f4a7c15) ^ Math.imul(content, 0x2545f491));
  }

  get text(): string {
    return `${(this.#low >>> 0).toString(36)}.${(this.#high >>> 0).toString(36)}`;
  }
}

/** Which request each piece of the disk is of, where it is not what the epoch began with. */
export function winnersOf({ coverage }: Stretch, state: CrashState): Map<number, number> {
  const winners = new Map<number, number>();
  const apply = (position: number): void => {
    for (const piece of coverage.piecesOf(position)) winners.set(piece, position);
  };
  for (const position of state.present) if (position !== state.last) apply(position);
  if (state.last !== undefined) apply(state.last);
  return winners;
}

/** Two states with the same key are the same disk, as far as checksums tell. */
export class StateKeys {
  readonly #stretch: Stretch;
  /** What each epoch begins with. */
  readonly #bases: readonly Digest[];

  constructor(stretch: Stretch) {
    this.#stretch = stretch;
    const bases: Digest[] = [];
    const digest = new Digest();
    const now = new Map<number, number>();
    const { coverage } = stretch;
    for (const { first, end } of stretch.epochs) {
      bases.push(new Digest(digest));
      for (let position = first; position < end; position++) {
        const contents = coverage.contentsOf(position);
        coverage.piecesOf(position).forEach((piece, at) => {
          const before = now.get(piece);
          const content = contents[at] ?? 0;
          if (before !== undefined) digest.add(piece, before);
          digest.add(piece, content);
          now.set(piece, content);
        });
      }
    }
    this.#bases = bases;
  }

  of(state: CrashState): string {
    const { tear, present, epoch } = state;
    const newest = present.at(-1);
    if (tear !== undefined && newest !== undefined) {
      const rest = subsetState(epoch, present.slice(0, -1));
      return `${this.of(rest)}/${newest}:${tear.from}-${tear.to}`;
    }
    const { coverage } = this.#stretch;
    const digest = new Digest(this.#bases[epoch.index]);
    for (const [piece, position] of winnersOf(this.#stretch, state)) {
      const before = coverage.newestBefore(piece, epoch.first);
      const content = coverage.contentOf(position, piece);
      const held = coverage.contentOf(before, piece);
      if (held === content) continue;
      if (held >= 0) digest.add(piece, held);
      digest.add(piece, content);
    }
    return digest.text;
  }
}
