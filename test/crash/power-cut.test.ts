/**
 * Law 1 under power cuts, and the proof that each sync is needed: with any one of them left out,
 * the same test fails. The page cache hides a missing sync from kill -9; this disk does not.
 */
import { describe, expect, test } from 'vitest';
import { SYNC_POINTS, type SyncPoint } from '../../src/device/lower-device.ts';
import { runPowerCuts } from './power-cut.ts';

const SEEDS = 40;
const LIVES = 5;
/** Seeds tried before a missing sync counts as not found. */
const MUTANT_SEEDS = 400;
/** Where the search begins: what found it last. Any change of the data path may move these. */
const FIRST_SEEDS: Partial<Record<SyncPoint, number>> = {
  checkpoint: 104,
  settled: 195,
  recovery: 42,
};

describe('power cuts', () => {
  test(`${SEEDS * LIVES} seeded losses keep every law`, async () => {
    let losses = 0;
    let rounds = 0;
    for (let seed = 1; seed <= SEEDS; seed++) {
      const report = await runPowerCuts({ seed, lives: LIVES, moments: 10 });
      losses += report.cuts + report.kills;
      rounds += report.rounds;
    }
    expect(losses).toBe(SEEDS * LIVES);
    expect(rounds).toBeGreaterThan(0);
  });

  test('one seed is one run', async () => {
    const first = await runPowerCuts({ seed: 7, lives: 3, moments: 5 });
    const second = await runPowerCuts({ seed: 7, lives: 3, moments: 5 });
    expect(second).toEqual(first);
  });
});

describe('every sync is needed', () => {
  test.each(SYNC_POINTS)(
    'without the sync "%s" a power cut is found that breaks a law',
    async (point) => {
      const skipSyncs = new Set<SyncPoint>([point]);
      let found: number | undefined;
      const first = FIRST_SEEDS[point] ?? 1;
      for (let i = 0; i < MUTANT_SEEDS && found === undefined; i++) {
        const seed = first + i;
        const holds = await runPowerCuts({ seed, lives: LIVES, skipSyncs, moments: 10 }).then(
          () => true,
          () => false,
        );
        if (!holds) found = seed;
      }
      expect(found).toBeDefined();
    },
  );
});
