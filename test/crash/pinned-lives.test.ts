/** Snapshots outlive the window, whatever crashes: many seeded lives. */
import { expect, test } from 'vitest';
import { runPinnedLives } from './pinned-lives.ts';

test.each(Array.from({ length: 25 }, (_, i) => i + 1))('seed %i', async (seed) => {
  const report = await runPinnedLives({ seed, lives: 4, steps: 150 });
  expect(report.snapshots).toBeGreaterThan(0);
});
