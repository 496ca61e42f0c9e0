/** The traps of the transmission phase, one test each, with bytes written by hand. */
import { describe, expect, it } from 'vitest';
import { VarveError } from '../../src/base/errors.ts';
import { byteCount, byteOffset } from '../../src/base/units.ts';
import { UnreadableError } from '../../src/base/unreadable.ts';
import * as nbd from '../../src/nbd/protocol.ts';
import { encodeRequest } from '../../src/nbd/request.ts';
import { gate, Rig, settled, until, type Chunk, type RawClient } from '../support/nbd-rig.ts';

const SIZE = 2 ** 20;
const E = nbd.NBD_ERRORS;
const { NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_FLUSH, NBD_CMD_TRIM, NBD_CMD_CACHE } = nbd;
const { NBD_CMD_WRITE_ZEROES, NBD_CMD_BLOCK_STATUS, NBD_CMD_DISC } = nbd;

/** A header with a 64-bit offset or cookie that no number holds. */
function wide(type: number, offset: bigint, length = 1, cookie = 1n): Buffer {
  const header = encodeRequest({ type, cookie: 0, length });
  header.writeBigUInt64BE(cookie, 8);
  header.writeBigUInt64BE(offset, 16);
  return header;
}

async function answer(
  client: RawClient,
  fields: Omit<Parameters<RawClient['request']>[0], 'cookie'>,
  payload?: Uint8Array,
): Promise<Chunk> {
  await client.request({ ...fields, cookie: 7 }, payload);
  const chunk = await client.chunk();
  expect(chunk.cookie).toBe(7);
  return chunk;
}

describe('cookies and offsets', () => {
  it('a cookie comes back as it was sent, all 64 bits of it', async () => {
    const rig = new Rig();
    const client = await rig.session();
    await client.send(wide(NBD_CMD_FLUSH, 0n, 0, 0xfedcba9876543211n));
    const reply = await client.read(16);
    expect(reply.readBigUInt64BE(8)).toBe(0xfedcba9876543211n);
  });

  const beyond = [2n ** 53n, 2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 1n];

  it.each(beyond)('an offset of %i is an error, and never rounded', async (offset) => {
    const rig = new Rig();
    const client = await rig.session();
    await client.send(wide(NBD_CMD_READ, offset));
    expect((await client.chunk()).error).toBe(E.EINVAL);
    await client.send(wide(NBD_CMD_WRITE, offset), Buffer.alloc(1));
    expect((await client.chunk()).error).toBe(E.ENOSPC);
    await client.send(wide(NBD_CMD_TRIM, offset));
    expect((await client.chunk()).error).toBe(E.EINVAL);
    await client.send(wide(NBD_CMD_WRITE_ZEROES, offset));
    expect((await client.chunk()).error).toBe(E.ENOSPC);
    expect(rig.device.calls).toEqual([]);
  });

  it('offset and length that together pass 2^64 are an error', async () => {
    const client = await new Rig().session();
    await client.send(wide(NBD_CMD_READ, 2n ** 64n - 1n, 0xffffffff));
    expect((await client.chunk()).error).toBe(E.EINVAL);
  });
});

describe('requests of no bytes', () => {
  it.each([0, 5, SIZE])('at offset %i succeed, and ask the device nothing', async (offset) => {
    const rig = new Rig();
    const client = await rig.session();
    for (const type of [NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_CACHE, NBD_CMD_WRITE_ZEROES]) {
      expect(await answer(client, { type, offset })).toMatchObject({ error: 0 });
    }
    expect(await answer(client, { type: NBD_CMD_READ, offset })).toMatchObject({
      kind: 'chunk',
      type: nbd.NBD_REPLY_TYPE_NONE,
      done: true,
    });
    const simple = await rig.session(false);
    expect(await answer(simple, { type: NBD_CMD_READ, offset })).toMatchObject({ error: 0 });
    expect(rig.device.calls).toEqual([]);
  });

  it('beyond the end are errors', async () => {
    const client = await new Rig().session();
    const offset = SIZE + 1;
    expect((await answer(client, { type: NBD_CMD_READ, offset })).error).toBe(E.EINVAL);
    expect((await answer(client, { type: NBD_CMD_WRITE, offset })).error).toBe(E.ENOSPC);
  });
});

