/** Bad input: each a clear error with its code, exit 1 or 2, and nothing changed. */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { needs } from '../support/clients.ts';
import { copyTree, temporaryDirectory } from '../support/files.ts';
import { varve, varveToEnd } from '../support/run.ts';
import { makeVolume, refused, refusedHere, SMALL_SIZES, stateOf } from './house.ts';

const HUGE = '9007199254740992';
const temporary = temporaryDirectory();
const data = join(temporary.path, 'data');
const spare = join(temporary.path, 'spare.raw');

beforeAll(async () => {
  await makeVolume(data);
  writeFileSync(spare, 'not empty');
});

afterAll(() => {
  temporary[Symbol.dispose]();
});

type Row = readonly [words: readonly string[], code: string, exit: 1 | 2];

const create = (...words: readonly string[]): readonly string[] => ['create', 'new', ...words];

const ROWS: readonly Row[] = [
  [['info', 'nope'], 'VOLUME_UNKNOWN', 1],
  [['history', 'nope'], 'VOLUME_UNKNOWN', 1],
  [['check', 'nope'], 'VOLUME_UNKNOWN', 1],
  [['mode', 'nope', 'back'], 'VOLUME_UNKNOWN', 1],
  [['mark', 'nope', 'x'], 'VOLUME_UNKNOWN', 1],
  [['snapshot', 'create', 'nope', 'x'], 'VOLUME_UNKNOWN', 1],
  [['snapshot', 'list', '../data'], 'VOLUME_UNKNOWN', 1],
  [['export', 'nope@-1m', join(temporary.path, 'out')], 'VOLUME_UNKNOWN', 1],
  [['import', spare, 'nope'], 'VOLUME_UNKNOWN', 1],
  [['import', join(temporary.path, 'none'), 'disk'], 'FILE_BAD', 1],
  [['import', temporary.path, 'disk'], 'FILE_BAD', 1],
  [['export', 'disk@yesterday!', join(temporary.path, 'out')], 'MOMENT_BAD', 2],
  [['export', 'disk@', join(temporary.path, 'out')], 'MOMENT_BAD', 2],
  [['export', 'disk@yesterday', join(temporary.path, 'out')], 'MOMENT_UNKNOWN', 1],
  [['export', 'disk@gen=12345', join(temporary.path, 'out')], 'MOMENT_OUTSIDE', 1],
  [['export', 'disk@2999-01-01T00:00:00Z', join(temporary.path, 'out')], 'MOMENT_FUTURE', 1],
  [['export', 'disk@2001-01-01T00:00:00Z', join(temporary.path, 'out')], 'MOMENT_OUTSIDE', 1],
  [['export', 'disk', spare], 'FILE_EXISTS', 1],
  [['export', 'disk', join(temporary.path, 'no', 'out')], 'FILE_BAD', 1],
  [['export', 'disk', temporary.path, '--force'], 'FILE_BAD', 1],
  [['import', spare, 'disk@-0s'], 'READ_ONLY', 1],
  [['snapshot', 'create', 'disk', 'x', '--at', '-1y'], 'MOMENT_BAD', 2],
  [['snapshot', 'create', 'disk', 'a b'], 'LABEL_BAD', 2],
  [['snapshot', 'create', 'disk', 'flush-1'], 'LABEL_BAD', 2],
  [['history', 'disk', '--intervals', '0'], 'USAGE', 2],
  [['history', 'disk', '--from', 'noon'], 'MOMENT_BAD', 2],
  [['history', 'disk', '--around', '2999-01-01T00:00:00Z'], 'MOMENT_FUTURE', 1],
  [['mode', 'disk', 'sideways'], 'USAGE', 2],
  [create('--size', '0'), 'SIZE_BAD', 2],
  [create('--size', '-5G'), 'SIZE_BAD', 2],
  [create('--size', '10'), 'SIZE_BAD', 2],
  [create('--size', 'much'), 'SIZE_BAD', 2],
  [create('--size', HUGE), 'SIZE_BAD', 2],
  [create('--size', '9007199254740991'), 'SIZE_BAD', 2],
  [create('--size', '1G', '--log-size', HUGE), 'SIZE_BAD', 2],
  [create('--size', '1G', '--log-size', '32M'), 'LOG_TOO_SMALL', 2],
  [create('--size', '1G', '--ring-size', '1M'), 'RING_BAD', 2],
  [create('--size', '1G', '--ring-size', '1T'), 'RING_BAD', 2],
  [create(...SMALL_SIZES, '--log', join(data, 'disk', 'log')), 'LOG_IN_USE', 1],
  [create(...SMALL_SIZES, '--log', spare), 'LOG_IN_USE', 1],
  [create(...SMALL_SIZES, '--final', join(data, 'disk', 'final.raw')), 'LOG_IN_USE', 1],
  [create(...SMALL_SIZES, '--log', temporary.path), 'FILE_BAD', 1],
  [create(...SMALL_SIZES, '--log', join(temporary.path, 'no', 'log')), 'FILE_BAD', 1],
  [['create', 'disk', ...SMALL_SIZES], 'VOLUME_EXISTS', 1],
  [['create', '../new', ...SMALL_SIZES], 'VOLUME_NAME_BAD', 2],
  [['create', 'nbd.sock', ...SMALL_SIZES], 'VOLUME_NAME_BAD', 2],
  [['create', 'new'], 'USAGE', 2],
  [['frobnicate'], 'USAGE', 2],
  [['info'], 'USAGE', 2],
  [['list', '--colour'], 'USAGE', 2],
  [['serve', '--tcp', 'localhost'], 'ADDRESS_BAD', 2],
  [['serve', '--tcp', '127.0.0.1:99999'], 'ADDRESS_BAD', 2],
  [['serve', '--unix', join(temporary.path, 'x'.repeat(120))], 'ADDRESS_BAD', 2],
  [['serve', '--unix', spare], 'ADDRESS_IN_USE', 1],
  [['serve', '--create', 'new'], 'USAGE', 2],
  [['serve', '--create', 'new:0'], 'SIZE_BAD', 2],
  [['serve', '--write-mode', 'sideways'], 'USAGE', 2],
];

