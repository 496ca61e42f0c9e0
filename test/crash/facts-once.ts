/** What a crash leaves of a join or of a round counts once, or what is promised is too much. */
import { assert } from '../../src/base/assert.ts';
import { factsOf } from '../../log/before-image.ts';
import type { Volume } from '../../src/volume/volume.ts';

/** Every before-image is on the undo device once. Waits until no round is under way. */
export async function needFactsOnce({ core: { undo, home } }: Volume): Promise<void> {
  await home.run(async () => {
    const facts = new Set<string>();
    for (const batch of undo.batches()) {
      for (const { image } of await undo.imagesOf(batch)) {
        for (const fact of factsOf(image)) {
          assert(!facts.has(fact), 'a before-image is there once');
          facts.add(fact);
        }
      }
    }
  });
}
