import type { Generation } from '../base/units.ts';

/** How far a round has got that keeps before-images. */
export interface Keeping {
  readonly target: Generation;
  /** Moments below its end that are kept and were not when it began: they need images of each step. */
  readonly added: Set<Generation>;
  steps: number;
  /** What is put already: beside older images, */
  readonly there: ReadonlySet<string>;
  /** and of the step that was not ended. @see factOf */
  readonly put: Set<string>;
}
