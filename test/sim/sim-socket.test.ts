/** Simulated sockets: what they may do to bytes, and what they must not. */
import { describe, expect, test } from 'vitest';
import type { Socket, SocketEvents } from '../../src/nbd/socket.ts';
import { PowerSupply } from './power-supply.ts';
import { SeededRandom } from './random.ts';
import { SimNetwork } from './sim-network.ts';
import type { PairOptions, SimSocket } from './sim-socket.ts';
import { SimWorld } from './sim-world.ts';

/** Keeps what comes, and says when something did. */
class Ear implements SocketEvents {
  readonly parts: Buffer[] = [];
  readonly heard: string[] = [];
  place: Uint8Array | undefined;
  onData: () => void = () => undefined;

  data(bytes: Uint8Array): void {
    this.parts.push(Buffer.from(bytes));
    this.heard.push('data');
    this.onData();
  }

  target(): Uint8Array | undefined {
    return this.place;
  }

  end(): void {
    this.heard.push('end');
  }

  close(): void {
    this.heard.push('close');
  }

  get bytes(): Buffer {
    return Buffer.concat(this.parts);
  }
}

function pair(seed: number, options: PairOptions = {}, power?: (world: SimWorld) => PowerSupply) {
  const world = new SimWorld(seed, { stepsMax: 200_000 });
  const supply = power?.(world);
  const network = new SimNetwork(world, supply === undefined ? {} : { power: supply });
  const { server, client } = network.pair(options);
  const [atServer, atClient] = [new Ear(), new Ear()];
  server.start(atServer);
  client.start(atClient);
  return { world, network, server, client, atServer, atClient, power: supply };
}

function written(socket: Socket, ...pieces: Uint8Array[]): Promise<void> {
  return new Promise((resolve) => {
    socket.write(pieces, resolve);
  });
}

async function send(socket: SimSocket, bytes: Uint8Array, part: number): Promise<void> {
  for (let at = 0; at < bytes.length; at += part) {
    await written(socket, bytes.subarray(at, at + part));
  }
}

