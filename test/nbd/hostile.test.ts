/** Hostile seconds over a real Unix socket; minutes with VARVE_HOSTILE_SECONDS=240. */
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { realWorld } from '../../src/app/real-world.ts';
import { mebibytes } from '../../src/base/units.ts';
import { connectUnix, listenUnix } from '../../src/nbd/node-socket.ts';
import { NbdServer } from '../../src/nbd/server.ts';
import { temporaryDirectory } from '../support/files.ts';
import { MemoryDevice, MemoryDirectory } from '../support/nbd-memory-device.ts';
import { until } from '../support/nbd-rig.ts';
import { hostileMinutes } from './hostile.ts';

const seconds = Number(process.env['VARVE_HOSTILE_SECONDS'] ?? 3);
const seed = Number(process.env['VARVE_HOSTILE_SEED'] ?? 7);
const BUDGET = mebibytes(72);

it(
  `a client goes on working for ${seconds} s among hostile ones`,
  async () => {
    using directory = temporaryDirectory();
    const disk = new MemoryDevice(2 ** 26);
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
    const report = await hostileMinutes({
      connect: () => connectUnix(path),
      seconds,
      seed,
      hostileExport: 'disk',
      goodExport: 'good',
      idleConnections: 1000,
    });
    console.log(report, server.counters, server.budget);
    expect(report.good).toBeGreaterThan(10 * seconds);
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