describe('bad input', () => {
  test.each(ROWS)('%j is refused with %s, exit %i', async (words, code, exit) => {
    const before = stateOf(temporary.path);
    const { code: status, error, stdout } = await refusedHere(data, words);
    expect(error).toMatchObject({ code });
    expect(error.next).not.toBe('');
    expect(status).toBe(exit);
    expect(stdout).toBe('');
    expect(stateOf(temporary.path)).toEqual(before);
  });

  test('that only the open volume can tell is refused, and nothing of what it holds is changed', async () => {
    const before = JSON.parse(await varve(data, ['info', 'disk', '--json']));
    const create = ['snapshot', 'create', 'disk', 'x'];
    const outside = await refused(data, [...create, '--at', 'flush-9']);
    expect(outside).toMatchObject({ code: 1, error: { code: 'MOMENT_OUTSIDE' } });
    expect(outside.error.message).toContain('the window is');
    const unknown = await refused(data, ['snapshot', 'delete', 'disk', 'none']);
    expect(unknown).toMatchObject({ code: 1, error: { code: 'SNAPSHOT_UNKNOWN' } });
    const after = JSON.parse(await varve(data, ['info', 'disk', '--json']));
    expect(after).toMatchObject({ head: before.head, snapshots: [], marks: [] });
  });

  test.each<readonly [words: readonly string[], next: string]>([
    [create('--size', '10'), 'did you mean 10G?'],
    [create('--size', '1G', '--log-size', '32M'), 'give at least 73M'],
    [create('--size', '1G', '--log-size', '300G'), 'at most 256G'],
    [create('--size', '1G', '--ring-size', '1M'), 'give 64M to 4095M'],
    [create('--base', `${spare}.not`, '--base-format', 'raw'), 'check the path of --base'],
    [['scrub', 'disk', '--rate', 'fast'], 'such as 64M, or 0 for no limit'],
    [['history', 'disk', '--from', 'yesterday'], 'write a time'],
    [['export', 'disk', spare, '--resume'], '--force exports it again'],
  ])('%j is told how to go on: %s', async (words, next) => {
    expect((await refusedHere(data, words)).error.next).toContain(next);
  });

  test('tells people the code, what happened, and the next step', async () => {
    const { code, stderr } = await varveToEnd(data, ['info', 'nope']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^varve: VOLUME_UNKNOWN: .*"nope".*\n {2}run `varve list`/);
  });

  test('an address in use is told, and the volumes are left alone', async () => {
    const holder = createServer().listen(0, '127.0.0.1');
    await once(holder, 'listening');
    const address = holder.address();
    const port = typeof address === 'object' ? address?.port : undefined;
    const before = stateOf(temporary.path);
    const { code, error } = await refused(data, ['serve', '--tcp', `127.0.0.1:${port}`]);
    // Nor is one made that this server would have served: the retry makes it.
    const tcp = ['--tcp', `127.0.0.1:${port}`];
    const fresh = join(temporary.path, 'fresh');
    for (const [where, more] of [
      [data, ['--create', 'new:1M']],
      [fresh, ['--start']],
    ] as const) {
      const making = await refused(where, ['serve', ...tcp, ...more]);
      expect(making.error.code).toBe('ADDRESS_IN_USE');
    }
    holder.close();
    expect(error).toMatchObject({ code: 'ADDRESS_IN_USE' });
    expect(error.message).toContain(String(port));
    expect(code).toBe(1);
    // The log's superblock says that it was closed in order; names and sizes are the same.
    expect([...stateOf(temporary.path).keys()]).toEqual([...before.keys()]);
  });

  test('a directory that is not there is not made by asking', async () => {
    const elsewhere = join(temporary.path, 'elsewhere');
    for (const words of [['info', 'disk'], ['serve'], ['check', 'disk'], ['list']]) {
      const { code } = await refused(elsewhere, words);
      expect(code).toBe(1);
    }
    expect(stateOf(temporary.path).has(elsewhere)).toBe(false);
  });

  test('a directory without permission is told', async () => {
    // Nobody may make directories there, the superuser included.
    const { code, error } = await refused('/sys/varve', ['create', 'disk', ...SMALL_SIZES]);
    expect(error).toMatchObject({ code: 'PERMISSION' });
    expect(code).toBe(1);
  });

  test('a directory that is a file is told', async () => {
    const { code, error } = await refused(spare, ['list']);
    expect(error).toMatchObject({ code: 'FILE_BAD' });
    expect(code).toBe(1);
  });

  test.runIf(needs('mount') && process.getuid?.() === 0)(
    'a full disk is told, and nothing stays',
    async () => {
      using mounted = temporaryDirectory();
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=20m', 'varve-test', mounted.path]);
      try {
        const { code, error } = await refused(join(mounted.path, 'data'), create(...SMALL_SIZES));
        expect(error).toMatchObject({ code: 'DISK_FULL' });
        expect(code).toBe(1);
        expect(stateOf(mounted.path).size).toBe(0);
      } finally {
        execFileSync('umount', [mounted.path]);
      }
    },
  );
});

