/** The real NBD server and our real client, over a simulated network. */
import { describe, expect, test } from 'vitest';
import { isVarveError } from '../../src/base/errors.ts';
import { byteCount } from '../../src/base/units.ts';
import { NbdClient } from '../../src/nbd/client.ts';
import { encodeGreeting, encodeReply } from '../../src/nbd/options.ts';
import * as nbd from '../../src/nbd/protocol.ts';
import { MemoryDevice, MemoryDirectory } from '../support/nbd-memory-device.ts';
import { PowerSupply } from './power-supply.ts';
import { SeededRandom } from './random.ts';
import { exportsOf, SimNbd, type NbdDevice } from './sim-nbd.ts';
import { SimNetwork } from './sim-network.ts';
import { SimVolume } from './sim-volume.ts';
import { SimWorld } from './sim-world.ts';
import type { PairOptions } from './sim-socket.ts';

const SIZE = 2 ** 18;
const LAZY = { fua: false };

function rig(seed: number) {
  const world = new SimWorld(seed, { stepsMax: 300_000 });
  const device = new MemoryDevice(SIZE);
  const nbd = SimNbd.create({ world }, new MemoryDirectory({ disk: device }), {
    payloadBudget: byteCount(2 ** 20),
  });
  return { world, device, nbd };
}

async function exercise(device: NbdDevice, random: SeededRandom, rounds: number): Promise<void> {
  for (let i = 0; i < rounds; i += 1) {
    const length = 1 + random.below(30_000);
    const offset = random.below(SIZE - length);
    const source = random.bytes(length);
    await device.write(offset, source, { fua: random.chance(0.5) });
    const target = new Uint8Array(length);
    await device.read(offset, target);
    expect(Buffer.compare(target, source)).toBe(0);
  }
}

const WIRES: readonly (readonly [string, PairOptions])[] = [
  ['any cuts', {}],
  ['whole pieces', { cut: 'whole' }],
  ['a byte at a time', { cut: 'byte', latency: { usMin: 1, usMax: 2 } }],
  ['hardly any room', { capacity: 100 }],
];

describe('NBD over simulated sockets', () => {
  test.each(WIRES)('serves over a wire with %s', async (_, options) => {
    const { world, nbd } = rig(1);
    await world.run(async () => {
      const device = await nbd.connect('disk', options);
      await exercise(device, new SeededRandom(1), options.cut === 'byte' ? 2 : 20);
      await device.close();
      await world.sleep(10_000);
    });
    expect(nbd.server.connections).toBe(0);
    expect(nbd.server.budget.used).toBe(0);
  });

  test('is one run for one seed', async () => {
    const digest = async (seed: number): Promise<number> => {
      const { world, nbd } = rig(seed);
      await world.run(async () => {
        const devices = await Promise.all([nbd.connect('disk'), nbd.connect('disk')]);
        const fill = (device: NbdDevice, n: number) =>
          device.write(n * 65_536, new SeededRandom(n).bytes(65_536), LAZY);
        await Promise.all(devices.map(fill));
        await Promise.all(devices.map((device) => device.close()));
      });
      return world.digest;
    };
    expect(await digest(5)).toBe(await digest(5));
    expect(await digest(5)).not.toBe(await digest(6));
  });

  test('leaves nothing of a client whose stream breaks anywhere', async () => {
    for (let resetAfterBytes = 1; resetAfterBytes < 70_000; resetAfterBytes *= 1.7) {
      const { world, device, nbd } = rig(3);
      await world.run(async () => {
        const work = async (): Promise<void> => {
          const connected = await nbd.connect('disk', { resetAfterBytes });
          await exercise(connected, new SeededRandom(1), 20);
        };
        await expect(work()).rejects.toSatisfy((error) => isVarveError(error, 'SERVER_GONE'));
        await world.sleep(100_000);
      });
      expect(nbd.server.connections).toBe(0);
      expect(nbd.server.budget).toMatchObject({ used: 0, waiting: 0 });
      expect(device.openCount).toBe(0);
    }
  });

  test('ends a client that stops reading, and frees what it held', async () => {
    const { world, nbd } = rig(4);
    await world.run(async () => {
      const device = await nbd.connect('disk');
      await device.write(0, new SeededRandom(1).bytes(SIZE), LAZY);
      device.socket.stall();
      const reads = Array.from({ length: 4 }, () => device.read(0, new Uint8Array(SIZE)));
      const outcomes = Promise.allSettled(reads);
      await world.sleep(5_000_000);
      expect(nbd.server.budget.used).toBeGreaterThan(0);
      await world.sleep(60_000_000);
      expect((await outcomes).every(({ status }) => status === 'rejected')).toBe(true);
    });
    expect(nbd.server.counters.connectionsTimedOut).toBe(1);
    expect(nbd.server.budget.used).toBe(0);
  });
});