describe('errors', () => {
  const atEnd = { offset: SIZE - 10, length: 11 };

  it.each([
    ['READ', NBD_CMD_READ, E.EINVAL],
    ['TRIM', NBD_CMD_TRIM, E.EINVAL],
    ['CACHE', NBD_CMD_CACHE, E.EINVAL],
    ['WRITE_ZEROES', NBD_CMD_WRITE_ZEROES, E.ENOSPC],
    ['BLOCK_STATUS', NBD_CMD_BLOCK_STATUS, E.EINVAL],
  ])('%s beyond the end', async (_, type, error) => {
    const client = await new Rig().session();
    expect((await answer(client, { type, ...atEnd })).error).toBe(error);
  });

  it('WRITE beyond the end is ENOSPC, once its payload was consumed', async () => {
    const rig = new Rig();
    const client = await rig.session();
    await client.request({ type: NBD_CMD_WRITE, cookie: 7, ...atEnd });
    await settled();
    expect(client.available).toBe(0);
    await client.send(Buffer.alloc(11, 'x'));
    expect((await client.chunk()).error).toBe(E.ENOSPC);
    expect((await answer(client, { type: NBD_CMD_FLUSH })).error).toBe(0);
    expect(rig.calls('write')).toBe(0);
  });

  it.each([true, false])('a read-only export answers EPERM (structured: %s)', async (how) => {
    const rig = new Rig({ readOnly: true });
    const client = await rig.session(how);
    const write = { type: NBD_CMD_WRITE, length: 3 };
    expect((await answer(client, write, Buffer.from('abc'))).error).toBe(E.EPERM);
    expect((await answer(client, { type: NBD_CMD_TRIM, length: 3 })).error).toBe(E.EPERM);
    expect((await answer(client, { type: NBD_CMD_WRITE_ZEROES, length: 3 })).error).toBe(E.EPERM);
    expect((await answer(client, { type: NBD_CMD_FLUSH })).error).toBe(0);
    expect(rig.device.bytes.every((byte) => byte === 0)).toBe(true);
  });

  it('unknown commands, flags that do not belong, a FLUSH with a range are EINVAL', async () => {
    const client = await new Rig().session();
    const { NBD_CMD_FLAG_DF, NBD_CMD_FLAG_NO_HOLE, NBD_CMD_FLAG_REQ_ONE } = nbd;
    const bad = [
      { type: 8 },
      { type: 0xffff },
      { type: NBD_CMD_READ, flags: NBD_CMD_FLAG_NO_HOLE },
      { type: NBD_CMD_READ, flags: 1 << 15 },
      { type: NBD_CMD_TRIM, flags: NBD_CMD_FLAG_DF },
      { type: NBD_CMD_FLUSH, flags: NBD_CMD_FLAG_REQ_ONE },
      { type: NBD_CMD_CACHE, flags: nbd.NBD_CMD_FLAG_FAST_ZERO },
      { type: NBD_CMD_FLUSH, offset: 1 },
      { type: NBD_CMD_FLUSH, length: 1 },
    ];
    for (const request of bad) expect((await answer(client, request)).error).toBe(E.EINVAL);
    const write = { type: NBD_CMD_WRITE, flags: NBD_CMD_FLAG_DF, length: 2 };
    expect((await answer(client, write, Buffer.from('ab'))).error).toBe(E.EINVAL);
  });

  it('FUA is accepted with every command', async () => {
    const rig = new Rig();
    const client = await rig.session();
    const flags = nbd.NBD_CMD_FLAG_FUA;
    const length = 512;
    expect((await answer(client, { type: NBD_CMD_FLUSH, flags })).error).toBe(0);
    for (const type of [NBD_CMD_READ, NBD_CMD_TRIM, NBD_CMD_CACHE, NBD_CMD_WRITE_ZEROES]) {
      expect((await answer(client, { type, flags, length })).error).toBe(0);
    }
    const write = { type: NBD_CMD_WRITE, flags, length };
    expect((await answer(client, write, Buffer.alloc(length, 1))).error).toBe(0);
  });

  it('DF is only for structured replies', async () => {
    const client = await new Rig().session(false);
    const read = { type: NBD_CMD_READ, flags: nbd.NBD_CMD_FLAG_DF, length: 1 };
    expect((await answer(client, read)).error).toBe(E.EINVAL);
  });

  it('too long is EOVERFLOW: a write once its payload was consumed', async () => {
    const rig = new Rig({ size: 2 ** 24, requestBytesMax: 65536 });
    const client = await rig.session();
    expect((await answer(client, { type: NBD_CMD_READ, length: 65537 })).error).toBe(E.EOVERFLOW);
    const write = { type: NBD_CMD_WRITE, length: 2 ** 20 };
    expect((await answer(client, write, Buffer.alloc(2 ** 20, 9))).error).toBe(E.EOVERFLOW);
    expect((await answer(client, { type: NBD_CMD_FLUSH })).error).toBe(0);
    expect(rig.server.budget.usedMax).toBe(0);
  });

  it('a write of 4 GiB ends the connection, after what is in hand', async () => {
    const rig = new Rig();
    const client = await rig.session();
    const door = gate();
    rig.device.before = () => door.opened;
    await client.request({ type: NBD_CMD_READ, cookie: 1, length: 10 });
    await client.request({ type: NBD_CMD_WRITE, cookie: 2, length: 0xffffffff });
    await settled();
    door.open();
    expect(await client.chunk()).toMatchObject({ cookie: 1, error: 0 });
    await client.ended();
    expect(client.available).toBe(0);
    expect(rig.server.counters.violations).toBe(1);
  });

  it('a header without its magic ends the connection', async () => {
    const rig = new Rig();
    const client = await rig.session();
    await client.send(Buffer.alloc(28, 7));
    await client.ended();
    expect(rig.server.counters.violations).toBe(1);
  });

  it('an error of the device is answered with its errno and its text', async () => {
    const rig = new Rig();
    const client = await rig.session();
    rig.device.before = () => {
      throw new VarveError('LOG_FULL', 'the snapshot monday');
    };
    const write = { type: NBD_CMD_WRITE, length: 1 };
    const chunk = await answer(client, write, Buffer.alloc(1));
    expect(chunk).toMatchObject({ error: E.ENOSPC, type: nbd.NBD_REPLY_TYPE_ERROR });
    expect(chunk.payload.toString('utf8', 6)).toContain('the snapshot monday');
    rig.device.before = () => Promise.reject(new VarveError('MOMENT_GONE', 'gen 5'));
    expect((await answer(client, { type: NBD_CMD_READ, length: 9 })).error).toBe(E.EIO);
    const simple = await rig.session(false);
    const read = await answer(simple, { type: NBD_CMD_READ, length: 9 });
    expect(read).toMatchObject({ kind: 'simple', error: E.EIO });
  });
});

