/** diff, blame and find: the same answers from a server and without one. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { temporaryDirectory } from '../support/files.ts';
import { run, varve } from '../support/run.ts';
import { Server } from '../support/server.ts';
import { makeVolume, refusedHere } from './house.ts';

const BLOCK = 4096;
const directory = temporaryDirectory();
const { path } = directory;

interface Range {
  readonly offset: number;
  readonly length: number;
  readonly became: string;
}

interface Diff {
  readonly from: { readonly generation: number };
  readonly to: { readonly generation: number };
  readonly ranges: readonly Range[];
  readonly totals: Readonly<Record<string, number>>;
}

interface Version {
  readonly kind: string;
  readonly generation?: number;
  readonly seenBy: { readonly live: boolean; readonly snapshots: readonly string[] };
}

interface Spell {
  readonly offset: number;
  readonly open: string;
  readonly since?: { readonly generation: number };
  readonly gone?: { readonly generation: number };
}

async function asked<T>(...words: readonly string[]): Promise<T> {
  const answer: T = JSON.parse(await varve(path, [...words, '--json']));
  return answer;
}

/** A disk of 40 blocks; block 3 ends with the beginning of a word that block 4 ends. */
async function write(word: string, fill: number): Promise<void> {
  const content = Buffer.alloc(40 * BLOCK);
  content.fill(fill, 10 * BLOCK, 20 * BLOCK);
  content.write(word, 4 * BLOCK - 3);
  const file = join(path, 'in.raw');
  writeFileSync(file, content);
  await varve(path, ['import', file, 'disk']);
}

beforeAll(async () => {
  await makeVolume(path);
  await write('needle', 1);
  await varve(path, ['snapshot', 'create', 'disk', 'one']);
  await write('nothing', 1);
  await varve(path, ['mark', 'disk', 'two']);
});

afterAll(() => {
  directory[Symbol.dispose]();
});

/** What is asked, once of the volume and once of a server. */
async function bothWays(check: () => Promise<void>): Promise<void> {
  await check();
  await using server = await Server.start(path);
  await check();
  expect(await server.stop()).toBe(0);
}

describe('varve diff', () => {
  test('names what changed, and what the second name holds there', async () => {
    await bothWays(async () => {
      const there = await asked<Diff>('diff', 'disk@one', 'disk');
      // The import writes all that it has: what is the same was written again.
      expect(there.ranges.reduce((sum, { length }) => sum + length, 0)).toBe(40 * BLOCK);
      expect(there.totals).toMatchObject({ bytes: 40 * BLOCK, blocks: 40, dataBytes: 12 * BLOCK });
      expect(there.from.generation).toBeLessThan(there.to.generation);
      const back = await asked<Diff>('diff', 'disk', 'disk@gen=0');
      expect(back.ranges).toEqual([{ offset: 0, length: 40 * BLOCK, became: 'zeros' }]);
      expect((await asked<Diff>('diff', 'disk@two')).ranges).toEqual([]);
    });
  });

  test('compares bytes where it is asked to', async () => {
    await bothWays(async () => {
      const { ranges, totals } = await asked<Diff>('diff', 'disk@one', 'disk', '--content');
      expect(ranges).toEqual([{ offset: 3 * BLOCK, length: 2 * BLOCK, became: 'data' }]);
      expect(totals).toMatchObject({ ranges: 1, blocks: 2, sameBytes: 38 * BLOCK });
    });
  });

  test('is a list for people, and a line of counts', async () => {
    const told = await varve(path, ['diff', 'disk@one', 'disk', '--content']);
    expect(told).toMatch(/^from {2}disk@gen=\d+ {2}20.*\nto {4}disk@gen=\d+ /);
    expect(told).toMatch(/\n +OFFSET +LENGTH {2}BECAME\n +12288 +8192 {2}data\n/);
    expect(told).toContain('1 ranges, 2 blocks, 8192 bytes');
    const short = await varve(path, ['diff', 'disk@one', '--summary']);
    expect(short).not.toContain('OFFSET');
    expect(short).toContain('40 blocks');
  });

  test('refuses two volumes, and moments that are none', async () => {
    const two = await refusedHere(path, ['diff', 'disk@one', 'other@two']);
    expect(two).toMatchObject({ code: 2, error: { code: 'USAGE' } });
    const outside = await refusedHere(path, ['diff', 'disk@gen=9999']);
    expect(outside).toMatchObject({ code: 1, error: { code: 'MOMENT_OUTSIDE' } });
    const unknown = await refusedHere(path, ['diff', 'nodisk@one']);
    expect(unknown.error.code).toBe('VOLUME_UNKNOWN');
  });
});

