/** What bounds memory and time: the budget, slow readers, stalls, shutdown. */
import { describe, expect, it } from 'vitest';
import { byteCount, kibibytes } from '../../src/base/units.ts';
import { Budget } from '../../src/nbd/budget.ts';
import { REQUESTS_IN_FLIGHT_MAX, SLAB_BYTES } from '../../src/nbd/limits.ts';
import * as nbd from '../../src/nbd/protocol.ts';
import { encodeRequest } from '../../src/nbd/request.ts';
import { gate, Rig, settled, turn, until } from '../support/nbd-rig.ts';

const { NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_FLUSH } = nbd;
const E = nbd.NBD_ERRORS;

describe('the budget', () => {
  it('gives an account at most half of what is free', () => {
    const budget = Budget.create(kibibytes(1024));
    const greedy = Array.from({ length: 8 }, () => budget.account());
    for (const account of greedy) while (account.take(4096));
    expect(budget.used).toBeLessThan(budget.total);
    expect(budget.account().take(4096)).toBe(true);
  });

  it('serves who waits in order, and lets small ones overtake for a while', () => {
    const budget = Budget.create(kibibytes(1024));
    const big = budget.account();
    const small = budget.account();
    const holder = budget.account();
    expect(holder.take(256 * 1024)).toBe(true);
    const order: string[] = [];
    big.wait(512 * 1024, () => order.push('big'));
    let overtaken = 0;
    while (small.take(128 * 1024)) {
      overtaken += 128;
      small.give(128 * 1024);
    }
    // Two budgets, then all wait for the first in the queue.
    expect(overtaken).toBe(2048);
    small.wait(4096, () => order.push('small'));
    holder.give(256 * 1024);
    expect(order).toEqual(['big', 'small']);
    expect(big.held).toBe(512 * 1024);
  });

  it('does not let one wait for itself at the cost of others', () => {
    const budget = Budget.create(kibibytes(1024));
    const greedy = budget.account();
    while (greedy.take(64 * 1024));
    greedy.wait(512 * 1024, () => undefined);
    expect(budget.isShort).toBe(false);
    const other = budget.account();
    for (let i = 0; i < 1000; i += 1) {
      expect(other.take(64 * 1024)).toBe(true);
      other.give(64 * 1024);
    }
  });

  it('forgets who waits no longer', () => {
    const budget = Budget.create(kibibytes(512));
    const first = budget.account();
    const second = budget.account();
    first.take(256 * 1024);
    let granted = 0;
    second.wait(256 * 1024, () => (granted += 1));
    expect(budget.waiting).toBe(1);
    second.cancel();
    second.cancel();
    first.give(256 * 1024);
    expect([granted, budget.used, budget.waiting]).toEqual([0, 0, 0]);
  });
});