describe('structured reads', () => {
  it('send zeros as a hole, and data as data', async () => {
    const rig = new Rig();
    const client = await rig.session();
    const length = 8192;
    const hole = await answer(client, { type: NBD_CMD_READ, offset: 4096, length });
    expect(hole).toMatchObject({ type: nbd.NBD_REPLY_TYPE_OFFSET_HOLE, done: true });
    expect(hole.payload.readBigUInt64BE(0)).toBe(4096n);
    expect(hole.payload.readUInt32BE(8)).toBe(length);
    rig.device.bytes[5000] = 1;
    const data = await answer(client, { type: NBD_CMD_READ, offset: 4096, length });
    expect(data).toMatchObject({ type: nbd.NBD_REPLY_TYPE_OFFSET_DATA, done: true });
    expect(data.payload.subarray(8)).toEqual(rig.device.bytes.subarray(4096, 4096 + length));
  });

  it('a short run of zeros is data', async () => {
    const client = await new Rig().session();
    const chunk = await answer(client, { type: NBD_CMD_READ, length: 100 });
    expect(chunk.type).toBe(nbd.NBD_REPLY_TYPE_OFFSET_DATA);
  });

  it('give what is good around a bad block, and its offset', async () => {
    const rig = new Rig();
    const client = await rig.session();
    rig.device.bytes.fill(3);
    const range = { offset: byteOffset(8192), length: byteCount(4096), why: 'block 2' };
    let bad = [range];
    const read = rig.device.read.bind(rig.device);
    rig.device.read = (offset, target) => {
      void read(offset, target);
      throw new UnreadableError('BLOCK_CORRUPT', bad);
    };
    await client.request({ type: NBD_CMD_READ, cookie: 7, offset: 100, length: 16384 });
    const chunks = [await client.chunk(), await client.chunk(), await client.chunk()];
    expect(chunks.map(({ type, done }) => [type, done])).toEqual([
      [nbd.NBD_REPLY_TYPE_OFFSET_DATA, false],
      [nbd.NBD_REPLY_TYPE_ERROR_OFFSET, false],
      [nbd.NBD_REPLY_TYPE_OFFSET_DATA, true],
    ]);
    const [before, error, after] = chunks.map(({ payload }) => payload);
    expect([before?.readBigUInt64BE(0), after?.readBigUInt64BE(0)]).toEqual([100n, 12288n]);
    expect([before?.length, after?.length]).toEqual([8092 + 8, 4196 + 8]);
    expect(error?.readUInt32BE(0)).toBe(E.EIO);
    expect(error?.readBigUInt64BE(error.length - 8)).toBe(8192n);
    expect(error?.toString('utf8', 6, error.length - 8)).toBe('block 2');
    // One content chunk at most: there is none that could leave the bad range out.
    const df = nbd.NBD_CMD_FLAG_DF;
    await client.request({ type: NBD_CMD_READ, cookie: 7, flags: df, length: 16384 });
    expect(await client.chunk()).toMatchObject({
      type: nbd.NBD_REPLY_TYPE_ERROR_OFFSET,
      done: true,
    });
    // Bad parts of a few bytes have no room for their own error; a good part of zeros is a hole.
    rig.device.bytes.fill(0);
    bad = [
      { offset: byteOffset(4095), length: byteCount(1), why: 'block 0' },
      { offset: byteOffset(12288), length: byteCount(2), why: 'block 3' },
    ];
    await client.request({ type: NBD_CMD_READ, cookie: 8, offset: 4095, length: 8195 });
    const three = [await client.chunk(), await client.chunk(), await client.chunk()];
    expect(three.map(({ type, done }) => [type, done])).toEqual([
      [nbd.NBD_REPLY_TYPE_ERROR_OFFSET, false],
      [nbd.NBD_REPLY_TYPE_OFFSET_HOLE, false],
      [nbd.NBD_REPLY_TYPE_ERROR_OFFSET, true],
    ]);
    await settled();
    expect(rig.server.budget.used).toBe(0);
  });

  it('DF sends one chunk for 32 MiB', async () => {
    const rig = new Rig({ size: 2 ** 25 });
    rig.device.bytes.write('x', 2 ** 24);
    const client = await rig.session();
    const length = 2 ** 25;
    const read = { type: NBD_CMD_READ, flags: nbd.NBD_CMD_FLAG_DF, length };
    const chunk = await answer(client, read);
    expect(chunk).toMatchObject({ type: nbd.NBD_REPLY_TYPE_OFFSET_DATA, done: true });
    expect(chunk.payload.length).toBe(length + 8);
  });
});

