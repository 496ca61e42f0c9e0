/** import: over whom it does not write, and the way back. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { NbdClient } from '../../src/nbd/client.ts';
import { connectUnix } from '../../src/nbd/node-socket.ts';
import { temporaryDirectory } from '../support/files.ts';
import { varve, varveToEnd } from '../support/run.ts';
import { Server } from '../support/server.ts';
import { makeVolume, refusedHere } from './house.ts';

const BLOCK = 4096;

test('a disk that clients have open is not written over, and what it was comes back', async () => {
  using directory = temporaryDirectory();
  const { path } = directory;
  const [one, two] = [join(path, 'one.raw'), join(path, 'two.raw')];
  const [stream, out] = [join(path, 'one.varve'), join(path, 'out.raw')];
  writeFileSync(one, Buffer.alloc(4 * BLOCK, 1));
  writeFileSync(two, Buffer.alloc(4 * BLOCK, 2));
  await makeVolume(path);
  await using server = await Server.start(path);
  await varve(path, ['import', one, 'disk']);
  await varve(path, ['send', 'disk', '--output', stream]);
  const client = await NbdClient.connect(await connectUnix(join(path, 'nbd.sock')), {
    exportName: 'disk',
    metaContexts: [],
  });
  const { head } = await server.info();

  const refusal = await refusedHere(path, ['import', two, 'disk']);
  expect(refusal).toMatchObject({ code: 1, error: { code: 'CLIENTS_CONNECTED' } });
  expect((await server.info()).head.generation).toBe(head.generation);

  // The bytes of a stream are no disk.
  const astray = await refusedHere(path, ['import', stream, 'disk', '--force']);
  expect(astray).toMatchObject({ code: 1, error: { code: 'FILE_BAD' } });
  expect(astray.error.next).toContain('varve receive');
  await client.write(0, new Uint8Array(BLOCK).fill(3), { fua: false });

  const told = await varveToEnd(path, ['import', two, 'disk', '--force']);
  expect(told.stdout).toContain('1 sessions of clients ended');
  await expect(client.readInto(0, new Uint8Array(BLOCK))).rejects.toThrow();
  const undo = /^undo +varve (.+) --dir .+$/m.exec(told.stdout)?.[1]?.split(' ') ?? [];
  await varve(path, undo);
  await varve(path, ['export', 'disk', out]);
  const content = readFileSync(out);
  expect([content[0], content[BLOCK]]).toEqual([3, 1]);
  expect(server.isRunning).toBe(true);
});
