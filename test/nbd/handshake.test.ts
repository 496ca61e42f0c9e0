/** Option haggling, one behaviour a test; what a section of doc/proto.md asks stands in its name. */
import { describe, expect, it } from 'vitest';
import { VarveError } from '../../src/base/errors.ts';
import { encodeContextQuery, encodeInfoQuery, encodeOption } from '../../src/nbd/options.ts';
import * as nbd from '../../src/nbd/protocol.ts';
import { uint16, uint32 } from '../../src/nbd/wire.ts';
import { MemoryDevice } from '../support/nbd-memory-device.ts';
import { gate, Rig, settled, type RawClient, type Reply } from '../support/nbd-rig.ts';

async function greeted(rig = new Rig(), flags = 3): Promise<RawClient> {
  const client = rig.raw();
  await client.greet(flags);
  return client;
}

const info = (name: string, ...infos: number[]): Buffer =>
  encodeInfoQuery({ name, infos: new Set(infos) });
const contexts = (name: string, ...queries: string[]): Buffer =>
  encodeContextQuery({ name, queries });
const types = (replies: readonly Reply[]): number[] => replies.map(({ type }) => type);
const names = (replies: readonly Reply[]): string[] =>
  replies.flatMap(({ type, data }) =>
    type === nbd.NBD_REP_META_CONTEXT ? [data.subarray(4).toString()] : [],
  );

/** The session still answers. */
async function expectUsable(client: RawClient): Promise<void> {
  expect(types(await client.option(nbd.NBD_OPT_LIST))).toEqual([
    nbd.NBD_REP_SERVER,
    nbd.NBD_REP_ACK,
  ]);
}

describe('the greeting', () => {
  it('offers fixed newstyle and NO_ZEROES', async () => {
    const client = new Rig().raw();
    const greeting = await client.read(18);
    expect(greeting.toString('latin1', 0, 16)).toBe('NBDMAGICIHAVEOPT');
    expect(uint16(greeting, 16)).toBe(3);
  });

  it('ends the session on unknown client flags', async () => {
    const rig = new Rig();
    const client = await greeted(rig, 7);
    await client.ended();
    await settled();
    expect(rig.server.connections).toBe(0);
    expect(rig.server.counters.violations).toBe(1);
  });

  it('takes only EXPORT_NAME from a client without fixed newstyle', async () => {
    const client = await greeted(new Rig(), 0);
    await client.send(encodeOption(nbd.NBD_OPT_LIST));
    await client.ended();
  });

  it('ends the session when an option has no magic', async () => {
    const client = await greeted();
    await client.send(Buffer.alloc(16, 1));
    await client.ended();
    expect(client.available).toBe(0);
  });
});

describe('EXPORT_NAME', () => {
  it.each([
    [3, 10],
    [1, 134],
    [0, 134],
  ])('answers with client flags %i in %i bytes', async (flags, length) => {
    const rig = new Rig();
    const client = await greeted(rig, flags);
    await client.send(encodeOption(nbd.NBD_OPT_EXPORT_NAME, Buffer.from('disk')));
    const answer = await client.read(length);
    expect(answer.readBigUInt64BE(0)).toBe(2n ** 20n);
    expect(answer.subarray(10).every((byte) => byte === 0)).toBe(true);
    await client.request({ type: nbd.NBD_CMD_READ, cookie: 9, length: 8 });
    const reply = await client.chunk(8);
    expect(reply).toMatchObject({ kind: 'simple', cookie: 9, error: 0 });
    expect(client.available).toBe(0);
  });

  it.each([
    ['an unknown name', Buffer.from('nothing')],
    ['a name that is not UTF-8', Buffer.from([0xff, 0xfe])],
    ['a name that is too long', Buffer.alloc(4097, 'a')],
    ['a name longer than any option', Buffer.alloc(70_000, 'a')],
  ])('ends the session for %s', async (_, name) => {
    const client = await greeted();
    await client.send(encodeOption(nbd.NBD_OPT_EXPORT_NAME, name));
    await client.ended();
    expect(client.available).toBe(0);
  });
});