describe('a client that never reads', () => {
  it('is held back, holds back nobody else, and memory stays bounded', async () => {
    const budget = 2 ** 21;
    const rig = new Rig({ size: 2 ** 24, budget, pair: { capacity: 4096 } });
    rig.device.bytes.fill(1);
    const good = await rig.connect();
    const bad = await rig.session();
    bad.socket.pause();
    let isStuck = true;
    const flood = (async () => {
      for (let i = 0; i < 500; i += 1) {
        await bad.request({ type: NBD_CMD_READ, cookie: i, length: 32_000 });
      }
      isStuck = false;
    })();
    for (let i = 0; i < 100; i += 1) {
      await good.write(2 ** 20, Buffer.alloc(16384, i));
      expect((await good.read(2 ** 20, 16384)).equals(Buffer.alloc(16384, i))).toBe(true);
    }
    expect(isStuck).toBe(true);
    expect(rig.server.budget.usedMax).toBeLessThanOrEqual(budget);
    bad.socket.resume();
    // It goes on where it was, and loses nothing.
    await flood;
    await until(() => bad.available === 500 * 32_028, 'all replies came');
    await settled();
    expect(rig.server.budget.used).toBe(0);
  });

  it('has at most so many requests in flight, whatever they are', async () => {
    const rig = new Rig({ pair: { capacity: 1000 } });
    const client = await rig.session();
    client.socket.pause();
    const door = gate();
    rig.device.before = () => door.opened;
    const many = REQUESTS_IN_FLIGHT_MAX * 3;
    const requests = Array.from({ length: many }, (_, cookie) =>
      encodeRequest({ type: NBD_CMD_FLUSH, cookie }),
    );
    const sending = client.send(...requests);
    await settled(200);
    expect(rig.calls('flush')).toBe(REQUESTS_IN_FLIGHT_MAX);
    door.open();
    client.socket.resume();
    await sending;
    const cookies = new Set<number>();
    for (let i = 0; i < many; i += 1) cookies.add((await client.chunk()).cookie);
    expect(cookies.size).toBe(many);
  });

  it('is ended when it holds replies and does not move', async () => {
    const rig = new Rig({ size: 2 ** 24, pair: { capacity: 4096 } });
    rig.device.bytes.fill(1);
    const client = await rig.session();
    client.socket.pause();
    await client.request({ type: NBD_CMD_READ, cookie: 1, length: 2 ** 20 });
    await until(() => rig.server.budget.used > 0);
    await settled();
    rig.timers.advance(29_000);
    await settled();
    expect(rig.server.connections).toBe(1);
    rig.timers.advance(16_000);
    await settled();
    expect(rig.server.connections).toBe(0);
    expect(rig.server.budget.used).toBe(0);
    expect(rig.server.counters.connectionsTimedOut).toBe(1);
  });
});

describe('many clients that stall', () => {
  it('lose what they hold soon when others wait for it', async () => {
    const rig = new Rig({ size: 2 ** 24, budget: 2 ** 20 });
    const stalled = await Promise.all(Array.from({ length: 20 }, () => rig.session()));
    for (const [i, client] of stalled.entries()) {
      const length = Math.max(4096, 2 ** 19 / 2 ** i - 8192);
      await client.request({ type: NBD_CMD_WRITE, cookie: 1, length });
    }
    await settled();
    const good = await rig.connect();
    let isDone = false;
    const write = good.write(0, Buffer.alloc(65536, 1)).then(() => (isDone = true));
    for (let ms = 0; ms < 5000 && !isDone; ms += 500) {
      rig.timers.advance(500);
      await settled();
    }
    await write;
    expect(rig.server.connections).toBeGreaterThan(10);
    expect(rig.server.counters.connectionsTimedOut).toBeGreaterThan(0);
  });
});

describe('a client that sends a payload in part', () => {
  it('is ended when it does not go on', async () => {
    const rig = new Rig();
    const client = await rig.session();
    await client.request({ type: NBD_CMD_WRITE, cookie: 1, length: 65536 });
    await settled();
    expect(rig.server.budget.used).toBeGreaterThan(0);
    rig.timers.advance(45_000);
    await client.ended();
    await settled();
    expect(rig.server.budget.used).toBe(0);
    expect(rig.calls('write')).toBe(0);
  });

  it('is ended when it goes on by drops', async () => {
    const rig = new Rig();
    const client = await rig.session();
    await client.request({ type: NBD_CMD_WRITE, cookie: 1, length: 65536 });
    for (let i = 0; i < 60 && !client.isEnded; i += 1) {
      await client.send(Buffer.alloc(1));
      rig.timers.advance(1000);
      await settled();
    }
    expect(client.isEnded).toBe(true);
  });

  it('is not ended while it moves, nor while it is idle with nothing held', async () => {
    const rig = new Rig({ size: 2 ** 22 });
    const client = await rig.session();
    await client.request({ type: NBD_CMD_WRITE, cookie: 1, length: 2 ** 21 });
    for (let i = 0; i < 32; i += 1) {
      await client.send(Buffer.alloc(65536, i));
      rig.timers.advance(20_000);
      await settled();
    }
    expect((await client.chunk()).error).toBe(0);
    await client.send(encodeRequest({ type: NBD_CMD_FLUSH, cookie: 2 }).subarray(0, 13));
    rig.timers.advance(3_600_000);
    await client.send(encodeRequest({ type: NBD_CMD_FLUSH, cookie: 2 }).subarray(13));
    expect((await client.chunk()).cookie).toBe(2);
  });

  it('does not wait for a slow device: that is not the client', async () => {
    const rig = new Rig();
    const client = await rig.session();
    const door = gate();
    rig.device.before = () => door.opened;
    await client.request({ type: NBD_CMD_READ, cookie: 1, length: 4096 });
    await settled();
    rig.timers.advance(600_000);
    await settled();
    door.open();
    expect((await client.chunk()).error).toBe(0);
  });
});

