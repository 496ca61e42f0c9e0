/** What changed and when, as a volume tells it, against the model and by single stories. */
import { describe, expect, test } from 'vitest';
import { runPast, type PastCounts } from './past-run.ts';

describe('the past of a volume', () => {
  test('is told as the model has it, over random lives', async () => {
    const total: Partial<PastCounts> = {};
    for (let seed = 1; seed <= 12; seed++) {
      const counts = await runPast({ seed });
      for (const [what, count] of Object.entries(counts)) {
        Object.assign(total, { [what]: (Reflect.get(total, what) ?? 0) + count });
      }
    }
    expect(total.diffs).toBeGreaterThan(50);
    expect(total.straddling).toBeGreaterThan(50);
  });
});
