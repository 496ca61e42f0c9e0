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

/** Calls whoever comes to listen for SIGINT: Ctrl-C, for a command in this process. */
function interruptSoon(): void {
  const before = process.listeners('SIGINT');
  const timer = setInterval(() => {
    const [listener] = process.listeners('SIGINT').filter((one) => !before.includes(one));
    if (listener === undefined) return;
    clearInterval(timer);
    listener('SIGINT');
  }, 1);
}

// After Ctrl-C the disk was half one image, half another, and all that was said was `run it again`:
// neither what it had been before nor the command that brings that back.
test('an import that is interrupted tells the way back', async () => {
  using directory = temporaryDirectory();
  const { path } = directory;
  const [one, two, out] = [join(path, 'one.raw'), join(path, 'two.raw'), join(path, 'out.raw')];
  writeFileSync(one, Buffer.alloc(4 * BLOCK, 1));
  writeFileSync(two, Buffer.alloc(16 * 1024 ** 2, 2));
  await makeVolume(path);
  await varve(path, ['import', one, 'disk']);
  interruptSoon();
  const { code, error } = await refusedHere(path, ['import', two, 'disk']);
  expect([code, error.code]).toEqual([1, 'INTERRUPTED']);
  const undo = /what it was: varve (rollback disk --to gen=\d+) --dir .+$/.exec(error.next)?.[1];
  expect(error.message).toContain(undo?.split(' ').at(-1));
  await varve(path, undo?.split(' ') ?? []);
  await varve(path, ['export', 'disk', out]);
  const was = Buffer.alloc(16 * 1024 ** 2).fill(1, 0, 4 * BLOCK);
  expect(readFileSync(out).equals(was)).toBe(true);
});