describe('who waits for the budget', () => {
  it('has its socket paused, and goes on when there is room', async () => {
    const rig = new Rig({ size: 2 ** 22, budget: 2 ** 20 });
    const door = gate();
    rig.device.before = () => door.opened;
    const clients = await Promise.all([1, 2, 3, 4].map(() => rig.connect()));
    const source = Buffer.alloc(200_000, 'w');
    const writes = clients.flatMap((client, i) =>
      [0, 1, 2].map((j) => client.write((i * 3 + j) * 200_000, source)),
    );
    await settled(100);
    expect(rig.calls('write')).toBeLessThan(12);
    expect(rig.server.budget.waiting).toBeGreaterThan(0);
    expect(rig.server.budget.used).toBeLessThanOrEqual(2 ** 20);
    door.open();
    await Promise.all(writes);
    expect(rig.device.bytes.subarray(0, 2_400_000).every((byte) => byte === 0x77)).toBe(true);
    for (const client of clients) await client.disconnect();
    await settled();
    expect(rig.server.budget).toMatchObject({ used: 0, waiting: 0 });
    expect(rig.server.budget.usedMax).toBeLessThanOrEqual(2 ** 20);
  });

  it('may leave', async () => {
    const rig = new Rig({ size: 2 ** 22, budget: 2 ** 20 });
    const door = gate();
    rig.device.before = () => door.opened;
    const first = await rig.session();
    const second = await rig.session();
    await first.request({ type: NBD_CMD_READ, cookie: 1, length: 400_000 });
    await second.request({ type: NBD_CMD_READ, cookie: 1, length: 400_000 });
    await until(() => rig.server.budget.waiting === 1);
    // A paused socket does not see that its client is gone; it is seen when its turn comes.
    second.socket.destroy();
    await settled();
    door.open();
    await first.chunk();
    await until(() => rig.server.connections === 1);
    await settled();
    expect(rig.server.budget.used).toBe(0);
  });

  it('an export offers no more than the budget can ever hold', async () => {
    const rig = new Rig({ size: 2 ** 24, budget: 2 ** 20 });
    const client = await rig.connect();
    const most = client.info.payloadBytesMax ?? 0;
    expect(most).toBeGreaterThan(400_000);
    expect(most).toBeLessThan(2 ** 19);
    await client.write(0, Buffer.alloc(most, 1));
    expect((await client.read(0, most)).length).toBe(most);
    await expect(client.read(0, most + 1)).rejects.toMatchObject({ errno: 'EOVERFLOW' });
  });

  it('idle connections hold nothing', async () => {
    const rig = new Rig();
    const clients = await Promise.all(Array.from({ length: 50 }, () => rig.connect()));
    await Promise.all(clients.map((client) => client.read(0, 4096)));
    await settled();
    expect(rig.server.budget.used).toBe(0);
    expect(rig.server.budget.usedMax).toBeLessThanOrEqual(50 * SLAB_BYTES);
  });
});

