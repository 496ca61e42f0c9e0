/** rollback: of a volume at rest and of a served one, what it refuses, and the way back. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { connectUnix } from '../../src/nbd/node-socket.ts';
import { NbdClient } from '../../src/nbd/client.ts';
import { temporaryDirectory } from '../support/files.ts';
import { varve } from '../support/run.ts';
import { Server } from '../support/server.ts';
import { makeVolume, refusedHere } from './house.ts';

const BLOCK = 4096;

interface Told {
  readonly target: { readonly generation: number };
  readonly before: { readonly generation: number };
  readonly after: { readonly generation: number };
  readonly undo?: string;
  readonly undoCommand?: string;
  readonly dataBytes: number;
  readonly fits: boolean;
  readonly sessionsEnded: number;
}

interface Interval {
  readonly generation: number;
  readonly rollbacks: readonly { readonly before: number; readonly after: number }[];
}

async function asked<T>(path: string, ...words: readonly string[]): Promise<T> {
  const answer: T = JSON.parse(await varve(path, [...words, '--json']));
  return answer;
}

async function write(path: string, fill: number, blocks = 40): Promise<void> {
  const file = join(path, 'in.raw');
  writeFileSync(file, Buffer.alloc(blocks * BLOCK, fill));
  await varve(path, ['import', file, 'disk']);
}

/** What the first blocks hold. */
async function fillOf(path: string, name = 'disk'): Promise<number> {
  const file = join(path, 'out.raw');
  await varve(path, ['export', name, file, '--force']);
  const content = readFileSync(file);
  const first = content[0] ?? -1;
  expect(content.subarray(0, 40 * BLOCK).every((byte) => byte === first)).toBe(true);
  return first;
}

/** Rolls back and forth; the commands are those that it prints. */
async function thereAndBack(path: string): Promise<void> {
  const dry = await asked<Told>(path, 'rollback', 'disk', '--to', 'one', '--dry-run');
  expect(dry).toMatchObject({ dataBytes: 40 * BLOCK, fits: true });
  expect(await fillOf(path)).toBe(2);
  const text = await varve(path, ['rollback', 'disk', '--to', 'one']);
  expect(text).toContain('160 KiB written again');
  const undo = /^undo +varve (.+) --dir .+$/m.exec(text)?.[1]?.split(' ') ?? [];
  expect(undo.slice(0, 3)).toEqual(['rollback', 'disk', '--to']);
  expect(await fillOf(path)).toBe(1);
  const back = await asked<Told>(path, ...undo);
  expect(back.undo).toBeDefined();
  expect(await fillOf(path)).toBe(2);
  const info = await varve(path, ['info', 'disk']);
  expect(info).toContain('rollbacks:');
  expect(info).toContain('came back; before: disk@gen=');
  const history = await asked<readonly Interval[]>(path, 'history', 'disk', '--intervals', '5');
  const { before, after } = back;
  const told = history.flatMap(({ rollbacks }) => rollbacks).at(-1);
  expect(told).toMatchObject({ before: before.generation, after: after.generation });
  const drawn = await varve(path, ['history', 'disk', '--intervals', '5']);
  expect(drawn).toContain('rollbacks (');
}

test('a volume at rest, and a served one, go there and back', async () => {
  using directory = temporaryDirectory();
  const { path } = directory;
  await makeVolume(path);
  await write(path, 1);
  await varve(path, ['snapshot', 'create', 'disk', 'one']);
  await write(path, 2);
  await thereAndBack(path);
  await using server = await Server.start(path);
  await thereAndBack(path);
  expect(server.isRunning).toBe(true);
  // Some thirty processes.
}, 240_000);

test('clients are in the way, until they are sent away', async () => {
  using directory = temporaryDirectory();
  const { path } = directory;
  await makeVolume(path);
  await write(path, 1);
  await varve(path, ['mark', 'disk', 'one']);
  await write(path, 2);
  await using server = await Server.start(path);
  const nbdSocket = join(path, 'nbd.sock');
  const client = await NbdClient.connect(await connectUnix(nbdSocket), {
    exportName: 'disk',
    metaContexts: [],
  });
  const past = await NbdClient.connect(await connectUnix(nbdSocket), {
    exportName: 'disk@one',
    metaContexts: [],
  });
  const refusal = await refusedHere(path, ['rollback', 'disk', '--to', 'one']);
  expect(refusal.error.code).toBe('CLIENTS_CONNECTED');
  expect(refusal.error.next).toContain('--force');
  await client.write(0, new Uint8Array(BLOCK).fill(2), { fua: false });
  const told = await asked<Told>(path, 'rollback', 'disk', '--to', 'one', '--force');
  expect(told.sessionsEnded).toBe(1);
  await expect(client.readInto(0, new Uint8Array(BLOCK))).rejects.toThrow();
  // Whoever has a moment open keeps it.
  const got = new Uint8Array(BLOCK);
  await past.readInto(0, got);
  expect(got.every((byte) => byte === 1)).toBe(true);
  await past.disconnect();
  expect(await fillOf(path)).toBe(1);
  expect(server.isRunning).toBe(true);
});

test('what is asked wrongly is refused with the way out', async () => {
  using directory = temporaryDirectory();
  const { path } = directory;
  await makeVolume(path);
  await write(path, 1);
  const { head } = await asked<{ head: { generation: number } }>(path, 'info', 'disk');
  const cases: readonly (readonly [readonly string[], string, number])[] = [
    [['disk@one', '--to', 'two'], 'USAGE', 2],
    [['disk'], 'USAGE', 2],
    [['disk', '--to', 'no such'], 'MOMENT_BAD', 2],
    [['disk', '--to', 'unknown'], 'MOMENT_UNKNOWN', 1],
    [['disk', '--to', `gen=${head.generation + 1}`], 'MOMENT_OUTSIDE', 1],
    [['other', '--to', 'gen=1'], 'VOLUME_UNKNOWN', 1],
  ];
  for (const [words, code, status] of cases) {
    const refusal = await refusedHere(path, ['rollback', ...words]);
    expect(refusal.error.code, words.join(' ')).toBe(code);
    expect(refusal.code, words.join(' ')).toBe(status);
  }
  const nothing = await asked<Told>(path, 'rollback', 'disk', '--to', `gen=${head.generation}`);
  expect(nothing).toMatchObject({ dataBytes: 0 });
  expect(nothing.undo).toBeUndefined();
});
