/** send and receive: by files, with a server at either end and without. */
import { execFileSync } from 'node:child_process';
import {
  createReadStream,
  existsSync,
  lstatSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { temporaryDirectory } from '../support/files.ts';
import { runToEnd, varve, VARVE } from '../support/run.ts';
import { Server } from '../support/server.ts';
import { makeVolume, refusedHere } from './house.ts';

const root = temporaryDirectory();
const from = join(root.path, 'from');
const to = join(root.path, 'to');
const stream = join(root.path, 'stream.varve');
const backup = join(root.path, 'backup.varve');

async function write(fill: number): Promise<void> {
  const content = Buffer.alloc(4 * 1024 ** 2);
  content.fill(fill, fill * 8192, 3 * 1024 ** 2);
  const file = join(root.path, 'in.raw');
  writeFileSync(file, content);
  await varve(from, ['import', file, 'disk']);
}

async function contentOf(directory: string, name: string): Promise<Buffer> {
  const file = join(root.path, 'out.raw');
  await varve(directory, ['export', name, file, '--force']);
  return readFileSync(file);
}

/** Not by an assertion on buffers: that looks at each byte. */
async function isSame(there: string, here: string): Promise<boolean> {
  return (await contentOf(to, there)).equals(await contentOf(from, here));
}

beforeAll(async () => {
  await makeVolume(from);
  await write(1);
  await varve(from, ['snapshot', 'create', 'disk', 'one']);
  await write(2);
  await varve(from, ['snapshot', 'create', 'disk', 'two']);
}, 120_000);

afterAll(() => {
  root[Symbol.dispose]();
});

test('a disk goes over whole, then what changed, which breaks off and is resumed', async () => {
  await varve(from, ['send', 'disk@one', '--output', stream]);
  const first = await varve(to, ['receive', 'copy', '--input', stream, '--log-size', '80M']);
  expect(first).toContain('snapshot one');
  const dry = JSON.parse(
    await varve(from, ['send', 'disk@two', '--from', 'one', '--dry-run', '--json']),
  );
  expect(dry).toMatchObject({ name: 'disk', from: { label: 'one' }, to: { label: 'two' } });
  expect(dry.dataBytes).toBeGreaterThan(2 * 1024 ** 2);

  await using origin = await Server.start(from);
  await using copy = await Server.start(to);
  await varve(from, ['send', 'disk@two', '--from', 'disk@one', '--output', stream, '--force']);
  const again = await refusedHere(from, ['send', 'disk@two', '--output', stream]);
  expect(again.error.code).toBe('FILE_EXISTS');
  truncateSync(stream, statSync(stream).size - 900_000);
  const cut = await refusedHere(to, ['receive', 'copy', '--input', stream]);
  expect(cut).toMatchObject({ code: 1, error: { code: 'STREAM_CUT' } });
  expect(await isSame('copy', 'disk@one')).toBe(true);
  expect(await varve(to, ['info', 'copy'])).toMatch(/receiving +generation \d+ of .*: unfinished/);
  expect(await copy.stop()).toBe(0);

  const token = (await varve(to, ['receive', 'copy', '--resume-token'])).trim();
  await varve(from, ['send', 'disk', '--resume', token, '--output', stream, '--force']);
  const told = JSON.parse(await varve(to, ['receive', 'copy', '--input', stream, '--json']));
  expect(told).toMatchObject({ name: 'copy', snapshot: 'two' });
  expect(await isSame('copy@two', 'disk@two')).toBe(true);
  expect(await isSame('copy@one', 'disk@one')).toBe(true);
  expect(await origin.stop()).toBe(0);
}, 180_000);

test('what is asked wrongly is told with the next step', async () => {
  const none = await refusedHere(to, ['receive', 'copy', '--resume-token']);
  expect(none.error.code).toBe('RECEIVE_NONE');
  const nothing = await refusedHere(to, ['receive', 'copy', '--abort']);
  expect(nothing.error.code).toBe('RECEIVE_NONE');
  const token = await refusedHere(from, ['send', 'disk', '--resume', 'rubbish', '--dry-run']);
  expect(token.error).toMatchObject({ code: 'STREAM_BAD' });
  const backwards = await refusedHere(from, ['send', 'disk@one', '--from', 'two', '--dry-run']);
  expect(backwards.error.code).toBe('HISTORY_EMPTY');
  const other = await refusedHere(from, ['send', 'disk', '--from', 'other@one', '--dry-run']);
  expect(other.error.code).toBe('USAGE');
  const file = join(root.path, 'in.raw');
  expect((await refusedHere(to, ['receive', 'copy', '--input', file])).error.code).toBe(
    'STREAM_BAD',
  );
  expect((await refusedHere(to, ['receive', 'new', '--input', file])).error.code).toBe(
    'STREAM_BAD',
  );
  expect(JSON.parse(await varve(to, ['list', '--json']))).toHaveLength(1);
  await varve(from, ['send', 'disk@two', '--from', 'one', '--output', stream, '--force']);
  const twice = await refusedHere(to, ['receive', 'copy', '--input', stream]);
  expect(twice.error.code).toBe('STREAM_MISFIT');
  expect(twice.error.message).toContain('it holds that already: snapshot two');
  expect(twice.error.next).toContain('nothing has to be done');
  const unknown = await refusedHere(to, ['receive', 'new', '--input', stream]);
  expect(unknown.error.code).toBe('VOLUME_UNKNOWN');
}, 180_000);

// On a disk that ran full, `--force` had emptied the backup of before, and then removed it, too; and
// the user was told that the size they never gave was bad.
test('a backup that can not be replaced stays, and is replaced behind a link', async () => {
  const link = join(root.path, 'latest.varve');
  symlinkSync(backup, link);
  await varve(from, ['send', 'disk@two', '--output', backup]);
  expect(statSync(backup).mode & 0o777).toBe(0o600);
  const old = readFileSync(backup);
  const command = `trap '' XFSZ; ulimit -f 1024; exec "$@"`;
  const words = ['send', 'disk@one', '--output', link, '--force', '--json', '--dir', from];
  const full = await runToEnd('bash', ['-c', command, '-', process.execPath, VARVE, ...words]);
  const { error } = JSON.parse(full.stderr);
  expect([full.code, error.code]).toEqual([1, 'DISK_FULL']);
  expect(error.next).toContain('ulimit -f');
  expect(readFileSync(backup).equals(old)).toBe(true);
  expect(existsSync(`${backup}.part`)).toBe(false);

  await varve(from, ['send', 'disk@one', '--output', link, '--force']);
  expect(readFileSync(backup).equals(old)).toBe(false);
  expect(lstatSync(link).isSymbolicLink()).toBe(true);
});

// A pipe got all of the stream; then its sync failed, the user was told that the backup had, and
// the pipe was removed, as /dev/null would have been.
test('a pipe gets the stream, and stays', async () => {
  const pipe = join(root.path, 'pipe');
  execFileSync('mkfifo', [pipe]);
  const got = (async (): Promise<Buffer> => {
    const pieces: Buffer[] = [];
    for await (const piece of createReadStream(pipe)) pieces.push(Buffer.from(piece));
    return Buffer.concat(pieces);
  })();
  await varve(from, ['send', 'disk@one', '--output', pipe, '--force']);
  expect((await got).equals(readFileSync(backup))).toBe(true);
  expect(statSync(pipe).isFIFO()).toBe(true);
  const refusal = await refusedHere(from, ['send', 'disk@one', '--output', pipe]);
  expect(refusal.error.code).toBe('FILE_EXISTS');
});
