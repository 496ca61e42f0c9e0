/** clone and flatten: volumes that share what they began with, with and without a server. */
import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { temporaryDirectory } from '../support/files.ts';
import { varve } from '../support/run.ts';
import { Server } from '../support/server.ts';
import { makeVolume, refusedHere } from './house.ts';

const MIB = 1024 ** 2;
const root = temporaryDirectory();
const directory = join(root.path, 'volumes');
/** What the origin held when it was cloned. */
const golden = Buffer.alloc(16 * MIB);
golden.fill(3, 5000, 2 * MIB);

async function write(name: string, content: Buffer): Promise<void> {
  const file = join(root.path, 'in.raw');
  writeFileSync(file, content);
  await varve(directory, ['import', file, name]);
}

async function holds(name: string, content: Buffer): Promise<boolean> {
  const file = join(root.path, 'out.raw');
  await varve(directory, ['export', name, file, '--force']);
  return readFileSync(file).equals(content);
}

async function json(words: readonly string[]): Promise<unknown> {
  return JSON.parse(await varve(directory, [...words, '--json']));
}

/** The disk with other bytes at its beginning. */
function begun(content: Buffer, value: number): Buffer {
  const other = Buffer.from(content);
  other.fill(value, 0, 7000);
  return other;
}

beforeAll(async () => {
  await makeVolume(directory);
  await write('disk', golden.subarray(0, 3 * MIB));
  await varve(directory, ['snapshot', 'create', 'disk', 'golden']);
  await write('disk', Buffer.alloc(7000, 9));
}, 300_000);

afterAll(() => {
  root[Symbol.dispose]();
});

test('a clone is what its origin was, has a history of its own, and is cloned itself', async () => {
  expect(await json(['clone', 'disk@golden', 'one'])).toMatchObject({ base: 'disk@golden' });
  expect(await holds('one', golden)).toBe(true);
  for (const file of ['final.raw', 'final.sums', 'undo']) {
    expect(statSync(join(directory, 'one', file)).blocks).toBe(0);
  }
  await write('one', Buffer.alloc(7000, 1));
  expect(await holds('one', begun(golden, 1))).toBe(true);
  expect(await holds('one@gen=0', golden)).toBe(true);
  expect(await holds('disk', begun(golden, 9))).toBe(true);

  await using _server = await Server.start(directory);
  expect(await json(['clone', 'one', 'two'])).toMatchObject({ base: 'one@clone-two' });
  await write('one', Buffer.alloc(7000, 5));
  expect(await holds('two', begun(golden, 1))).toBe(true);
  await write('two', Buffer.alloc(7000, 2));
  expect(await holds('two', begun(golden, 2))).toBe(true);
  expect(await holds('one', begun(golden, 5))).toBe(true);
  expect((await refusedHere(directory, ['clone', 'one', 'two'])).error.code).toBe('VOLUME_EXISTS');
}, 300_000);

test('a snapshot stays while clones need it, and a clone is made independent', async () => {
  const kept = await refusedHere(directory, ['snapshot', 'delete', 'disk', 'golden']);
  expect(kept.error).toMatchObject({
    code: 'SNAPSHOT_IN_USE',
    message: expect.stringContaining('disk@golden is needed by one'),
    next: expect.stringContaining('varve flatten'),
  });
  await using server = await Server.start(directory);
  const served = await refusedHere(directory, ['snapshot', 'delete', 'disk', 'golden']);
  expect(served.error.code).toBe('SNAPSHOT_IN_USE');
  expect(await json(['flatten', 'one'])).toMatchObject({ name: 'one', base: 'disk@golden' });
  await varve(directory, ['snapshot', 'delete', 'disk', 'golden']);
  await write('disk', Buffer.alloc(3 * MIB, 4));
  for (const [name, content] of [
    ['one', begun(golden, 5)],
    ['one@gen=0', golden],
    ['two', begun(golden, 2)],
  ] as const) {
    expect(await holds(name, content)).toBe(true);
  }
  expect((await refusedHere(directory, ['flatten', 'one'])).error.code).toBe('BASE_NONE');
  await server.stop();
  expect(await json(['info', 'one'])).not.toHaveProperty('base');
  expect(await json(['check', 'one'])).toMatchObject({ ok: true });
  expect(await holds('one', begun(golden, 5))).toBe(true);
}, 300_000);

test('an origin that is gone is told, and nothing else is read in its place', async () => {
  await varve(directory, ['clone', 'disk@gen=1', 'three']);
  await varve(directory, ['clone', 'disk@gen=1', 'four']);
  const { snapshots } = JSON.parse(await varve(directory, ['info', 'disk', '--json']));
  expect(snapshots.map(({ label }: { label: string }) => label)).toEqual(['clone-three']);
  rmSync(join(directory, 'disk'), { recursive: true });
  const { error } = await refusedHere(directory, ['info', 'three']);
  expect(error).toMatchObject({ code: 'BASE_MISSING', message: expect.stringContaining('disk') });
}, 300_000);
