/**
 * Hostile minutes: mutated sessions, idle connections by the thousand, clients that never read,
 * payloads that stop in the middle; and one well-behaved client, which goes on working. The server
 * neither ends nor grows without bounds, and what it serves afterwards is sound.
 *
 * VARVE_HOSTILE_SECONDS says how long, VARVE_HOSTILE_SEED gives the seed.
 */
import { expect, it } from 'vitest';
import { describeWith } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { hostileMinutes } from '../support/hostile.ts';
import { LibNbd } from '../support/libnbd.ts';
import { varve } from '../support/run.ts';
import { RSS_CONNECTION_MAX, RSS_REST_MAX, Server } from '../support/server.ts';

const SECONDS = Number(process.env['VARVE_HOSTILE_SECONDS'] ?? 10);
const SEED = Number(process.env['VARVE_HOSTILE_SEED'] ?? 1);
const MIB = 1024 ** 2;
const SIZE = 128 * MIB;
const CALM_BYTES = 64 * 1024;
/** Who behaves well is never held up for longer, whatever others do. */
const WAIT_MS_MAX = 2000;

interface Calm {
  turns: number;
  slowestMs: number;
}

/** Writes, reads back and compares, on a volume that nobody else knows. */
async function workCalmly(uri: string, isOver: () => boolean): Promise<Calm> {
  await using client = new LibNbd();
  const disk = await client.open(uri);
  const calm: Calm = { turns: 0, slowestMs: 0 };
  while (!isOver()) {
    const offset = (calm.turns * CALM_BYTES) % SIZE;
    const value = Buffer.alloc(8);
    value.writeUInt32LE(++calm.turns);
    const began = performance.now();
    await disk.fill({ offset, length: CALM_BYTES }, value);
    const found = await disk.read({ offset, length: CALM_BYTES });
    if (calm.turns % 100 === 0) await disk.flush();
    calm.slowestMs = Math.max(calm.slowestMs, performance.now() - began);
    expect(found.equals(Buffer.alloc(CALM_BYTES, value))).toBe(true);
  }
  await disk.close();
  return calm;
}

describeWith(['python3-nbd'], 'a server among hostile clients', () => {
  it(
    'neither ends nor grows, and serves who behaves well',
    async () => {
      using directory = temporaryDirectory();
      for (const name of ['disk', 'calm']) {
        await varve(directory.path, ['create', name, '--size', '128M', '--log-size', '256M']);
      }
      await using server = await Server.start(directory.path);
      let isOver = false;
      const crowd = { socket: server.socket, exportName: 'disk', size: SIZE, seed: SEED };
      const [report, calm] = await Promise.all([
        hostileMinutes({ ...crowd, seconds: SECONDS }).finally(() => (isOver = true)),
        workCalmly(server.uri('calm'), () => isOver),
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
      expect(server.stderr).toBe('');
      for (const name of ['disk', 'calm']) {
        const checked = JSON.parse(await varve(directory.path, ['check', name, '--json']));
        expect(checked).toMatchObject({ ok: true, problems: [] });
      }
      expect(calm.turns).toBeGreaterThan(SECONDS);
      expect(calm.slowestMs).toBeLessThan(WAIT_MS_MAX);
      const connections = report.idle + report.deaf + report.stalled;
      const rest = RSS_REST_MAX + connections * RSS_CONNECTION_MAX;
      const bytes = infos.map(({ ring, indexBytes }) => ring.sizeBytes + indexBytes);
      expect(rss).toBeLessThan(bytes.reduce((sum, more) => sum + more, rest));
    },
    SECONDS * 1000 + 120_000,
  );
});
