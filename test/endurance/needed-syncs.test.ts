/**
 * The proof that each sync is needed: with any one of them left out, the checks of
 * test/crash/power-cut.test.ts fail. The page cache hides a missing sync from kill -9; this disk does not.
 */
import { describe, expect, test } from 'vitest';
import { SYNC_POINTS, type SyncPoint } from '../../src/device/lower-device.ts';
import { runCutAfterRound } from '../crash/cut-after-round.ts';
import { runPinnedLives } from '../crash/pinned-lives.ts';
import { runPowerCuts } from '../crash/power-cut.ts';

const LIVES = 5;
/** Seeds tried before a missing sync counts as not found. */
const MUTANT_SEEDS = 200;
const POINTS = ['horizon', 'settled'] as const;
/** Seeds that find what most others don't; from there on all are tried. */
const QUICK: Partial<Record<SyncPoint, number>> = {
  recovery: 202,
  settled: 135,
  reslot: 50,
  checkpoint: 27,
  'create-log': 30,
  'create-final': 52,
  'create-sums': 29,
};

/** Syncs of a round: cuts aimed at it find them sooner than whole lives do. */
const OF_ROUNDS: ReadonlySet<SyncPoint> = new Set(['checkpoint', 'horizon', 'settled']);

async function breaks(seed: number, missing: SyncPoint): Promise<boolean> {
  const skipSyncs = new Set([missing]);
  try {
    if (missing === 'undo') {
      await runPinnedLives({ seed, lives: 6, steps: 100, skipSyncs });
      return false;
    }
    if (!OF_ROUNDS.has(missing)) {
      const trouble = missing === 'reslot';
      await runPowerCuts({ seed, lives: LIVES, skipSyncs, moments: 10, plain: !trouble, trouble });
      return false;
    }
    for (const point of POINTS) {
      for (let operations = 1; operations <= 60; operations += 4) {
        await runCutAfterRound({ seed, point, operations, skipSyncs });
      }
    }
    return false;
  } catch {
    return true;
  }
}

describe('every sync is needed', () => {
  test.each(SYNC_POINTS)('without the sync "%s" some power cut breaks a law', async (point) => {
    let found: number | undefined;
    const first = QUICK[point] ?? 1;
    for (let seed = first; seed < first + MUTANT_SEEDS && found === undefined; seed++) {
      if (await breaks(seed, point)) found = seed;
    }
    expect(found).toBeDefined();
  });
});
