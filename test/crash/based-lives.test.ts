/** What was never written is what the volume is based on: many seeded lives. */
import { test } from 'vitest';
import { runBasedLives } from './based-lives.ts';

test.each(Array.from({ length: 30 }, (_, i) => i + 1))('seed %i', async (seed) => {
  await runBasedLives({ seed });
});
