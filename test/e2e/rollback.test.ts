/**
 * A directory tree on a served ext4 is deleted, and work goes on; the disk is rolled back in place to
 * the moment before, which a clean fsck and every file of the tree tell of. Then that is undone.
 */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { describeWith } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { generateTree, manifestOf } from '../support/generated-tree.ts';
import { AttachedDisk, withExt4 } from '../support/mounts.ts';
import { run, varve, varveToEnd } from '../support/run.ts';
import { Server } from '../support/server.ts';

const FILES = 300;
const TREE = 'years-of-work';
const CLIENTS = ['nbdfuse', 'fusermount3', 'losetup', 'mount', 'mkfs.ext4'] as const;

/** Nothing to repair, and nothing to replay: it was unmounted. */
async function fsck(server: Server): Promise<void> {
  await using disk = await AttachedDisk.attach(server.uri(), 'write');
  await run('e2fsck', ['-fn', disk.device]);
}

describeWith(CLIENTS, 'a disk that is rolled back', () => {
  it('has the deleted tree again, and loses it again when that is undone', async () => {
    using directory = temporaryDirectory();
    const data = join(directory.path, 'data');
    await varve(data, ['create', 'disk', '--size', '256M', '--log-size', '512M']);
    await using server = await Server.start(data);
    {
      await using disk = await AttachedDisk.attach(server.uri(), 'write');
      await run('mkfs.ext4', ['-q', '-F', disk.device]);
    }
    const written = await withExt4(server.uri(), async (path) => {
      generateTree(join(path, TREE), { seed: 12, files: FILES });
      return manifestOf(join(path, TREE));
    });
    await varve(data, ['mark', 'disk', 'before-accident']);
    await withExt4(server.uri(), async (path) => {
      rmSync(join(path, TREE), { recursive: true });
      writeFileSync(join(path, 'after.txt'), 'work goes on');
      await run('sync', ['--file-system', path]);
      // As long as somebody has it mounted, it is not taken from him.
      const refused = await varveToEnd(data, ['rollback', 'disk', '--to', 'before-accident']);
      expect(refused.stderr).toContain('CLIENTS_CONNECTED');
    });

    const told = await varve(data, ['rollback', 'disk', '--to', 'before-accident']);
    await fsck(server);
    await withExt4(server.uri(), async (path) => {
      expect(manifestOf(join(path, TREE))).toEqual(written);
      expect(existsSync(join(path, 'after.txt'))).toBe(false);
    });

    const undo = /^undo +varve rollback disk --to (\S+)/m.exec(told)?.[1] ?? '';
    await varve(data, ['rollback', 'disk', '--to', undo]);
    await fsck(server);
    await withExt4(server.uri(), async (path) => {
      expect(existsSync(join(path, TREE))).toBe(false);
      expect(readFileSync(join(path, 'after.txt'), 'utf8')).toBe('work goes on');
    });
    expect(server.isRunning).toBe(true);
  });
});
