/** Automatic snapshots, whatever crashes and however clocks go: many seeded lives. */
import { expect, test } from 'vitest';
import { runRetentionLives } from './retention-lives.ts';

test.each(Array.from({ length: 12 }, (_, i) => i + 1))('seed %i', async (seed) => {
  const counts = await runRetentionLives({ seed, lives: 4, steps: 200 });
  expect(counts.rounds).toBeGreaterThan(0);
});