describe('files of a volume', () => {
  /** A copy of the volume that may be spoilt. */
  function spoilt(spoil: (folder: string) => void): { readonly path: string } & Disposable {
    const copy = temporaryDirectory();
    copyTree(data, copy.path);
    spoil(join(copy.path, 'disk'));
    return copy;
  }

  const DAMAGES: readonly (readonly [string, string, (folder: string) => void])[] = [
    ['a truncated log', 'VOLUME_FOREIGN', (at) => truncateSync(join(at, 'log'), 4096)],
    ['a truncated final storage', 'VOLUME_FOREIGN', (at) => truncateSync(join(at, 'final.raw'), 1)],
    ['truncated sums', 'VOLUME_FOREIGN', (at) => truncateSync(join(at, 'final.sums'), 0)],
    ['an empty volume.json', 'VOLUME_FOREIGN', (at) => truncateSync(join(at, 'volume.json'), 0)],
    ['a foreign log', 'VOLUME_FOREIGN', (at) => blankFile(join(at, 'log'))],
    ['a log of another volume', 'VOLUME_FOREIGN', (at) => otherIdentity(join(at, 'volume.json'))],
    ['a future format', 'VERSION_UNKNOWN', (at) => otherFormat(join(at, 'volume.json'))],
  ];

  test.each(DAMAGES)(
    '%s is refused with %s, and nothing is changed',
    async (_what, code, spoil) => {
      using copy = spoilt(spoil);
      const before = stateOf(copy.path);
      for (const words of [['info', 'disk'], ['serve'], ['mark', 'disk', 'x'], ['check', 'disk']]) {
        const { code: status, error } = await refusedHere(copy.path, words);
        expect(error).toMatchObject({ code });
        expect(status).toBe(1);
      }
      expect(stateOf(copy.path)).toEqual(before);
    },
  );

  test('that are missing are not made anew', async () => {
    using copy = temporaryDirectory();
    mkdirSync(join(copy.path, 'disk'));
    copyFileSync(join(data, 'disk', 'volume.json'), join(copy.path, 'disk', 'volume.json'));
    const before = stateOf(copy.path);
    const { error } = await refused(copy.path, ['info', 'disk']);
    expect(error).toMatchObject({ code: 'VOLUME_FOREIGN' });
    expect(stateOf(copy.path)).toEqual(before);
  });
});

function blankFile(path: string): void {
  const { length } = readFileSync(path);
  writeFileSync(path, Buffer.alloc(length));
}

function otherIdentity(path: string): void {
  const other = '00000000-0000-4000-8000-000000000000';
  writeFileSync(path, readFileSync(path, 'utf8').replace(/"uuid": "[^"]+"/, `"uuid": "${other}"`));
}

function otherFormat(path: string): void {
  writeFileSync(path, readFileSync(path, 'utf8').replace('"format": 2', '"format": 9'));
}
