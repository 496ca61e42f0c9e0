/** Snapshots outlive the window, whatever crashes: many seeded lives. */
import { expect, test } from 'vitest';
import { runPinnedLives } from './pinned-lives.ts';

test.each(Array.from({ length: 25 }, (_, i) => i + 1))('seed %i', async (seed) => {
  const report = await runPinnedLives({ seed, lives: 4, steps: 150 });
  expect(report.snapshots).toBeGreaterThan(0);
});

test('a life in which the log wraps a hundred times', async () => {
  const report = await runPinnedLives({ seed: 100, lives: 6, steps: 7000 });
  expect(report.wraps).toBeGreaterThan(100);
  expect(report.snapshots).toBeGreaterThan(100);
  expect(report.freedBytes).toBeGreaterThan(0);
});
