/**
 * Requests that cost the server more than they take on the wire. 64 requests to CACHE, of 28 bytes
 * each, once took two gigabytes: each had a buffer as long as what it named, outside of the budget,
 * and all ran at one time. 250 requests to BLOCK_STATUS took nearly as much, for lists of blocks,
 * and 1,250 of five connections ended the server. A server that is ended for want of memory loses what it has answered in
 * mode `back`, of every volume.
 */
import { describe, expect, it } from 'vitest';
import { CACHE_PIECE_BYTES, CACHES_MAX, STATUSES_MAX } from '../../src/nbd/limits.ts';
import * as nbd from '../../src/nbd/protocol.ts';
import { gate, Rig, settled, until } from '../support/nbd-rig.ts';

const SIZE = 2 ** 24;
const BUDGET = 2 ** 22;
const { NBD_CMD_CACHE, NBD_CMD_FLUSH } = nbd;

describe('a client that has very much cached', () => {
  it('is served in pieces of the budget, a few at a time', async () => {
    const rig = new Rig({ size: SIZE, budget: BUDGET });
    const door = gate();
    rig.device.before = ({ kind }) => (kind === 'cache' ? door.opened : undefined);
    const clients = await Promise.all([1, 2, 3].map(() => rig.connect()));
    const most = clients[0]?.info.payloadBytesMax ?? 0;
    expect(most).toBeGreaterThan(4 * CACHE_PIECE_BYTES);
    const cached = clients.flatMap((client) =>
      Array.from({ length: 20 }, () => client.cache(4096, SIZE - 4096)),
    );
    await until(() => rig.calls('cache') === CACHES_MAX);
    await settled();
    expect(rig.calls('cache')).toBe(CACHES_MAX);
    // Others go on, with what they need of the budget.
    const other = await rig.connect();
    await other.write(0, Buffer.alloc(65_536, 1));
    door.open();
    await Promise.all(cached);
    const calls = (rig.device.calls ?? []).filter(({ kind }) => kind === 'cache');
    expect(Math.max(...calls.map(({ length }) => length))).toBe(CACHE_PIECE_BYTES);
    expect(calls.reduce((sum, { length }) => sum + length, 0)).toBe(cached.length * most);
    expect(rig.server.budget.usedMax).toBeLessThanOrEqual(BUDGET);
    await settled();
    expect(rig.server.budget.used).toBe(0);
  });

  it('has all of a range cached, to its last byte', async () => {
    const rig = new Rig({ size: SIZE });
    const client = await rig.connect();
    const length = 2 * CACHE_PIECE_BYTES + 100;
    await client.cache(77, length);
    const calls = (rig.device.calls ?? []).filter(({ kind }) => kind === 'cache');
    expect(calls.map(({ offset, length: bytes }) => [offset, bytes])).toEqual([
      [77, CACHE_PIECE_BYTES],
      [77 + CACHE_PIECE_BYTES, CACHE_PIECE_BYTES],
      [77 + 2 * CACHE_PIECE_BYTES, 100],
    ]);
  });

  it('lets others run between the pieces, and stops when it is gone', async () => {
    const rig = new Rig({ size: SIZE });
    const client = await rig.session();
    const other = await rig.session();
    await client.request({ type: NBD_CMD_CACHE, cookie: 1, length: SIZE });
    await until(() => rig.calls('cache') > 0);
    await other.request({ type: NBD_CMD_FLUSH, cookie: 2 });
    await until(() => rig.calls('flush') > 0);
    const before = rig.calls('cache');
    client.socket.destroy();
    await until(() => rig.device.openCount === 1, 'the export is closed');
    const pieces = SIZE / CACHE_PIECE_BYTES;
    expect(before).toBeLessThan(pieces / 2);
    expect(rig.calls('cache')).toBeLessThan(pieces);
    expect(rig.server.budget.used).toBe(0);
  });
});

describe('a client that asks for the status of everything, very often', () => {
  it('is served a few requests at a time, and others beside it', async () => {
    const rig = new Rig({ size: SIZE });
    const door = gate();
    rig.device.before = ({ kind }) => (kind === 'status' ? door.opened : undefined);
    const metaContexts = ['base:allocation', 'varve:space'];
    const clients = await Promise.all([1, 2].map(() => rig.connect({ metaContexts })));
    const asked = clients.flatMap((client) =>
      Array.from({ length: 100 }, () => client.status(0, SIZE)),
    );
    await until(() => rig.calls('status') === STATUSES_MAX);
    await settled();
    expect(rig.calls('status')).toBe(STATUSES_MAX);
    const other = await rig.connect();
    await other.write(0, Buffer.alloc(65_536, 1));
    door.open();
    const answers = await Promise.all(asked);
    expect(answers.every((answer) => answer.size === metaContexts.length)).toBe(true);
    await settled();
    expect(rig.server.budget.used).toBe(0);
  });

  it('lets others run between the answers, and nothing is looked up when it is gone', async () => {
    const rig = new Rig({ size: SIZE });
    const client = await rig.connect({ metaContexts: ['base:allocation'] });
    const other = await rig.connect();
    const asked = Array.from({ length: 200 }, () => client.status(0, SIZE));
    const ended = Promise.allSettled(asked);
    await asked[0];
    await other.flush();
    client.destroy();
    await ended;
    await until(() => rig.device.openCount === 1, 'the export is closed');
    expect(rig.calls('status')).toBeLessThan(asked.length);
    expect(rig.server.budget.used).toBe(0);
  });
});
