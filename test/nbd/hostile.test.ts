/** Hostile seconds over a real Unix socket; minutes with VARVE_HOSTILE_SECONDS=240. */
import { strictEqual } from 'node:assert';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { realWorld } from '../../src/app/real-world.ts';
import { mebibytes } from '../../src/base/units.ts';
import { NbdClient } from '../../src/nbd/client.ts';
import { connectUnix, listenUnix } from '../../src/nbd/node-socket.ts';
import { NbdServer } from '../../src/nbd/server.ts';
import { SeededRandom } from '../sim/random.ts';
import { temporaryDirectory } from '../support/files.ts';
import { hostileMinutes } from '../support/hostile.ts';
import { MemoryDevice, MemoryDirectory } from '../support/nbd-memory-device.ts';
import { until } from '../support/nbd-rig.ts';

const seconds = Number(process.env['VARVE_HOSTILE_SECONDS'] ?? 3);
const seed = Number(process.env['VARVE_HOSTILE_SEED'] ?? 7);
const BUDGET = mebibytes(72);
const SIZE = 2 ** 26;
const MIB = 2 ** 20;
const LANES = 8;

/** Several requests at a time, each in its own part of the device, read back and compared. */
async function behave(path: string, isOver: () => boolean): Promise<number> {
  const client = await NbdClient.connect(await connectUnix(path), { exportName: 'good' });
  let requests = 0;
  const lanes = Array.from({ length: LANES }, async (_, lane) => {
    const random = new SeededRandom(seed).fork(`lane-${lane}`);
    while (!isOver()) {
      const length = random.pick([512, 4096, 65_536, 300_000]);
      const offset = lane * MIB + random.below(MIB - length);
      const source = Buffer.alloc(length, random.next32().toString(36));
      await client.write(offset, source);
      const found = await client.read(offset, length);
      strictEqual(found.equals(source), true, 'a client reads what it wrote');
      requests += 1;
    }
  });
  await Promise.all(lanes);
  await client.disconnect();
  return requests;
}

it(
  `a client goes on working for ${seconds} s among hostile ones`,
  async () => {
    using directory = temporaryDirectory();
    const disk = new MemoryDevice(SIZE);
    const good = new MemoryDevice(2 ** 24);
    disk.bytes.fill(1);
    const exports = new MemoryDirectory({ disk, good });
    const server = NbdServer.create({
      exports,
      timers: realWorld.timers,
      payloadBudget: BUDGET,
    });
    const path = join(directory.path, 'nbd.sock');
    const listener = await listenUnix(server, path);
    let isOver = false;
    const crowd = { socket: path, exportName: 'disk', size: SIZE, seconds, seed };
    const [report, requests] = await Promise.all([
      hostileMinutes(crowd).finally(() => (isOver = true)),
      behave(path, () => isOver),
    ]);
    console.log(report, requests, server.counters, server.budget);
    expect(requests).toBeGreaterThan(seconds);
    expect(report.sessions).toBeGreaterThan(seconds);
    expect(server.budget.usedMax).toBeLessThanOrEqual(BUDGET);
    await listener.close();
    await server.close(1000);
    await until(() => server.connections === 0, 'all connections are gone');
    expect(server.budget).toMatchObject({ used: 0, waiting: 0 });
    expect([disk.openCount, good.openCount]).toEqual([0, 0]);
  },
  (seconds + 30) * 1000,
);