describe('varve blame', () => {
  test('lists the versions of a block with what shows them', async () => {
    await bothWays(async () => {
      const { versions } = await asked<{ versions: readonly Version[] }>('blame', 'disk', '12288');
      expect(versions.map(({ kind }) => kind)).toEqual(['data', 'data', 'blank']);
      expect(versions.map(({ seenBy }) => seenBy.live)).toEqual([true, false, false]);
      expect(versions.map(({ seenBy }) => seenBy.snapshots)).toEqual([[], ['one'], []]);
    });
  });

  test('goes on where it stopped, and back from a moment', async () => {
    const told = await varve(path, ['blame', 'disk', '3K', '--limit', '1']);
    expect(told).toContain('block 0 of disk, bytes 0 to 4095');
    const next = /older: varve (blame disk@gen=\d+ 3072)/.exec(told)?.[1]?.split(' ') ?? [];
    expect(await varve(path, next)).toContain('before the window');
    const old = await asked<{ versions: readonly Version[] }>('blame', 'disk@one', '0');
    expect(old.versions).toHaveLength(2);
    const beyond = await refusedHere(path, ['blame', 'disk', '1T']);
    expect(beyond.error.code).toBe('REQUEST_BAD');
    expect((await refusedHere(path, ['blame', 'disk', 'here'])).error.code).toBe('USAGE');
  });
});

describe('varve find', () => {
  test('--changed-at names the moments after and before each change', async () => {
    await bothWays(async () => {
      const found = await asked<{
        changes: readonly { generation: number; after: string; before: string }[];
        next?: number;
      }>('find', 'disk', '--changed-at', '0x3000');
      expect(found.changes).toHaveLength(2);
      for (const { generation, after, before } of found.changes) {
        expect([after, before]).toEqual([`disk@gen=${generation}`, `disk@gen=${generation - 1}`]);
      }
      expect(found.next).toBeUndefined();
    });
    const first = await asked<{ changes: readonly unknown[]; next: number }>(
      'find',
      'disk',
      '--changed-at',
      '0x3000',
      '--limit',
      '1',
    );
    expect(first.changes).toHaveLength(1);
    const words = ['find', 'disk', '--changed-at', '0x3000', '--to', `gen=${first.next}`];
    expect((await asked<{ changes: readonly unknown[] }>(...words)).changes).toHaveLength(1);
    const since = ['find', 'disk', '--changed-at', '0x3000', '--from', 'one'];
    expect((await asked<{ changes: readonly unknown[] }>(...since)).changes).toHaveLength(1);
    const none = await varve(path, ['find', 'disk', '--changed-at', '10M']);
    expect(none).toContain('nothing changed there');
  });

  test('--bytes finds what came and went, over the edge of two blocks too', async () => {
    await bothWays(async () => {
      const found = await asked<{ spells: readonly Spell[]; open: string }>(
        'find',
        'disk',
        '--bytes',
        'needle',
      );
      expect(found.spells).toHaveLength(1);
      const [spell] = found.spells;
      expect(spell).toMatchObject({ offset: 4 * BLOCK - 3, open: found.open });
      const out = join(path, 'out.raw');
      await varve(path, ['export', found.open, out, '--force']);
      expect(await run('grep', ['-c', '--text', 'needle', out])).toBe('1\n');
      const gone = await asked<{ spells: readonly Spell[] }>(
        'find',
        'disk',
        '--bytes',
        'hex:6e65_65',
        '--at',
        '12288',
        '--from',
        'one',
      );
      expect(gone.spells).toMatchObject([{ offset: 4 * BLOCK - 3, gone: spell?.gone }]);
      expect(gone.spells[0]?.since).toBeUndefined();
    });
    const told = await varve(path, ['find', 'disk', '--bytes', 'needle']);
    expect(told).toMatch(/OFFSET {2}APPEARED +GONE +LAST MOMENT WITH IT\n +16381 /);
    expect(told).toContain('were not searched; --throughout');
  });

  test('--bytes with --throughout names what never went', async () => {
    const words = ['find', 'disk', '--bytes', 'text:needle', '--from', 'one', '--to', 'one'];
    expect((await asked<{ spells: readonly Spell[] }>(...words)).spells).toEqual([]);
    const all = await asked<{ spells: readonly Spell[] }>(...words, '--throughout');
    expect(all.spells).toMatchObject([{ offset: 4 * BLOCK - 3 }]);
    expect(all.spells[0]?.gone).toBeUndefined();
  });

  test('says what it needs', async () => {
    const refusals = [
      ['find', 'disk'],
      ['find', 'disk', '--bytes', 'a', '--changed-at', '0'],
      ['find', 'disk', '--bytes', 'hex:abc'],
      ['find', 'disk', '--bytes', ''],
      ['find', 'disk', '--bytes', 'x'.repeat(1025)],
      ['find', 'disk@one', '--bytes', 'a'],
      ['find', 'disk', '--bytes', 'a', '--limit', '0'],
      ['find', 'disk', '--bytes', 'a', '--from', 'two', '--to', 'one'],
    ];
    for (const words of refusals) {
      expect(await refusedHere(path, words), words.join(' ')).toMatchObject({
        code: 2,
        error: { code: 'USAGE' },
      });
    }
    const beyond = await refusedHere(path, ['find', 'disk', '--bytes', 'a', '--at', '1T']);
    expect(beyond.error.code).toBe('REQUEST_BAD');
  });
});
