/**
 * Moments sent to a copy, interrupted at random points by kill -9 and resumed: the copy equals
 * the disk at each. VARVE_SEND_MOMENTS gives their number (50 shows it in full), VARVE_SEND_SEED
 * the seed.
 */
import { expect, test } from 'vitest';
import { sendRounds } from '../support/send-rounds.ts';

const MOMENTS = Number(process.env['VARVE_SEND_MOMENTS'] ?? 6);
const SEED = Number(process.env['VARVE_SEND_SEED'] ?? 1);

test(
  'a copy equals the disk at each moment that was sent',
  async () => {
    const report = await sendRounds({ moments: MOMENTS, seed: SEED });
    console.info(JSON.stringify(report));
    expect(report).toMatchObject({ sent: MOMENTS, compared: MOMENTS });
    expect(report.killed).toBeGreaterThan(MOMENTS / 10);
    // How many of them are resumed depends on when they are killed; of fifty about a third.
    expect(report.resumed).toBeGreaterThanOrEqual(Math.floor(MOMENTS / 20));
  },
  120_000 + MOMENTS * 30_000,
);
