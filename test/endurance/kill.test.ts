/**
 * kill -9 in the middle of writes, again and again: what comes back is exactly a first part of what
 * was accepted, and nothing that a flush covered is missing. In the mode `written`, whose clients
 * reconnect by themselves, nothing that was answered is missing.
 *
 * VARVE_KILL_ROUNDS gives the rounds of each test, VARVE_KILL_SEED the seed.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { describeWith } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { killRounds, type KillOptions, type KillReport } from '../support/kill-rounds.ts';
import { varve, VARVE } from '../support/run.ts';
import { Server } from '../support/server.ts';

const ROUNDS = Number(process.env['VARVE_KILL_ROUNDS'] ?? 2);
const SEED = Number(process.env['VARVE_KILL_SEED'] ?? 1);
const ROUND_MS_MAX = 20_000;

async function rounds(options: Omit<KillOptions, 'rounds' | 'seed'>): Promise<KillReport> {
  const report = await killRounds({ ...options, rounds: ROUNDS, seed: SEED });
  console.info(JSON.stringify({ ...options, ...report }));
  expect(report.rounds).toBe(ROUNDS);
  expect(report.answered).toBeGreaterThan(ROUNDS);
  return report;
}

describeWith(['python3-nbd'], 'a volume whose server is killed', () => {
  const limit = 60_000 + ROUNDS * ROUND_MS_MAX;

  it(
    'holds a first part of requests made one after the other',
    async () => {
      await rounds({ inFlight: 1, connections: 1, writeModes: ['back'] });
    },
    limit,
  );

  it(
    'holds a first part of writes in flight on two connections',
    async () => {
      await rounds({ inFlight: 12, connections: 2, writeModes: ['back'] });
    },
    limit,
  );

  it(
    'holds all that was answered in the mode written',
    async () => {
      const report = await rounds({ inFlight: 1, connections: 1, writeModes: ['written'] });
      expect(report.taken).toBe(0);
    },
    limit,
  );

  it(
    'holds all that was answered in the mode written, in flight on two connections',
    async () => {
      const report = await rounds({ inFlight: 12, connections: 2, writeModes: ['written'] });
      expect(report.taken).toBe(0);
    },
    limit,
  );
});

describeWith([], 'a creation that is killed', () => {
  it.each([
    ['in its folder', false],
    ['with log and final storage elsewhere', true],
  ])('is made again, and leaves nothing of the first: %s', async (_, isElsewhere) => {
    using directory = temporaryDirectory();
    const data = join(directory.path, 'data');
    const elsewhere = join(directory.path, 'elsewhere');
    mkdirSync(elsewhere);
    const words = ['create', 'disk', '--size', '64M', '--log-size', '512M'];
    if (isElsewhere) words.push('--log', join(elsewhere, 'log'));
    if (isElsewhere) words.push('--final', join(elsewhere, 'final'));
    let killed = 0;
    for (let afterMs = 200; killed < 3; afterMs += 50) {
      const program = spawn(process.execPath, [VARVE, ...words, '--dir', data]);
      await delay(afterMs);
      if (program.exitCode !== null) break;
      program.kill('SIGKILL');
      await once(program, 'exit');
      killed += 1;
    }
    expect(killed).toBeGreaterThan(0);
    const list = await varve(data, ['list', '--json']);
    if (JSON.parse(list).length === 0) await varve(data, words);
    await using server = await Server.start(data);
    expect((await server.info()).head.generation).toBe(0);
    const within = isElsewhere ? [] : ['final.raw', 'log'];
    const files = ['final.sums', 'lock', 'undo', 'volume.json', ...within].sort();
    expect(readdirSync(join(data, 'disk')).sort()).toEqual(files);
    expect(readdirSync(elsewhere).sort()).toEqual(isElsewhere ? ['final', 'log'] : []);
    expect(await server.stop()).toBe(0);
  });
});
