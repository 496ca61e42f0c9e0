/**
 * The main job, on real input: a file system is made on the served disk, filled with thousands of
 * files, and all of them are removed. Nobody took a snapshot. The whole tree is read from moments
 * before the removal.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { describeWith, type Client } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { generateTree, manifestOf } from '../support/generated-tree.ts';
import { AttachedDisk, Mount } from '../support/mounts.ts';
import { run, varve } from '../support/run.ts';
import { Server } from '../support/server.ts';

const FILES = 3000;

interface FileSystem {
  readonly type: string;
  readonly make: Client;
  readonly words: readonly string[];
  /** Reads a disk as it is, without writing to it. */
  readonly asItIs: string;
}

const FILE_SYSTEMS: readonly FileSystem[] = [
  { type: 'ext4', make: 'mkfs.ext4', words: ['-q', '-F'], asItIs: 'ro,noload' },
  { type: 'xfs', make: 'mkfs.xfs', words: ['-q', '-f'], asItIs: 'ro,norecovery,nouuid' },
  { type: 'btrfs', make: 'mkfs.btrfs', words: ['-q', '-f'], asItIs: 'ro,rescue=nologreplay' },
];

/** What the export holds, read-only. */
async function treeOf(
  server: Server,
  exportName: string,
  { type, asItIs }: FileSystem,
): Promise<ReadonlyMap<string, string>> {
  await using disk = await AttachedDisk.attach(server.uri(exportName), 'read');
  await using mount = await Mount.mount(disk.device, { type, options: asItIs });
  return manifestOf(join(mount.path, 'tree'));
}

async function withDisk<T>(
  server: Server,
  { type }: FileSystem,
  work: (path: string) => Promise<T>,
): Promise<T> {
  await using disk = await AttachedDisk.attach(server.uri(), 'write');
  await using mount = await Mount.mount(disk.device, { type, options: 'noatime' });
  return await work(mount.path);
}

async function rescue(system: FileSystem): Promise<void> {
  using directory = temporaryDirectory();
  const data = join(directory.path, 'data');
  await varve(data, ['create', 'disk', '--size', '1G', '--log-size', '1G']);
  await using server = await Server.start(data);
  {
    await using disk = await AttachedDisk.attach(server.uri(), 'write');
    await run(system.make, [...system.words, disk.device]);
  }
  const written = await withDisk(server, system, async (path) => {
    const tree = join(path, 'tree');
    generateTree(tree, { seed: 7, files: FILES });
    return manifestOf(tree);
  });
  expect([...written.values()].filter((digest) => digest !== '')).toHaveLength(FILES);
  const { generation } = (await server.info()).head;

  const time = await withDisk(server, system, async (path) => {
    const tree = join(path, 'tree');
    expect(manifestOf(tree)).toEqual(written);
    await run('sync', ['--file-system', tree]);
    const before = new Date().toISOString();
    rmSync(tree, { recursive: true });
    await run('sync', ['--file-system', path]);
    return before;
  });

  expect(await treeOf(server, `disk@gen=${generation}`, system)).toEqual(written);
  expect(await treeOf(server, `disk@${time}`, system)).toEqual(written);
  await expect(treeOf(server, 'disk@flush-1', system)).rejects.toThrow(/ENOENT/);
  expect(await server.stop()).toBe(0);
}

for (const system of FILE_SYSTEMS) {
  const clients: readonly Client[] = ['nbdfuse', 'fusermount3', 'losetup', 'mount', system.make];
  describeWith(clients, `a tree of ${FILES} files on ${system.type}`, () => {
    it('is read whole from moments before its removal', () => rescue(system));
  });
}
