/**
 * Giving up what a device refuses. Some places fail for good; a device that is away may come back
 * whole, and may be back by the time that it is asked. What is given up stays so.
 */
import type { VarveError } from '../base/errors.ts';
import type { Block } from '../base/units.ts';
import { isUnreadable } from '../base/unreadable.ts';

/** What is refused: a chunk of the log, a page of sums, or one block in the log or at home. */
export type RefusedKind = 'chunk' | 'sums' | 'log' | 'home';

export interface Refused {
  readonly kind: RefusedKind;
  /** Its first block; each kind has attempts of its own there. */
  readonly first: Block;
  readonly failure: VarveError;
  /** @see Means.givesUp */
  readonly givesUp: (kind: RefusedKind, first: Block) => boolean;
  /** Whether the device reads anything at all. */
  readonly isThere: () => Promise<boolean>;
}

/** `lastLook` for whoever is told what to ask, and not whether to give up. */
export type LastLook = <T>(
  first: Block,
  failure: VarveError,
  read: () => Promise<T>,
) => Promise<T | undefined>;

/**
 * @param read - gives undefined, or throws, where there is still nothing to be had
 * @returns undefined: it is given up
 * @throws VarveError `failure`: the round is to be made again
 */
export async function lastLook<T>(
  { kind, first, failure, givesUp, isThere }: Refused,
  read: () => Promise<T | undefined>,
): Promise<T | undefined> {
  if (!givesUp(kind, first) || !(await isThere())) throw failure;
  let found: T | undefined;
  try {
    found = await read();
  } catch (error) {
    if (!isUnreadable(error)) throw error;
  }
  if (found === undefined && !(await isThere())) throw failure;
  return found;
}
