/** Volumes that are based on an image: made at once, read through, and refused when it changes. */
import { readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { temporaryDirectory } from '../support/files.ts';
import { buildQcow2 } from '../support/qcow2-builder.ts';
import { varve } from '../support/run.ts';
import { Server } from '../support/server.ts';
import { refused } from './house.ts';

const MIB = 1024 ** 2;
const root = temporaryDirectory();
const directory = join(root.path, 'volumes');
const raw = join(root.path, 'base.raw');
/** The last block is a part of one. */
const base = Buffer.alloc(3 * MIB + 700);
base.fill(7, 5000, 9000);
base.fill(8, 2 * MIB);

async function contentOf(name: string): Promise<Buffer> {
  const file = join(root.path, 'out.raw');
  await varve(directory, ['export', name, file, '--force']);
  return readFileSync(file);
}

beforeAll(() => {
  writeFileSync(raw, base);
});

afterAll(() => {
  root[Symbol.dispose]();
});

test('a disk begins as an image is, without a copy, and keeps what is written to itself', async () => {
  const words = ['create', 'disk', '--base', raw, '--size', '4M', '--log-size', '80M'];
  expect(await varve(directory, words)).toContain(`based on ${raw} (raw)`);
  const expected = Buffer.alloc(4 * MIB);
  base.copy(expected);
  expect((await contentOf('disk')).equals(expected)).toBe(true);
  expect(statSync(join(directory, 'disk', 'final.raw')).blocks).toBe(0);

  const changes = join(root.path, 'in.raw');
  const written = Buffer.alloc(6000, 9);
  writeFileSync(changes, written);
  await varve(directory, ['import', changes, 'disk']);
  written.copy(expected);
  expect((await contentOf('disk')).equals(expected)).toBe(true);
  const first = Buffer.alloc(4 * MIB);
  base.copy(first);
  expect((await contentOf('disk@gen=0')).equals(first)).toBe(true);
  expect(readFileSync(raw).equals(base)).toBe(true);
  const info = JSON.parse(await varve(directory, ['info', 'disk', '--json']));
  expect(info.base).toBe(`${raw} (raw)`);
  expect(JSON.parse(await varve(directory, ['check', 'disk', '--json'])).ok).toBe(true);
  const blame = JSON.parse(await varve(directory, ['blame', 'disk', '2M', '--json']));
  expect(blame.versions.map(({ kind }: { kind: string }) => kind)).toEqual(['base']);
}, 300_000);

test('a qcow2 image gives its disk, by way of a server too, and its format is said', async () => {
  const bytes = Buffer.alloc(512, 3);
  const clusters = [{ kind: 'packed', bytes }, { kind: 'none' }, { kind: 'data', bytes }] as const;
  const image = join(root.path, 'base.qcow2');
  writeFileSync(image, buildQcow2({ clusters }).bytes);
  await using _server = await Server.start(directory);
  const words = ['create', 'packed', '--base', image, '--log-size', '80M'];
  expect((await refused(directory, words)).error.code).toBe('IMAGE_FORMAT_UNSAID');
  await varve(directory, [...words, '--base-format', 'auto']);
  const expected = Buffer.concat([bytes, Buffer.alloc(512), bytes]);
  expect((await contentOf('packed')).equals(expected)).toBe(true);
}, 300_000);

test.each([
  ['without a size or a base', ['create', 'new'], 'USAGE'],
  [
    'with the format of no base',
    ['create', 'new', '--size', '1M', '--base-format', 'raw'],
    'USAGE',
  ],
  ['smaller than the base', ['create', 'new', '--base', raw, '--size', '1M'], 'SIZE_BAD'],
  [
    'of a base that is missing',
    ['create', 'new', '--base', `${raw}.not`, '--base-format', 'raw'],
    'BASE_MISSING',
  ],
])('a volume %s is refused, and none is made', async (_, words, code) => {
  expect((await refused(directory, words)).error.code).toBe(code);
  expect(JSON.parse(await varve(directory, ['list', '--json']))).not.toContainEqual(
    expect.objectContaining({ name: 'new' }),
  );
});

test('a base that is gone, or something else, is told, and never read as something else', async () => {
  renameSync(raw, `${raw}.away`);
  const missing = await refused(directory, ['info', 'disk']);
  expect(missing.error).toMatchObject({
    code: 'BASE_MISSING',
    message: expect.stringContaining(raw),
  });
  // The others are served meanwhile, and all that is asked about this one is answered with the reason.
  await using server = await Server.start(directory);
  expect(server.stderr).toMatch(/^varve: BASE_MISSING: .*"disk" is not served: .*base\.raw/);
  expect(server.uris.join()).toContain('/packed?');
  const served = await refused(directory, ['info', 'disk']);
  expect(served.error).toMatchObject({ code: 'BASE_MISSING' });
  expect(served.error.next).toContain('start the server again');
  expect(await varve(directory, ['list'])).toMatch(/^FAILED {2}disk: BASE_MISSING/m);
  expect(await server.stop()).toBe(0);
  expect(server.stdout).toMatch(/^stopped in order$/m);
  const other = Buffer.from(base);
  other.fill(1, base.length - 100);
  for (const content of [base.subarray(0, MIB), other]) {
    writeFileSync(raw, content);
    expect((await refused(directory, ['info', 'disk'])).error.code).toBe('BASE_CHANGED');
  }
  renameSync(`${raw}.away`, raw);
  await varve(directory, ['info', 'disk']);
}, 300_000);
