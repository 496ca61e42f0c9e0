/** Questions about before-images, beside what is done to the segments that they lie in. */
import { expect, it } from 'vitest';
import { block, generation } from '../../src/base/units.ts';
import { UndoBench, zeros } from './undo-bench.ts';

// The question is of a moment between those that needed something in the segment: fences say that it
// may have an answer. Its headers were read as holes, and the question was refused as for damage; a
// rollback stayed unfinished because some snapshot was deleted beside it.
it.each([1, 2, 3, 4, 5, 6, 7, 8, 9])(
  'what is freed under a question refuses nothing, seed %i',
  async (seed) => {
    const bench = new UndoBench(seed);
    await bench.world.run(async () => {
      const undo = await bench.open();
      await undo.put([zeros(5, 1, 3), zeros(6, 10, 12)], generation(20));
      await undo.sync();
      const [segment] = undo.segments.keys();
      if (segment === undefined) throw new Error('there is one');
      const asked = undo.images.overlapping(block(5), 2, generation(5));
      await undo.free(segment);
      expect(await asked).toEqual([]);
    });
  },
);