describe('zeroes and status', () => {
  it('FAST_ZERO that may be slow is ENOTSUP at once, and changes nothing', async () => {
    const rig = new Rig();
    const client = await rig.session();
    const { NBD_CMD_FLAG_FAST_ZERO, NBD_CMD_FLAG_NO_HOLE } = nbd;
    const zero = { type: NBD_CMD_WRITE_ZEROES, length: 4096 };
    const flags = NBD_CMD_FLAG_FAST_ZERO | NBD_CMD_FLAG_NO_HOLE;
    expect((await answer(client, { ...zero, flags })).error).toBe(E.ENOTSUP);
    expect(rig.calls('zero')).toBe(0);
    expect((await answer(client, { ...zero, flags: NBD_CMD_FLAG_FAST_ZERO })).error).toBe(0);
    expect((await answer(client, { ...zero, flags: NBD_CMD_FLAG_NO_HOLE })).error).toBe(0);
    expect(rig.device.calls?.at(-1)).toMatchObject({ kind: 'zero', allocate: true });
  });

  it('ranges of 4 GiB need no memory', async () => {
    const rig = new Rig();
    Object.defineProperty(rig.device, 'size', { value: 2 ** 40 });
    const asked: number[] = [];
    rig.device.trim = (_, length) => void asked.push(length);
    rig.device.zero = (_, length) => void asked.push(length);
    const client = await rig.session();
    const length = 0xffffffff;
    expect((await answer(client, { type: NBD_CMD_TRIM, length })).error).toBe(0);
    expect((await answer(client, { type: NBD_CMD_WRITE_ZEROES, length })).error).toBe(0);
    expect(asked).toEqual([length, length]);
    expect(rig.server.budget.usedMax).toBe(0);
  });

  it('BLOCK_STATUS of no bytes, or without a context, is EINVAL', async () => {
    const rig = new Rig();
    const plain = await rig.session();
    const status = { type: NBD_CMD_BLOCK_STATUS, length: 4096 };
    expect((await answer(plain, status)).error).toBe(E.EINVAL);
    const client = await rig.connect({ metaContexts: ['base:allocation', 'varve:space'] });
    await expect(client.status(0, 0)).rejects.toMatchObject({ errno: 'EINVAL' });
    const both = await client.status(0, 4096);
    expect([...both.keys()]).toEqual(['base:allocation', 'varve:space']);
    expect(both.get('varve:space')).toEqual([{ length: 4096, flags: 0 }]);
  });
});

