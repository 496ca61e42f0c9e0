/**
 * kill -9 under fio, which checks what it wrote by checksums of its own: while it writes, and after
 * the server is back, as far as its state file says that writes were answered.
 *
 * VARVE_KILL_ROUNDS gives the rounds, VARVE_KILL_SEED the seed.
 */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { SeededRandom } from '../sim/random.ts';
import { describeWith } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { LibNbd } from '../support/libnbd.ts';
import { runToEnd, varve, type Ended } from '../support/run.ts';
import { Server } from '../support/server.ts';

const ROUNDS = Number(process.env['VARVE_KILL_ROUNDS'] ?? 2);
const SEED = Number(process.env['VARVE_KILL_SEED'] ?? 1);
const ROUND_MS_MAX = 30_000;
const MIB = 1024 ** 2;
const SIZE = 256 * MIB;
const JOBS = 4;
const WRITE_MS_MAX = 1500;

interface Job {
  readonly directory: string;
  readonly uri: string;
  readonly seed: number;
}

function fio({ directory, uri, seed }: Job, more: readonly string[]): Promise<Ended> {
  const words = [
    '--name=job',
    '--ioengine=nbd',
    `--uri=${uri}`,
    '--rw=randwrite',
    '--bs=16k',
    // With more of its own in flight, fio takes what was never answered for written.
    '--iodepth=1',
    `--numjobs=${JOBS}`,
    `--size=${SIZE / JOBS}`,
    `--offset_increment=${SIZE / JOBS}`,
    '--verify=crc32c',
    `--randseed=${seed}`,
    '--allrandrepeat=0',
    '--output-format=json',
    `--aux-path=${directory}`,
  ];
  return runToEnd('fio', [...words, ...more]);
}

function writtenBy(ended: Ended): number {
  const { stdout } = ended;
  const told: { jobs: { write: { total_ios: number } }[] } = JSON.parse(
    stdout.slice(stdout.indexOf('{'), stdout.lastIndexOf('}') + 1),
  );
  return told.jobs.reduce((sum, { write }) => sum + write.total_ios, 0);
}

/**
 * Blocks that are not what fio's state says, at most one of each of its jobs being in doubt: the
 * write that was in flight at the kill, which fio sometimes takes for answered.
 */
async function badBlocks(job: Job): Promise<readonly string[]> {
  const more = ['--verify_only=1', '--verify_state_load=1', '--continue_on_error=verify'];
  const { stderr } = await fio(job, more);
  const found = [...stderr.matchAll(/^verify: .* at file (job\.\d)\.0 offset (\d+)/gm)];
  return [...new Set(found.map(([, name = '', offset = '']) => `${name} ${offset}`))];
}

function inDoubt(blocks: readonly string[]): boolean {
  return new Set(blocks.map((block) => block.split(' ')[0])).size === blocks.length;
}

describeWith(['fio', 'python3-nbd'], 'a server that is killed under fio', () => {
  it(
    'has all that fio was told is written, by the checksums of fio',
    async () => {
      using directory = temporaryDirectory();
      const data = join(directory.path, 'data');
      await varve(data, ['create', 'disk', '--size', '256M', '--log-size', '96M']);
      const random = new SeededRandom(SEED).fork('fio-kill');
      let written = 0;
      for (let round = 1; round <= ROUNDS; round++) {
        await using server = await Server.start(data, { writeMode: 'written' });
        const job = { directory: directory.path, uri: server.uri(), seed: SEED * 1000 + round };
        const state = ['--do_verify=0', '--verify_backlog=256', '--verify_state_save=1'];
        const [ended] = await Promise.all([
          fio(job, state),
          delay(random.between(300, WRITE_MS_MAX)).then(() => server.kill()),
        ]);
        written += writtenBy(ended);
        await using again = await Server.start(data, { writeMode: 'written' });
        const bad = await badBlocks(job);
        expect(inDoubt(bad), `round ${round}: ${bad.join()}`).toBe(true);
        if (round < ROUNDS) {
          expect(await again.stop()).toBe(0);
          continue;
        }
        // It would have seen a loss.
        await using client = new LibNbd();
        const disk = await client.open(again.uri());
        await disk.trim({ offset: 0, length: SIZE });
        expect(inDoubt(await badBlocks(job))).toBe(false);
      }
      console.info(JSON.stringify({ rounds: ROUNDS, seed: SEED, written }));
      expect(written).toBeGreaterThan(ROUNDS * 100);
    },
    60_000 + ROUNDS * ROUND_MS_MAX,
  );
});