describe('closing the server', () => {
  it('finishes what is in flight, refuses what is new, then ends', async () => {
    const rig = new Rig();
    const door = gate();
    rig.device.before = () => door.opened;
    const client = await rig.session();
    const idle = await rig.session();
    const write = { type: NBD_CMD_WRITE, length: 4 };
    await client.request({ ...write, cookie: 1 }, Buffer.from('last'));
    await until(() => rig.calls('write') === 1);
    const closed = rig.server.close(10_000);
    expect(rig.server.close(1)).toBe(closed);
    await idle.ended();
    await client.request({ ...write, cookie: 2 }, Buffer.from('late'));
    expect(await client.chunk()).toMatchObject({ cookie: 2, error: E.ESHUTDOWN });
    door.open();
    expect(await client.chunk()).toMatchObject({ cookie: 1, error: 0 });
    await client.ended();
    client.socket.end();
    idle.socket.end();
    await closed;
    expect(rig.device.bytes.toString('latin1', 0, 4)).toBe('last');
    expect(rig.device.openCount).toBe(0);
    expect(rig.timers.armed).toBe(0);
  });

  it("lets nobody write into memory that is somebody else's by now", async () => {
    const rig = new Rig({ size: 2 ** 22 });
    const door = gate();
    const client = await rig.session();
    const other = await rig.session();
    await client.request({ type: NBD_CMD_WRITE, cookie: 1, length: 2 ** 20 });
    await client.send(Buffer.alloc(1000, 'x'));
    await settled();
    rig.device.before = () => door.opened;
    await other.request({ type: NBD_CMD_FLUSH, cookie: 9 });
    await settled();
    const closed = rig.server.close(60_000);
    await settled();
    // The payload goes on, into a request that will never be; its memory is not given back yet.
    await client.send(Buffer.alloc(100_000, 'x'));
    await settled();
    expect(rig.server.budget.used).toBe(2 ** 20);
    client.socket.destroy();
    await settled();
    expect(rig.server.budget.used).toBe(0);
    door.open();
    await other.ended();
    other.socket.end();
    await closed;
    expect(rig.calls('write')).toBe(0);
  });

  it('answers options with SHUTDOWN, but ABORT', async () => {
    const rig = new Rig();
    const client = rig.raw();
    await client.greet();
    const closed = rig.server.close(10_000);
    const [list] = await client.option(nbd.NBD_OPT_LIST);
    expect(list?.type).toBe(nbd.NBD_REP_ERR_SHUTDOWN);
    const [abort] = await client.option(nbd.NBD_OPT_ABORT);
    expect(abort?.type).toBe(nbd.NBD_REP_ACK);
    await client.ended();
    client.socket.end();
    await closed;
    const late = rig.raw();
    await late.ended();
  });

  it('waits for no client beyond the grace, nor for a device much longer', async () => {
    const rig = new Rig();
    rig.device.before = () => gate().opened;
    const client = await rig.session();
    await client.request({ type: NBD_CMD_FLUSH, cookie: 1 });
    const shaking = rig.raw();
    await shaking.greet();
    await settled();
    let isClosed = false;
    const closed = rig.server.close(5000).then(() => (isClosed = true));
    rig.timers.advance(300);
    await shaking.ended();
    rig.timers.advance(4000);
    await settled();
    expect(client.isEnded).toBe(false);
    rig.timers.advance(1000);
    await client.ended();
    rig.timers.advance(1000);
    await closed;
    expect(isClosed).toBe(true);
  });
});

describe('a bug in the device', () => {
  it('is raised, and not answered', async () => {
    const rig = new Rig();
    const client = await rig.session();
    const bug = new Error('a broken invariant');
    const raised: unknown[] = [];
    const before = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    process.on('uncaughtException', (error) => raised.push(error));
    try {
      rig.device.before = () => {
        throw bug;
      };
      await client.request({ type: NBD_CMD_READ, cookie: 1, length: 1 });
      await until(() => raised.length === 1);
      rig.device.before = () => Promise.reject(bug);
      await client.request({ type: NBD_CMD_FLUSH, cookie: 2 });
      await until(() => raised.length === 2);
      await turn();
    } finally {
      process.removeAllListeners('uncaughtException');
      for (const listener of before) process.on('uncaughtException', listener);
    }
    expect(raised).toEqual([bug, bug]);
    expect(client.available).toBe(0);
  });
});

it('a server needs a budget of a few slabs', () => {
  expect(() => Budget.create(byteCount(1000))).toThrow('the budget holds a few slabs');
});