describe('INFO and GO', () => {
  it('answer what was asked, and INFO_EXPORT always', async () => {
    const client = await greeted();
    expect(types(await client.option(nbd.NBD_OPT_INFO, info('disk')))).toEqual([
      nbd.NBD_REP_INFO,
      nbd.NBD_REP_ACK,
    ]);
    const replies = await client.option(nbd.NBD_OPT_INFO, info('disk@latest', 3, 2, 1, 77));
    const byType = new Map(replies.map(({ data }) => [data.length && uint16(data, 0), data]));
    expect(replies).toHaveLength(5);
    expect(byType.get(nbd.NBD_INFO_NAME)?.toString('utf8', 2)).toBe('disk');
    expect(byType.get(nbd.NBD_INFO_DESCRIPTION)?.toString('utf8', 2)).toBe('a device in memory');
    const sizes = byType.get(nbd.NBD_INFO_BLOCK_SIZE) ?? Buffer.alloc(14);
    expect([2, 6, 10].map((at) => uint32(sizes, at))).toEqual([1, 4096, 2 ** 25]);
  });

  it('set each flag only where it is true', async () => {
    const rig = new Rig();
    rig.directory.devices.set('moment', new MemoryDevice(4096, { readOnly: true }));
    const client = await greeted(rig);
    const flags = async (name: string): Promise<number> =>
      uint16((await client.option(nbd.NBD_OPT_INFO, info(name)))[0]?.data ?? Buffer.alloc(12), 10);
    const always =
      nbd.NBD_FLAG_HAS_FLAGS |
      nbd.NBD_FLAG_SEND_FLUSH |
      nbd.NBD_FLAG_SEND_FUA |
      nbd.NBD_FLAG_SEND_CACHE |
      nbd.NBD_FLAG_CAN_MULTI_CONN;
    const writable =
      nbd.NBD_FLAG_SEND_TRIM | nbd.NBD_FLAG_SEND_WRITE_ZEROES | nbd.NBD_FLAG_SEND_FAST_ZERO;
    expect(await flags('disk')).toBe(always | writable);
    expect(await flags('moment')).toBe(always | nbd.NBD_FLAG_READ_ONLY);
    await client.option(nbd.NBD_OPT_STRUCTURED_REPLY);
    expect(await flags('disk')).toBe(always | writable | nbd.NBD_FLAG_SEND_DF);
    rig.directory.multipleConnections = false;
    rig.directory.devices.set('relative', new MemoryDevice(4096));
    expect((await flags('relative')) & nbd.NBD_FLAG_CAN_MULTI_CONN).toBe(0);
  });

  it('resolve a name once: what INFO told, GO gives', async () => {
    const rig = new Rig();
    const client = await greeted(rig);
    await client.option(nbd.NBD_OPT_STRUCTURED_REPLY);
    await client.option(nbd.NBD_OPT_SET_META_CONTEXT, contexts('disk', 'base:allocation'));
    await client.option(nbd.NBD_OPT_INFO, info('disk'));
    await client.option(nbd.NBD_OPT_GO, info('disk'));
    expect(rig.directory.opens).toBe(1);
    expect(rig.device.openCount).toBe(1);
  });

  it('hold few exports open, and none after the handshake but the one', async () => {
    const rig = new Rig();
    const others = ['a', 'b', 'c', 'd', 'e', 'f'].map((name) => {
      const device = new MemoryDevice(4096);
      rig.directory.devices.set(name, device);
      return { name, device };
    });
    const client = await greeted(rig);
    for (const { name } of others) await client.option(nbd.NBD_OPT_INFO, info(name));
    expect(others.filter(({ device }) => device.openCount > 0)).toHaveLength(4);
    await client.option(nbd.NBD_OPT_GO, info('disk'));
    await settled();
    expect(others.filter(({ device }) => device.openCount !== 0)).toEqual([]);
    expect(rig.device.openCount).toBe(1);
  });

  it('answer UNKNOWN with the reason, and the session goes on', async () => {
    const rig = new Rig();
    const client = await greeted(rig);
    for (const option of [nbd.NBD_OPT_INFO, nbd.NBD_OPT_GO]) {
      const replies = await client.option(option, info('nothing'));
      expect(types(replies)).toEqual([nbd.NBD_REP_ERR_UNKNOWN]);
      expect(replies[0]?.data.toString()).toContain('there is no volume of that name: nothing');
    }
    rig.directory.open = () => Promise.reject(new VarveError('MOMENT_OUTSIDE', 'gen 5 to gen 9'));
    const [reply] = await client.option(nbd.NBD_OPT_GO, info('disk@gen=1'));
    expect(reply?.type).toBe(nbd.NBD_REP_ERR_UNKNOWN);
    expect(reply?.data.toString()).toContain('gen 5 to gen 9');
    await expectUsable(client);
  });

  const malformed: [string, Buffer][] = [
    ['no data', Buffer.alloc(0)],
    ['a cut length', Buffer.from([0, 0, 0])],
    ['a name longer than the option', Buffer.from([0, 0, 0, 9, 100, 105, 0, 0])],
    ['a name of 4 GiB', Buffer.from([255, 255, 255, 255, 0, 0])],
    ['more requests than there are', Buffer.from([0, 0, 0, 0, 0, 2, 0, 1])],
    ['fewer requests than there are', Buffer.from([0, 0, 0, 0, 0, 1, 0, 1, 0, 2])],
    ['half a request', Buffer.from([0, 0, 0, 0, 0, 1, 0])],
    ['NUL in the name', Buffer.from([0, 0, 0, 1, 0, 0, 0])],
    ['a name that is not UTF-8', Buffer.from([0, 0, 0, 1, 0xc3, 0, 0])],
  ];

  it.each(malformed)('answer INVALID to %s, and the session goes on', async (_, data) => {
    const client = await greeted();
    for (const option of [nbd.NBD_OPT_INFO, nbd.NBD_OPT_GO]) {
      expect(types(await client.option(option, data))).toEqual([nbd.NBD_REP_ERR_INVALID]);
    }
    await expectUsable(client);
  });

  it('take a name of 4096 bytes, and answer INVALID to one more', async () => {
    const client = await greeted();
    const query = (length: number): Buffer => {
      const data = Buffer.alloc(6 + length, 'n');
      data.writeUInt32BE(length, 0);
      data.writeUInt16BE(0, 4 + length);
      return data;
    };
    expect(types(await client.option(nbd.NBD_OPT_INFO, query(4096)))).toEqual([
      nbd.NBD_REP_ERR_UNKNOWN,
    ]);
    expect(types(await client.option(nbd.NBD_OPT_INFO, query(4097)))).toEqual([
      nbd.NBD_REP_ERR_INVALID,
    ]);
    await expectUsable(client);
  });

  it('open the only volume under the empty name', async () => {
    const client = await greeted();
    const replies = await client.option(nbd.NBD_OPT_INFO, info('', nbd.NBD_INFO_NAME));
    expect(replies[1]?.data.toString('utf8', 2)).toBe('disk');
  });
});

