/** Clones of clones, through cuts at any point: some seeded lives. */
import { expect, test } from 'vitest';
import { runCloneLives } from './clone-lives.ts';

test('each volume is its own, whole, and what it needs stays', async () => {
  const total = { clones: 0, flattened: 0, refused: 0, deleted: 0, cuts: 0 };
  for (let seed = 1; seed <= 8; seed++) {
    const counts = await runCloneLives({ seed });
    total.clones += counts.clones;
    total.flattened += counts.flattened;
    total.refused += counts.refused;
    total.deleted += counts.deleted;
    total.cuts += counts.cuts;
  }
  for (const count of Object.values(total)) expect(count).toBeGreaterThan(0);
}, 300_000);
