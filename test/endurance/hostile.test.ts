/**
 * Hostile minutes: mutated sessions, idle connections by the thousand, clients that never read,
 * payloads that stop in the middle; and one well-behaved client, which goes on working. The server
 * neither ends nor grows without bounds, and what it serves afterwards is sound.
 *
 * VARVE_HOSTILE_SECONDS says how long, VARVE_HOSTILE_SEED gives the seed.
 */
import { expect, it } from 'vitest';
import { CALM_WAIT_MS_MAX, fillDisk, workCalmly } from '../support/calm-client.ts';
import { describeWith } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { hostileMinutes } from '../support/hostile.ts';
import { LibNbd } from '../support/libnbd.ts';
import { varve } from '../support/run.ts';
import { RSS_CONNECTION_MAX, RSS_REST_MAX, Server } from '../support/server.ts';

const SECONDS = Number(process.env['VARVE_HOSTILE_SECONDS'] ?? 6);
const SEED = Number(process.env['VARVE_HOSTILE_SEED'] ?? 1);
const MIB = 1024 ** 2;
const SIZE = 128 * MIB;

describeWith(['python3-nbd'], 'a server among hostile clients', () => {
  it(
    'neither ends nor grows, and serves who behaves well',
    async () => {
      using directory = temporaryDirectory();
      for (const name of ['disk', 'calm']) {
        await varve(directory.path, ['create', name, '--size', '128M', '--log-size', '256M']);
      }
      await using server = await Server.start(directory.path);
      await fillDisk(server.uri());
      let isOver = false;
      const crowd = { socket: server.socket, exportName: 'disk', size: SIZE, seed: SEED };
      const [report, calm] = await Promise.all([
        hostileMinutes({ ...crowd, seconds: SECONDS }).finally(() => (isOver = true)),
        workCalmly(server.uri('calm'), SIZE, () => isOver),
      ]);
      expect(server.isRunning).toBe(true);
      const rss = server.rssBytesMax();
      console.info(JSON.stringify({ ...report, ...calm, rss }));
      const infos = [await server.info('disk'), await server.info('calm')];

      await using client = new LibNbd();
      const disk = await client.open(server.uri('disk'));
      await disk.write(0, Buffer.alloc(4096, 1), { fua: true });
      expect((await disk.readAll()).length).toBe(SIZE);
      await disk.close();
      expect(await server.stop()).toBe(0);
      // What it refuses is told, in few lines however often it is asked.
      const told = server.stderr.split('\n').slice(0, -1);
      expect(told.filter((line) => !line.startsWith('varve: refused a client "'))).toEqual([]);
      expect(told.length).toBeLessThan(8 * (2 + SECONDS / 10));
      for (const name of ['disk', 'calm']) {
        const checked = JSON.parse(await varve(directory.path, ['check', name, '--json']));
        expect(checked).toMatchObject({ ok: true, problems: [] });
      }
      expect(calm.turns).toBeGreaterThan(SECONDS);
      expect(calm.slowestMs).toBeLessThan(CALM_WAIT_MS_MAX);
      const connections = report.idle + report.deaf + report.stalled;
      const rest = RSS_REST_MAX + connections * RSS_CONNECTION_MAX;
      const bytes = infos.map(({ ring, indexBytes }) => ring.sizeBytes + indexBytes);
      expect(rss).toBeLessThan(bytes.reduce((sum, more) => sum + more, rest));
    },
    SECONDS * 1000 + 120_000,
  );
});
