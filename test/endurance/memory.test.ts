/**
 * Memory that runs short: a server whose control group shrinks beneath it, until the kernel ends it,
 * has lost nothing of what it promised; one with a small heap and a large ring goes on.
 *
 * VARVE_SQUEEZE_ROUNDS gives the rounds, VARVE_SQUEEZE_SEED the seed.
 */
import { describe, expect, it } from 'vitest';
import { SeededRandom } from '../sim/random.ts';
import { describeWith } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { killRounds } from '../support/kill-rounds.ts';
import { LibNbd } from '../support/libnbd.ts';
import { MemoryGroup } from '../support/memory-group.ts';
import { MemorySqueeze } from '../support/memory-squeeze.ts';
import { expectSame, RequestModel, send } from '../support/request-model.ts';
import { varve } from '../support/run.ts';
import { RSS_REST_MAX, Server } from '../support/server.ts';

const ROUNDS = Number(process.env['VARVE_SQUEEZE_ROUNDS'] ?? 2);
const SEED = Number(process.env['VARVE_SQUEEZE_SEED'] ?? 1);
const ROUND_MS_MAX = 20_000;
const MIB = 1024 ** 2;
const SIZE = 128 * MIB;

describeWith(['python3-nbd'], 'a server that is short of memory', () => {
  const group = MemoryGroup.make();
  const squeezed = group === undefined ? describe.skip : describe;
  if (group === undefined) console.warn('SKIPPED: no control group that limits memory');

  squeezed('in a control group that shrinks', () => {
    it(
      'keeps what it promised when the kernel ends it',
      async () => {
        if (group === undefined) throw new Error('there is a group');
        const squeeze = new MemorySqueeze(group);
        const work = { rounds: ROUNDS, seed: SEED, inFlight: 12, connections: 2 };
        const report = await killRounds({
          ...work,
          writeModes: ['back', 'written', 'through'],
          requestSectorsMax: 1024,
          makeBlow: async () => squeeze,
        });
        const { ended, lowestBytes } = squeeze;
        console.info(JSON.stringify({ ...work, ...report, ended, lowestBytes }));
        expect(report.rounds).toBe(ROUNDS);
        expect(ended).toBeGreaterThan(0);
      },
      60_000 + ROUNDS * ROUND_MS_MAX,
    );
  });

  it('goes on with a heap of 24 MiB beside a ring of 512 MiB', async () => {
    using directory = temporaryDirectory();
    const sizes = ['--size', '128M', '--log-size', '128M', '--ring-size', '512M'];
    await varve(directory.path, ['create', 'disk', ...sizes]);
    const launcher = ['env', 'NODE_OPTIONS=--max-old-space-size=24'];
    await using server = await Server.start(directory.path, { launcher });
    await using client = new LibNbd();
    const disk = await client.open(server.uri());
    const model = new RequestModel(SIZE);
    const random = new SeededRandom(SEED);
    const one = async (): Promise<void> => {
      for (let i = 0; i < 1200; i++) {
        const request = model.any(random);
        await send(disk, request);
        model.requests.push(request);
        if (random.chance(0.01)) await disk.flush();
      }
    };
    await one();
    expectSame(await disk.readAll(), model.advance(), 'the head');
    const info = await server.info();
    const rest = server.rssBytesMax() - info.ring.sizeBytes - info.indexBytes;
    console.info(JSON.stringify({ rounds: info.counters.rounds, rest }));
    expect(rest).toBeLessThan(RSS_REST_MAX);
    await disk.close();
    expect(await server.stop()).toBe(0);
    expect(server.stderr).toBe('');
  });
});