describe('other options', () => {
  it('ABORT is acknowledged, its data ignored, and the session ends', async () => {
    const rig = new Rig();
    const client = await greeted(rig);
    expect(types(await client.option(nbd.NBD_OPT_ABORT, Buffer.from('why')))).toEqual([
      nbd.NBD_REP_ACK,
    ]);
    await client.ended();
    client.socket.end();
    await settled();
    expect(rig.server.connections).toBe(0);
  });

  it('LIST gives each export with its description', async () => {
    const rig = new Rig();
    const client = await greeted(rig);
    const [first] = await client.option(nbd.NBD_OPT_LIST);
    expect(first?.data.toString('utf8', 4)).toBe('diska device in memory');
    expect(uint32(first?.data ?? Buffer.alloc(4), 0)).toBe(4);
  });

  it('LIST of ten thousand exports comes whole', async () => {
    const rig = new Rig({ pair: { capacity: 5000 } });
    const device = new MemoryDevice(4096);
    for (let i = 0; i < 10_000; i += 1) rig.directory.devices.set(`disk@snapshot-${i}`, device);
    const client = await greeted(rig);
    expect(await client.option(nbd.NBD_OPT_LIST)).toHaveLength(10_002);
  });

  it.each([
    ['LIST', nbd.NBD_OPT_LIST],
    ['STARTTLS', nbd.NBD_OPT_STARTTLS],
    ['STRUCTURED_REPLY', nbd.NBD_OPT_STRUCTURED_REPLY],
  ])('%s with data is INVALID', async (_, option) => {
    const client = await greeted();
    expect(types(await client.option(option, Buffer.from('x')))).toEqual([nbd.NBD_REP_ERR_INVALID]);
    await expectUsable(client);
  });

  it('STARTTLS without TLS is against the policy', async () => {
    const client = await greeted();
    expect(types(await client.option(nbd.NBD_OPT_STARTTLS))).toEqual([nbd.NBD_REP_ERR_POLICY]);
    await expectUsable(client);
  });

  it.each([0, 4, nbd.NBD_OPT_EXTENDED_HEADERS, 12, 0xffffffff])(
    'option %i is unknown, with data or without',
    async (option) => {
      const client = await greeted();
      expect(types(await client.option(option))).toEqual([nbd.NBD_REP_ERR_UNSUP]);
      expect(types(await client.option(option, Buffer.alloc(999)))).toEqual([
        nbd.NBD_REP_ERR_UNSUP,
      ]);
      await expectUsable(client);
    },
  );

  it('an over-long option is skipped and TOO_BIG', async () => {
    const client = await greeted();
    const data = Buffer.alloc(2 ** 20 + 1, 'IHAVEOPT');
    expect(types(await client.option(nbd.NBD_OPT_GO, data))).toEqual([nbd.NBD_REP_ERR_TOO_BIG]);
    expect(types(await client.option(nbd.NBD_OPT_LIST_META_CONTEXT, data))).toEqual([
      nbd.NBD_REP_ERR_TOO_BIG,
    ]);
    await expectUsable(client);
  });

  it('an option of 4 GiB ends the session', async () => {
    const client = await greeted();
    const header = encodeOption(nbd.NBD_OPT_GO);
    header.writeUInt32BE(0xffffffff, 12);
    await client.send(header);
    await client.ended();
  });

  it('options without end end the session', async () => {
    const client = await greeted();
    for (let i = 0; i < 256; i += 1) await client.send(encodeOption(99));
    await client.ended();
  });
});