describe('a simulated socket', () => {
  test.each([1, 2, 3, 4, 5])('carries bytes both ways in order, seed %i', async (seed) => {
    const { world, server, client, atServer, atClient } = pair(seed, { capacity: 3000 });
    const random = new SeededRandom(seed);
    const [up, down] = [random.bytes(50_000), random.bytes(30_000)];
    await world.run(async () => {
      await Promise.all([send(client, up, 7000), send(server, down, 12_345)]);
      client.end();
      server.end();
      await world.sleep(10_000);
    });
    expect(atServer.bytes.equals(up)).toBe(true);
    expect(atClient.bytes.equals(down)).toBe(true);
    expect(atServer.heard.slice(-2)).toEqual(['end', 'close']);
    expect(atClient.heard.slice(-2)).toEqual(['end', 'close']);
    expect(new Set(atServer.parts.map(({ length }) => length)).size).toBeGreaterThan(5);
  });

  test('is one run for one seed, and another for the next', async () => {
    const digest = async (seed: number): Promise<number> => {
      const { world, client } = pair(seed);
      await world.run(async () => {
        await send(client, new SeededRandom(9).bytes(40_000), 9000);
        client.destroy();
        await world.sleep(10_000);
      });
      return world.digest;
    };
    expect(await digest(7)).toBe(await digest(7));
    expect(await digest(7)).not.toBe(await digest(8));
  });

  test('holds a writer back while the peer does not read', async () => {
    const { world, server, client, atServer } = pair(1, { capacity: 5000 });
    let isSent = false;
    await world.run(async () => {
      server.stall();
      const done = send(client, new Uint8Array(20_000), 20_000).then(() => (isSent = true));
      await world.sleep(1_000_000);
      expect(isSent).toBe(false);
      expect(server.unreadBytes).toBe(5000);
      expect(atServer.bytes).toHaveLength(0);
      server.stall(false);
      await done;
      await world.sleep(10_000);
    });
    expect(atServer.bytes).toHaveLength(20_000);
  });

  test('gives no more than one piece after a pause', async () => {
    for (let seed = 0; seed < 50; seed += 1) {
      const { world, server, client, atServer } = pair(seed, { capacity: 50_000 });
      await world.run(async () => {
        atServer.onData = () => {
          server.pause();
        };
        await written(client, new Uint8Array(50_000));
        await world.sleep(100_000);
        expect(atServer.parts.length).toBeLessThanOrEqual(2);
        expect(atServer.heard).not.toContain('end');
        atServer.onData = () => undefined;
        server.resume();
        await world.sleep(100_000);
      });
      expect(atServer.bytes).toHaveLength(50_000);
    }
  });

  test('puts bytes where they are wanted, and spoils what it only lends', async () => {
    const { world, client, atServer } = pair(3, { cut: 'whole' });
    const place = new Uint8Array(100);
    await world.run(async () => {
      atServer.place = place;
      await written(client, Buffer.from('first'));
      await world.sleep(10_000);
      await written(client, Buffer.from('second'));
      await world.sleep(10_000);
    });
    expect(Buffer.from(place.subarray(0, 6)).toString()).toBe('second');
    expect(atServer.bytes.toString()).toBe('firstsecond');
  });

  test('reads a byte at a time', async () => {
    const { world, client, atServer } = pair(3, { cut: 'byte' });
    await world.run(async () => {
      await written(client, Buffer.from('slowly'));
      await world.sleep(10_000);
    });
    expect(atServer.parts.map(String)).toEqual('slowly'.split(''));
  });

  test('breaks in the midst of a frame, for both ends', async () => {
    const { world, client, atServer, atClient } = pair(3, { resetAfterBytes: 1000 });
    await world.run(async () => {
      client.write([new Uint8Array(60_000)], () => undefined);
      await world.sleep(10_000);
    });
    expect(atServer.heard.at(-1)).toBe('close');
    expect(atClient.heard).toEqual(['close']);
    expect(atServer.bytes.length).toBeLessThan(60_000);
  });

  test('stays open one way after the end of the other', async () => {
    const { world, server, client, atServer, atClient } = pair(3);
    await world.run(async () => {
      client.end();
      await world.sleep(10_000);
      await written(server, Buffer.from('still here'));
      await world.sleep(10_000);
    });
    expect(atServer.heard).toEqual(['end']);
    expect(atClient.bytes.toString()).toBe('still here');
  });

  test('tells who writes to a peer that is gone', async () => {
    for (let seed = 0; seed < 20; seed += 1) {
      const { world, server, client, atServer } = pair(seed);
      await world.run(async () => {
        client.destroy();
        await world.sleep(10_000);
        server.write([new Uint8Array(10)], () => undefined);
        await world.sleep(10_000);
      });
      expect(atServer.heard.at(-1)).toBe('close');
    }
  });

  test('reports a piece that changed before it was sent', async () => {
    const { world, client } = pair(3, { capacity: 10 });
    const piece = new Uint8Array(100);
    const work = world.run(async () => {
      client.write([piece], () => undefined);
      await world.sleep(300);
      piece[3] = 1;
      await world.sleep(10_000_000);
    });
    await expect(work).rejects.toThrow(/a buffer keeps its content until it is sent/);
  });

  test('reports a piece that changed back again', async () => {
    const { world, client } = pair(3, { capacity: 10 });
    const piece = new Uint8Array(100);
    const work = world.run(async () => {
      client.write([piece], () => undefined);
      await world.sleep(100);
      piece.fill(1);
      await world.sleep(2000);
      piece.fill(0);
      await world.sleep(10_000_000);
    });
    await expect(work).rejects.toThrow(/a buffer keeps its content until it is sent/);
  });

  test.each(['hang', 'reject'] as const)('ends with its machine: %s', async (afterLoss) => {
    const { world, power, server, client, atServer, atClient } = pair(
      4,
      { capacity: 100 },
      (inWorld) => new PowerSupply(inWorld, { afterLoss }),
    );
    let isSent = false;
    await world.run(async () => {
      server.write([new Uint8Array(5000)], () => (isSent = true));
      client.write([new Uint8Array(5000)], () => (isSent = true));
      await world.sleep(500);
      const heard = atServer.heard.length;
      power?.kill();
      await world.sleep(1_000_000);
      expect(atServer.heard.slice(heard)).toEqual(afterLoss === 'hang' ? [] : ['close']);
      server.write([Buffer.from('a ghost')], () => (isSent = true));
      server.defer(() => (isSent = afterLoss === 'hang'));
      await world.sleep(1_000_000);
    });
    expect(atClient.heard.at(-1)).toBe('close');
    expect(isSent).toBe(false);
  });
});
