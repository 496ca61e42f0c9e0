/** Rollbacks in lives with power cuts; each thing that may happen to one has to have happened. */
import { expect, it } from 'vitest';
import { runRollbackLives } from './rollback-lives.ts';

const SEEDS = 12;

it('leaves what was before or what was asked for, wherever the power goes', async () => {
  const total = new Map<string, number>();
  for (let seed = 1; seed <= SEEDS; seed++) {
    const counts = await runRollbackLives({ seed });
    for (const [what, count] of Object.entries(counts)) {
      total.set(what, (total.get(what) ?? 0) + Number(count));
    }
  }
  for (const [what, count] of total) expect(count, what).toBeGreaterThan(0);
}, 120_000);
