/** The client and the server with each other: every command, in pieces of any size. */
import { describe, expect, it } from 'vitest';
import { NbdClient, NbdError } from '../../src/nbd/client.ts';
import * as nbd from '../../src/nbd/protocol.ts';
import { STATE_HOLE, STATE_ZERO } from '../../src/device/block-device.ts';
import { Rig, settled, turn } from '../support/nbd-rig.ts';

const bytes = (length: number, from = 1): Buffer =>
  Buffer.from(Array.from({ length }, (_, i) => (from + i * 7) & 0xff));

const PIECES = { '1 byte': 1, '7 bytes': 7, '29 bytes': 29, '64 KiB': 65536 };

describe('client and server', () => {
  it.each(Object.entries(PIECES))('read back what was written, in pieces of %s', async (_, n) => {
    const rig = new Rig({ pair: { piece: () => n } });
    const client = await rig.connect();
    const source = bytes(9001);
    await client.write(123, source);
    expect(await client.read(123, 9001)).toEqual(source);
    expect(await client.read(0, 123)).toEqual(Buffer.alloc(123));
    expect(await client.read(100, 200)).toEqual(rig.device.bytes.subarray(100, 300));
    await client.disconnect();
    await settled();
    expect(rig.device.openCount).toBe(0);
    expect(rig.server.connections).toBe(0);
    expect(rig.server.budget.used).toBe(0);
  });

  it.each([true, false])('move payloads of 32 MiB (structured: %s)', async (structured) => {
    const rig = new Rig({ size: 2 ** 26 });
    const client = await rig.connect({ structured });
    const source = Buffer.alloc(2 ** 25, 'varve');
    await client.write(4096, source);
    expect((await client.read(4096, 2 ** 25)).equals(source)).toBe(true);
    await client.disconnect();
    await settled();
    expect(rig.server.budget.used).toBe(0);
  });

  it('serve every command, with FUA or without', async () => {
    const rig = new Rig();
    const client = await rig.connect({ metaContexts: ['base:allocation'] });
    await client.write(0, bytes(8192), { fua: true });
    await client.flush();
    await client.cache(0, 4096);
    await client.zero(0, 100);
    await client.zero(4096, 4096, { noHole: true, fua: true });
    await client.trim(0, 4096, { fua: true });
    await client.zero(8192, 4096, { fast: true });
    const status = await client.status(0, 12288);
    expect(status.get('base:allocation')).toEqual([
      { length: 4096, flags: STATE_HOLE | STATE_ZERO },
      { length: 4096, flags: 0 },
      { length: 4096, flags: STATE_HOLE | STATE_ZERO },
    ]);
    const one = await client.status(0, 12288, nbd.NBD_CMD_FLAG_REQ_ONE);
    expect(one.get('base:allocation')).toEqual([{ length: 4096, flags: STATE_HOLE | STATE_ZERO }]);
    const asked = rig.device.calls ?? [];
    expect(asked.filter(({ fua }) => fua).map(({ kind }) => kind)).toEqual([
      'write',
      'zero',
      'trim',
    ]);
    await client.disconnect();
  });

  it('know the export by its facts', async () => {
    const rig = new Rig();
    const client = await rig.connect({ exportName: 'disk@latest' });
    expect(client.info).toMatchObject({
      size: 2 ** 20,
      canonicalName: 'disk',
      description: 'a device in memory',
      payloadBytesMax: 2 ** 25,
    });
    client.destroy();
    const listed = await NbdClient.list(rig.socket());
    expect(listed).toEqual([{ name: 'disk', description: 'a device in memory' }]);
  });

  it('keep many requests in flight', async () => {
    const rig = new Rig({ size: 2 ** 22 });
    rig.device.before = turn;
    const client = await rig.connect();
    const blocks = Array.from({ length: 1000 }, (_, i) => i);
    await Promise.all(blocks.map((i) => client.write(i * 4096, bytes(4096, i))));
    const read = await Promise.all(blocks.map((i) => client.read(i * 4096, 4096)));
    for (const i of blocks) expect(read[i]?.equals(bytes(4096, i))).toBe(true);
    await client.disconnect();
    await settled();
    expect(rig.server.budget.used).toBe(0);
  });

  it('tell errors by their errno', async () => {
    const client = await new Rig().connect();
    await expect(client.write(2 ** 20, bytes(1))).rejects.toThrow(NbdError);
    await expect(client.write(2 ** 20, bytes(1))).rejects.toMatchObject({ errno: 'ENOSPC' });
    await expect(client.read(2 ** 20, 1)).rejects.toMatchObject({ errno: 'EINVAL' });
    client.destroy();
    await expect(client.flush()).rejects.toMatchObject({ code: 'SERVER_GONE' });
  });
});
