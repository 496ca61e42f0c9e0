/**
 * Nobody knows when it happened: a directory tree on a served ext4 is gone, and nobody took a
 * snapshot or looked at a clock. `find` says when its name went, `history` shows the burst and the
 * last quiet moment before it, and the tree is copied back from there to the live disk.
 */
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { describeWith } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { generateTree, manifestOf } from '../support/generated-tree.ts';
import { AttachedDisk, Mount, withExt4 } from '../support/mounts.ts';
import { run, varve } from '../support/run.ts';
import { Server } from '../support/server.ts';

const FILES = 400;
const TREE = 'years-of-work';
const SENTENCE = 'It was the best of blocks, it was the worst of blocks';
/** Long enough to be seen as a pause in a history of half seconds. */
const QUIET_MS = 2500;

interface Point {
  readonly generation: number;
  readonly wallUs: number;
}

interface Found {
  readonly spells: readonly {
    readonly offset: number;
    readonly last: number;
    readonly since?: Point;
    readonly gone?: Point;
  }[];
}

interface Interval {
  readonly fromWallUs: number;
  readonly toWallUs: number;
  readonly generation: number;
  readonly writes: number;
  readonly trims: number;
  readonly trimmedBytes: number;
}

interface Diff {
  readonly totals: Readonly<Record<'bytes' | 'zeroBytes', number>>;
}

async function prepare(server: Server): Promise<ReadonlyMap<string, string>> {
  {
    await using disk = await AttachedDisk.attach(server.uri(), 'write');
    // Nothing is left to be done in the background: pauses are pauses.
    const eager = 'lazy_itable_init=0,lazy_journal_init=0';
    await run('mkfs.ext4', ['-q', '-F', '-E', eager, disk.device]);
  }
  return await withExt4(server.uri(), async (path) => {
    const tree = join(path, TREE);
    generateTree(tree, { seed: 11, files: FILES });
    writeFileSync(join(tree, 'letter.txt'), `${SENTENCE}\n`.repeat(200));
    return manifestOf(tree);
  });
}

/** Work before and after, and the accident in between, all while the disk is mounted. */
async function accident(server: Server): Promise<void> {
  await withExt4(server.uri(), async (path) => {
    writeFileSync(join(path, 'before.txt'), 'other work');
    await run('sync', ['--file-system', path]);
    await delay(QUIET_MS);
    rmSync(join(path, TREE), { recursive: true });
    await run('sync', ['--file-system', path]);
    await delay(QUIET_MS);
    writeFileSync(join(path, 'after.txt'), 'work goes on');
  });
}

/** The newest moment at the end of a quiet interval before a time. */
function quietBefore(intervals: readonly Interval[], wallUs: number): number {
  const before = intervals.filter(({ toWallUs }) => toWallUs <= wallUs);
  const quiet = before.findLast(({ writes, trims }) => writes + trims === 0);
  expect(quiet, 'there is a pause before the accident').toBeDefined();
  return quiet?.generation ?? 0;
}

const CLIENTS = ['nbdfuse', 'fusermount3', 'losetup', 'mount', 'mkfs.ext4'] as const;

describeWith(CLIENTS, 'a tree that is gone, nobody knows since when', () => {
  it('is found by find and history, and copied back', async () => {
    using directory = temporaryDirectory();
    const data = join(directory.path, 'data');
    await varve(data, ['create', 'disk', '--size', '256M', '--log-size', '256M']);
    await using server = await Server.start(data);
    const written = await prepare(server);
    await accident(server);

    // When did the name go, and the content?
    const ask = async (...words: readonly string[]): Promise<string> =>
      await varve(data, [...words, '--json']);
    const names: Found = JSON.parse(await ask('find', 'disk', '--bytes', TREE));
    expect(names.spells.some((spell) => spell.gone !== undefined)).toBe(true);
    const letters: Found = JSON.parse(await ask('find', 'disk', '--bytes', SENTENCE));
    expect(letters.spells.length).toBeGreaterThan(100);
    // The journal may lose the name earlier; data is in one place.
    const gone = letters.spells.flatMap((spell) => (spell.gone === undefined ? [] : [spell.gone]));
    expect(gone).toHaveLength(letters.spells.length);
    const at = Math.min(...gone.map(({ wallUs }) => wallUs));

    // What else happened then? A burst of trims, after a pause.
    const when = new Date(at / 1000).toISOString();
    const span = ['--span', '12s', '--intervals', '24'];
    const history: readonly Interval[] = JSON.parse(
      await ask('history', 'disk', '--around', when, ...span),
    );
    const burst = history.filter(({ toWallUs }) => toWallUs > at - 1e6);
    expect(burst.reduce((sum, { trimmedBytes }) => sum + trimmedBytes, 0)).toBeGreaterThan(2 ** 20);
    const moment = `disk@gen=${quietBefore(history, at)}`;
    const diff: Diff = JSON.parse(await ask('diff', moment, 'disk', '--summary'));
    expect(diff.totals.zeroBytes).toBeGreaterThan(2 ** 20);

    // The block that held the first of the letter is blamed on the same burst.
    const offset = letters.spells[0]?.offset ?? 0;
    const blame: { versions: readonly { kind: string; wallUs: number }[] } = JSON.parse(
      await ask('blame', 'disk', String(offset)),
    );
    expect(blame.versions[0]).toMatchObject({ kind: 'trim' });
    expect(Math.abs((blame.versions[0]?.wallUs ?? 0) - at)).toBeLessThan(QUIET_MS * 1000);

    await using past = await AttachedDisk.attach(server.uri(moment), 'read');
    await using old = await Mount.mount(past.device, { type: 'ext4', options: 'ro,noload' });
    expect(manifestOf(join(old.path, TREE))).toEqual(written);
    await withExt4(server.uri(), async (path) => {
      cpSync(join(old.path, TREE), join(path, TREE), { recursive: true });
      expect(manifestOf(join(path, TREE))).toEqual(written);
      expect(readFileSync(join(path, 'after.txt'), 'utf8')).toBe('work goes on');
    });
    await withExt4(server.uri(), async (path) => {
      expect(manifestOf(join(path, TREE))).toEqual(written);
    });
    expect(server.isRunning).toBe(true);
  });
});