describe('metadata contexts', () => {
  const all = ['base:allocation', 'qemu:dirty-bitmap:monday', 'varve:space'];

  async function structured(rig = new Rig()): Promise<RawClient> {
    const client = await greeted(rig);
    await client.option(nbd.NBD_OPT_STRUCTURED_REPLY);
    return client;
  }

  it.each([
    ['no query', [], all],
    ['base:', ['base:'], ['base:allocation']],
    ['qemu: and varve:', ['qemu:', 'varve:'], all.slice(1)],
    ['a full name twice', ['varve:space', 'varve:space'], ['varve:space']],
    ['an unknown leaf', ['base:nothing'], []],
    ['an unknown namespace', ['x-none:', 'x-none:y'], []],
  ])('LIST_META_CONTEXT with %s', async (_, queries, found) => {
    const client = await structured();
    const data = contexts('disk', ...queries);
    expect(names(await client.option(nbd.NBD_OPT_LIST_META_CONTEXT, data))).toEqual(found);
  });

  it.each([
    ['no query', [], []],
    ['a wildcard', ['base:', 'qemu:'], []],
    ['full names', ['varve:space', 'base:allocation'], ['varve:space', 'base:allocation']],
    ['one name twice', ['base:allocation', 'base:allocation'], ['base:allocation']],
    ['unknown ones beside', ['x-none:y', 'base:allocation'], ['base:allocation']],
  ])('SET_META_CONTEXT with %s', async (_, queries, found) => {
    const client = await structured();
    const data = contexts('disk', ...queries);
    const replies = await client.option(nbd.NBD_OPT_SET_META_CONTEXT, data);
    expect(names(replies)).toEqual(found);
    const ids = replies.slice(0, -1).map((reply) => uint32(reply.data, 0));
    expect(new Set(ids).size).toBe(ids.length);
  });

  it.each([nbd.NBD_OPT_LIST_META_CONTEXT, nbd.NBD_OPT_SET_META_CONTEXT])(
    'option %i without structured replies is INVALID',
    async (option) => {
      const client = await greeted();
      expect(types(await client.option(option, contexts('disk')))).toEqual([
        nbd.NBD_REP_ERR_INVALID,
      ]);
      await expectUsable(client);
    },
  );

  it.each([
    ['a query longer than the option', Buffer.from([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 97])],
    ['4 G queries', Buffer.from([0, 0, 0, 0, 255, 255, 255, 255])],
    ['bytes after the queries', Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 1])],
    ['a query without a colon', contexts('disk', 'base')],
    ['a query without a namespace', contexts('disk', ':allocation')],
  ])('%s is INVALID, and the session goes on', async (_, data) => {
    const client = await structured();
    for (const option of [nbd.NBD_OPT_LIST_META_CONTEXT, nbd.NBD_OPT_SET_META_CONTEXT]) {
      expect(types(await client.option(option, data))).toEqual([nbd.NBD_REP_ERR_INVALID]);
    }
    await expectUsable(client);
  });

  it('more queries than are looked at are TOO_BIG', async () => {
    const client = await structured();
    const data = contexts('disk', ...Array.from({ length: 257 }, (_, i) => `x:${i}`));
    expect(types(await client.option(nbd.NBD_OPT_SET_META_CONTEXT, data))).toEqual([
      nbd.NBD_REP_ERR_TOO_BIG,
    ]);
    await expectUsable(client);
  });

  it('of an unknown export are UNKNOWN', async () => {
    const client = await structured();
    const data = contexts('nothing', 'base:allocation');
    expect(types(await client.option(nbd.NBD_OPT_SET_META_CONTEXT, data))).toEqual([
      nbd.NBD_REP_ERR_UNKNOWN,
    ]);
  });

  it.each([
    ['another export name', contexts('disk@latest', 'base:allocation')],
    ['a later failure', Buffer.from([1])],
    ['a later empty selection', contexts('disk')],
  ])('BLOCK_STATUS is EINVAL after %s', async (_, second) => {
    const client = await structured();
    await client.option(nbd.NBD_OPT_SET_META_CONTEXT, contexts('disk', 'base:allocation'));
    await client.option(nbd.NBD_OPT_SET_META_CONTEXT, second);
    await client.option(nbd.NBD_OPT_GO, info('disk'));
    await client.request({ type: nbd.NBD_CMD_BLOCK_STATUS, cookie: 1, length: 4096 });
    expect(await client.chunk()).toMatchObject({ error: nbd.NBD_ERRORS.EINVAL, done: true });
  });
});

