/** Law 1 under power cuts, with disks that fail as well. */
import { describe, expect, test } from 'vitest';
import { runCutAfterRound } from './cut-after-round.ts';
import { runPowerCuts } from './power-cut.ts';

const SEEDS = 12;
const LIVES = 5;
const POINTS = ['horizon', 'settled'] as const;
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
