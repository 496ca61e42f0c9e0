/**
 * Law 1 under power cuts, and the proof that each sync is needed: with any one of them left out,
 * the same test fails. The page cache hides a missing sync from kill -9; this disk does not.
 */
import { describe, expect, test } from 'vitest';
import { SYNC_POINTS, type SyncPoint } from '../../src/device/lower-device.ts';
import { runPowerCuts } from './power-cut.ts';

const SEEDS = 40;
const LIVES = 5;
/** Lives tried before a missing sync counts as not found. */
const MUTANT_SEEDS = 200;

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
      for (let seed = 1; seed <= MUTANT_SEEDS && found === undefined; seed++) {
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