describe('order and endings', () => {
  it('replies come in the order in which the device is done', async () => {
    const rig = new Rig();
    const client = await rig.session();
    const doors = [gate(), gate(), gate()];
    rig.device.before = ({ offset }) => doors[offset]?.opened;
    for (const offset of [0, 1, 2]) {
      await client.request({ type: NBD_CMD_READ, cookie: offset, offset, length: 1 });
    }
    await settled();
    for (const cookie of [2, 0, 1]) {
      doors[cookie]?.open();
      expect((await client.chunk()).cookie).toBe(cookie);
    }
  });

  it('DISC is answered by the end, after all that is in hand', async () => {
    const rig = new Rig();
    const client = await rig.session();
    const door = gate();
    rig.device.before = () => door.opened;
    const write = { type: NBD_CMD_WRITE, cookie: 1, length: 4 };
    await client.request(write, Buffer.from('varv'));
    await client.request({ type: NBD_CMD_DISC, cookie: 2 });
    await client.request({ type: NBD_CMD_WRITE, cookie: 3, length: 1 }, Buffer.from('x'));
    await settled();
    expect(client.isEnded).toBe(false);
    door.open();
    expect(await client.chunk()).toMatchObject({ cookie: 1, error: 0 });
    await client.ended();
    expect(rig.calls('write')).toBe(1);
    client.socket.end();
    await settled();
    expect(rig.device.openCount).toBe(0);
  });

  it('a client that ends its side gets the answers to what it asked', async () => {
    const rig = new Rig();
    const client = await rig.session();
    await client.request({ type: NBD_CMD_FLUSH, cookie: 1 });
    client.socket.end();
    expect((await client.chunk()).cookie).toBe(1);
    await client.ended();
    await settled();
    expect(rig.server.connections).toBe(0);
  });

  it.each([1, 4095])('a disconnect after %i bytes of a payload changes nothing', async (sent) => {
    for (const how of ['end', 'destroy'] as const) {
      const rig = new Rig();
      const client = await rig.session();
      await client.request({ type: NBD_CMD_WRITE, cookie: 1, length: 4096 });
      await client.send(Buffer.alloc(sent, 'x'));
      await until(() => rig.server.budget.used > 0);
      client.socket[how]();
      await until(() => rig.server.connections === 0);
      expect(rig.device.bytes.every((byte) => byte === 0)).toBe(true);
      expect(rig.device.calls?.map(({ kind }) => kind)).toEqual(['close']);
      expect(rig.server.budget.used).toBe(0);
    }
  });

  it('the export is closed only when the device is done with every request', async () => {
    const rig = new Rig();
    const client = await rig.session();
    const door = gate();
    rig.device.before = () => door.opened;
    await client.request({ type: NBD_CMD_READ, cookie: 1, length: 4096 });
    await until(() => rig.calls('read') === 1);
    client.socket.destroy();
    await settled();
    expect(rig.calls('close')).toBe(0);
    expect(rig.server.budget.used).toBeGreaterThan(0);
    door.open();
    await settled();
    expect(rig.calls('close')).toBe(1);
    expect(rig.server.budget.used).toBe(0);
  });
});
