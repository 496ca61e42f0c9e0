/**
 * Fifty moments sent to a copy, interrupted at random points by kill -9 and resumed: the copy equals
 * the disk at each. VARVE_SEND_MOMENTS gives their number, VARVE_SEND_SEED the seed.
 */
import { expect, test } from 'vitest';
import { sendRounds } from '../support/send-rounds.ts';

const MOMENTS = Number(process.env['VARVE_SEND_MOMENTS'] ?? 50);
const SEED = Number(process.env['VARVE_SEND_SEED'] ?? 1);

test(
  'a copy equals the disk at each moment that was sent',
  async () => {
    const report = await sendRounds({ moments: MOMENTS, seed: SEED });
    console.info(JSON.stringify(report));
    expect(report).toMatchObject({ sent: MOMENTS, compared: MOMENTS });
    expect(Math.min(report.killed, report.resumed)).toBeGreaterThan(MOMENTS / 10);
  },
  120_000 + MOMENTS * 30_000,
);
