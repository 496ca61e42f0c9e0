/**
 * Power cuts beneath the real server: it writes and syncs by real system calls, and a cut takes
 * what the disks were not told to flush, in any part and order, torn at sectors. What comes back is
 * exactly a first part of what was accepted, with everything that a flush, FUA or the write mode
 * promised. And disks that lie about flushes are found out, so the test can fail.
 *
 * VARVE_CUT_ROUNDS gives the rounds of each test, VARVE_CUT_SEED the seed.
 */
import { expect, it } from 'vitest';
import { SeededRandom } from '../sim/random.ts';
import { describeWith } from '../support/clients.ts';
import { killRounds, type KillOptions } from '../support/kill-rounds.ts';
import { PowerCuts, type PowerCutOptions } from '../support/power-cuts.ts';

const ROUNDS = Number(process.env['VARVE_CUT_ROUNDS'] ?? 3);
const SEED = Number(process.env['VARVE_CUT_SEED'] ?? 1);
const ROUND_MS_MAX = 20_000;
const LIMIT_MS = 60_000 + ROUNDS * ROUND_MS_MAX;
/** Long requests, so that the log wraps within a few lives. */
const REQUEST_SECTORS_MAX = 1024;
/** In so many rounds a lie is found. */
const LIE_ROUNDS_MAX = 10;

type Work = Pick<KillOptions, 'inFlight' | 'connections' | 'rounds' | 'writeModes'>;

async function cutRounds(work: Work, disks: Omit<PowerCutOptions, 'random'> = {}): Promise<void> {
  const random = new SeededRandom(SEED).fork('power-cuts');
  let cuts: PowerCuts | undefined;
  const report = await killRounds({
    ...work,
    requestSectorsMax: REQUEST_SECTORS_MAX,
    seed: SEED,
    makeBlow: async (directory) => {
      cuts = await PowerCuts.install(directory, { ...disks, random });
      return cuts;
    },
  });
  console.info(JSON.stringify({ ...work, ...report, ...cuts?.disks.counts }));
  expect(report.rounds).toBe(work.rounds);
  expect(report.answered).toBeGreaterThan(work.rounds);
}

const clients = ['python3-nbd', 'nbdfuse', 'fusermount3'] as const;
describeWith(clients, 'a volume whose disks lose power', () => {
  const writeModes = ['back', 'written', 'through'] as const;

  it(
    'holds a first part of requests made one after the other',
    async () => {
      await cutRounds({ inFlight: 1, connections: 1, rounds: ROUNDS, writeModes });
    },
    LIMIT_MS,
  );

  it(
    'holds a first part of writes in flight on two connections',
    async () => {
      await cutRounds({ inFlight: 12, connections: 2, rounds: ROUNDS, writeModes });
    },
    LIMIT_MS,
  );

  it(
    'is found to have lost something when its disks lie about flushes',
    async () => {
      const work = { inFlight: 1, connections: 1, rounds: LIE_ROUNDS_MAX };
      const lie = { flushes: 'forgets', remains: 'first' } as const;
      const told = cutRounds({ ...work, writeModes: ['through'] }, lie);
      const failure: unknown = await told.then(
        () => undefined,
        (error: unknown) => error,
      );
      const found = failure instanceof Error ? `${failure.message}: ${String(failure.cause)}` : '';
      console.info(found);
      expect(found).toMatch(/^seed \d+, round \d+: /);
      expect(found).toMatch(/the first \d+ of \d+ requests last|VOLUME_[A-Z]+/);
    },
    60_000 + LIE_ROUNDS_MAX * ROUND_MS_MAX,
  );
});
