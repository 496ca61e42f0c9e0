/**
 * Law 1 under power cuts, with disks that fail as well, and the proof that each sync is needed: with
 * any one of them left out, the same checks fail. The page cache hides a missing sync from kill -9; this disk does not.
 */
import { describe, expect, test } from 'vitest';
import { SYNC_POINTS, type SyncPoint } from '../../src/device/lower-device.ts';
import { runCutAfterRound } from './cut-after-round.ts';
import { runPinnedLives } from './pinned-lives.ts';
import { runPowerCuts } from './power-cut.ts';

const SEEDS = 20;
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

  test(`${SEEDS * LIVES} more, on disks whose syncs and writes fail, keep every law`, async () => {
    let faults = 0;
    let reslots = 0;
    for (let seed = 1; seed <= SEEDS; seed++) {
      const report = await runPowerCuts({ seed, lives: LIVES, moments: 10, trouble: true });
      faults += report.faults;
      reslots += report.reslots;
    }
    expect(faults).toBeGreaterThan(SEEDS);
    expect(reslots).toBeGreaterThan(SEEDS / 2);
  });

  test('a cut at any operation after the turning points of a round keeps every law', async () => {
    for (let seed = 1; seed <= 2; seed++) {
      for (const point of POINTS) {
        for (let operations = 1; operations <= 60; operations += 2) {
          await runCutAfterRound({ seed, point, operations });
        }
      }
    }
  });

  test('one seed is one run', async () => {
    const first = await runPowerCuts({ seed: 7, lives: 3, moments: 5 });
    const second = await runPowerCuts({ seed: 7, lives: 3, moments: 5 });
    expect(second).toEqual(first);
  });
});

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