describe('the client', () => {
  test('has what it borrowed until it was sent, though the answer was there before', async () => {
    const { world, nbd } = rig(6);
    await world.run(async () => {
      const device = await nbd.connect('disk', { capacity: 1000 });
      // The first goes alone; the others wait together, and leave in one write of the socket.
      const done = [0, 1, 2].map(async (n) => {
        const source = new SeededRandom(n).bytes(n === 2 ? 50_000 : 5000);
        await device.write(n * 5000, source, LAZY);
        source.fill(0);
      });
      await Promise.all(done);
      await device.close();
    });
  });

  test('says nothing more when the server ends in the handshake', async () => {
    const world = new SimWorld(1);
    const { server, client } = new SimNetwork(world).pair();
    server.start({
      data: () => undefined,
      target: () => undefined,
      end: () => undefined,
      close: () => undefined,
    });
    await world.run(async () => {
      // Enough for the first option, and no more.
      const said = [encodeGreeting(), encodeReply(nbd.NBD_OPT_STRUCTURED_REPLY, nbd.NBD_REP_ACK)];
      server.write([Buffer.concat(said)], () => {
        server.end();
      });
      await world.sleep(10_000);
      await expect(NbdClient.connect(client)).rejects.toSatisfy((error) => isVarveError(error));
    });
  });

  test('says nothing more when the server has ended', async () => {
    for (let seed = 0; seed < 20; seed += 1) {
      const { world, nbd } = rig(seed);
      await world.run(async () => {
        const device = await nbd.connect('disk', { capacity: 1000 });
        const writes = [0, 1, 2].map((n) => device.write(n, new Uint8Array(20_000), LAZY));
        const outcomes = Promise.allSettled(writes);
        await world.sleep(seed * 1000);
        await nbd.server.close(10_000);
        for (const outcome of await outcomes) {
          if (outcome.status === 'fulfilled') continue;
          const { reason } = outcome;
          if (!isVarveError(reason, 'SERVER_GONE'))
            expect(reason).toMatchObject({ errno: 'ESHUTDOWN' });
        }
      });
    }
  });
});

describe('a volume over NBD', () => {
  test('keeps what was flushed through crashes, clients outside of the machine', async () => {
    const world = new SimWorld(11);
    const power = new PowerSupply(world);
    const volume = new SimVolume(power);
    const random = new SeededRandom(2);
    const flushed = random.bytes(20_000);
    await power.runLife((life) => volume.format(life));
    const end = await power.runLife(async (life) => {
      const opened = await volume.open(life);
      const device = await SimNbd.create({ power }, exportsOf(opened)).connect('disk');
      await device.write(4321, flushed, LAZY);
      await device.flush();
      await device.write(100_000, flushed, LAZY);
      power.cut();
    });
    expect(end.kind).toBe('lost');
    power.restore();
    await power.runLife(async (life) => {
      const opened = await volume.open(life);
      const nbd = SimNbd.create({ power }, exportsOf(opened));
      const device = await nbd.connect('disk');
      const target = new Uint8Array(flushed.length);
      await device.read(4321, target);
      expect(Buffer.compare(target, flushed)).toBe(0);
      const moment = await nbd.connect('disk@-0s');
      await device.trim(0, 65_536, { fua: true });
      await moment.read(4321, target);
      expect(Buffer.compare(target, flushed)).toBe(0);
      await moment.close();
      await device.close();
      await opened.close();
    });
  });

  test('breaks for a client outside, and hangs for one inside, when the power goes', async () => {
    for (const clientsInside of [false, true]) {
      const world = new SimWorld(12);
      const power = new PowerSupply(world);
      const device = new MemoryDevice(SIZE);
      const nbd = SimNbd.create({ power, clientsInside }, new MemoryDirectory({ disk: device }));
      let outcome = 'hangs';
      await world.run(async () => {
        const client = await nbd.connect('disk');
        client.write(0, new Uint8Array(SIZE), LAZY).then(
          () => (outcome = 'written'),
          (error: unknown) => (outcome = isVarveError(error) ? error.code : 'odd'),
        );
        await world.sleep(100);
        power.cut();
        await world.sleep(100_000_000);
      });
      expect(outcome).toBe(clientsInside ? 'hangs' : 'SERVER_GONE');
    }
  });
});
