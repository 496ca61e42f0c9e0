/** Where a round is that keeps before-images: it goes on from there when it found no room. */
import type { Generation } from '../base/units.ts';
import type { BlankParts } from './blank-parts.ts';

/** Of one round, until the horizon has come to its end. */
export interface Keeping {
  readonly target: Generation;
  /** `Undo.lostSyncs` when it began: with a later one, what was put may be gone. */
  readonly lostSyncs: number;
  /** Moments below its end that are kept and were not when it began: they need images of each step. */
  readonly added: Set<Generation>;
  /** What the round leaves alone; the steps go by it. */
  readonly blank: BlankParts;
  steps: number;
  /** What is put already: beside older images, */
  readonly there: ReadonlySet<string>;
  /** and of the steps that were not ended. @see factOf */
  readonly put: Set<string>;
  /** The last of these. */
  putStep: number;
}