describe('the limits of a handshake', () => {
  it('end it after a minute', async () => {
    const rig = new Rig();
    const client = await greeted(rig);
    rig.timers.advance(59_000);
    await expectUsable(client);
    rig.timers.advance(1000);
    await client.ended();
    await settled();
    expect(rig.server.counters.connectionsTimedOut).toBe(1);
    expect(rig.server.connections).toBe(0);
  });

  it('end it soon when what is told stays unread', async () => {
    const rig = new Rig({ pair: { capacity: 4096 } });
    const device = new MemoryDevice(4096);
    for (let i = 0; i < 1000; i += 1) rig.directory.devices.set(`disk@snapshot-${i}`, device);
    const deaf = await Promise.all(Array.from({ length: 16 }, () => greeted(rig)));
    for (const client of deaf) {
      client.socket.pause();
      await client.send(encodeOption(nbd.NBD_OPT_LIST));
    }
    await settled();
    const client = await greeted(rig);
    const listed = client.option(nbd.NBD_OPT_LIST);
    await settled();
    for (let ms = 0; ms < 6000; ms += 500) {
      rig.timers.advance(500);
      await settled();
    }
    expect(await listed).toHaveLength(1002);
    expect(rig.server.counters.connectionsTimedOut).toBe(16);
  });

  it('do not end a session that has begun', async () => {
    const rig = new Rig();
    const client = await rig.session();
    rig.timers.advance(3_600_000);
    await client.request({ type: nbd.NBD_CMD_FLUSH, cookie: 1 });
    expect((await client.chunk()).error).toBe(0);
  });

  it('hold back a client that sends ahead', async () => {
    const rig = new Rig({ pair: { capacity: 4096 } });
    rig.directory.open = () => gate().opened.then(() => Promise.reject(new Error('never')));
    const client = await greeted(rig);
    await client.send(encodeOption(nbd.NBD_OPT_INFO, info('disk')));
    const flood = client.send(Buffer.alloc(2 ** 20));
    await settled(200);
    expect(await Promise.race([flood, Promise.resolve('waiting')])).toBe('waiting');
    client.socket.destroy();
  });

  it('turn clients away beyond the most connections', async () => {
    const rig = new Rig({ connectionsMax: 2 });
    await rig.session();
    await greeted(rig);
    const third = rig.raw();
    await third.ended();
    expect(third.available).toBe(0);
    expect(rig.server.counters.connectionsRefused).toBe(1);
  });

  it('an export opened for a client that is gone is closed', async () => {
    const rig = new Rig();
    const door = gate();
    const open = rig.directory.open.bind(rig.directory);
    rig.directory.open = (name) => door.opened.then(() => open(name));
    const client = await greeted(rig);
    await client.send(encodeOption(nbd.NBD_OPT_GO, info('disk')));
    await settled();
    client.socket.destroy();
    await settled();
    door.open();
    await settled();
    expect(rig.directory.opens).toBe(1);
    expect(rig.device.openCount).toBe(0);
    expect(rig.server.connections).toBe(0);
  });
});
