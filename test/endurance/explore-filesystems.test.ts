/**
 * The worked examples of docs/EXPLORE.md on XFS and btrfs: what keeps its promises holds in
 * every state that is looked at, and what gives a flush away is found.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { describeWith } from '../support/clients.ts';
import { explored } from '../support/exploring.ts';
import { temporaryDirectory } from '../support/files.ts';
import { AttachedDisk, Mount } from '../support/mounts.ts';
import { run, varve } from '../support/run.ts';
import { Server } from '../support/server.ts';

const PYTHON = '/usr/bin/python3';
/** Files are replaced by a new one of the same name: whoever looks sees the old or the new. */
const REPLACES = `
import os, sys
folder, how, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
for number in range(rounds):
    for name in range(4):
        path = os.path.join(folder, 'file%d' % name)
        with open(path + '.new', 'w') as file:
            file.write(str(number % 10) * 20000)
            file.flush()
            if how != 'careless': os.fsync(file.fileno())
        os.rename(path + '.new', path)
    there = os.open(folder, os.O_RDONLY)
    os.fsync(there)
    os.close(there)
    if how == 'all': os.sync()
`;
const WHOLE = `
import os, sys
for name in range(4):
    with open(os.path.join(sys.argv[1], 'file%d' % name)) as file: text = file.read()
    if len(text) != 20000 or text != text[0] * 20000: sys.exit('file%d has %d bytes' % (name, len(text)))
`;
/** XFS replays its log in a mount, and the check of it afterwards has nothing to find. */
const XFS_CHECK = (whole: string): string => `
mkdir "$VARVE_SCRATCH/mnt"
mount -t xfs -o loop,nouuid "$VARVE_DEVICE" "$VARVE_SCRATCH/mnt" || exit 1
${PYTHON} ${whole} "$VARVE_SCRATCH/mnt"; status=$?
umount "$VARVE_SCRATCH/mnt"
[ $status -eq 0 ] || exit $status
xfs_repair -n -f "$VARVE_DEVICE" > "$VARVE_SCRATCH/repair" 2>&1 || { tail "$VARVE_SCRATCH/repair"; exit 2; }
`;
const BTRFS_CHECK = 'btrfs check --readonly "$VARVE_DEVICE" > /dev/null';

interface Disk {
  readonly server: Server;
  readonly folder: string;
  readonly data: string;
  /** The newest moment. */
  head(): Promise<string>;
  /** With the file system mounted. */
  mounted(options: string, work: (path: string) => Promise<void>): Promise<void>;
}

async function onDisk(
  type: string,
  make: readonly string[],
  work: (disk: Disk) => Promise<void>,
): Promise<void> {
  using directory = temporaryDirectory();
  const folder = directory.path;
  const data = join(folder, 'data');
  mkdirSync(join(folder, 'tmp'));
  await varve(data, ['create', 'disk', '--size', '400M', '--log-size', '512M']);
  await using server = await Server.start(data);
  {
    await using disk = await AttachedDisk.attach(server.uri(), 'write');
    await run(`mkfs.${type}`, [...make, disk.device]);
  }
  await work({
    server,
    folder,
    data,
    head: async () => `gen=${(await server.info()).head.generation}`,
    mounted: async (options, inside) => {
      await using disk = await AttachedDisk.attach(server.uri(), 'write');
      await using mount = await Mount.mount(disk.device, { type, options });
      await inside(mount.path);
    },
  });
}

/** @returns the states that failed of those that were looked at */
async function look(
  { folder, data }: Disk,
  [from, to]: readonly [string, string],
  check: string,
  more: readonly string[],
): Promise<readonly [failed: number, checked: number]> {
  const { report, left } = await explored(folder, { data, from, to, check, more });
  expect(left).toEqual([]);
  for (const { missing, present } of report.findings) {
    expect(missing.length + present.length).toBeLessThanOrEqual(8);
  }
  const kinds = report.findings.map(({ kind, missing, present, verdict }) => {
    return `${kind} ${missing.length}+${present.length}: ${verdict.output.trim().slice(-80)}`;
  });
  console.info(
    `${report.failed} of ${report.checked} fail, ${report.statesPerSecond.toFixed(1)} a second; ${kinds.join('; ')}`,
  );
  return [report.failed, report.checked];
}

const ROOT = ['nbdfuse', 'fusermount3', 'losetup', 'mount'] as const;

describeWith([...ROOT, 'mkfs.xfs'], 'a program that replaces files on XFS', () => {
  it('is found out where it does not flush them, and holds where it does', async () => {
    await onDisk('xfs', ['-q', '-f'], async (disk) => {
      const [load, whole] = [join(disk.folder, 'load.py'), join(disk.folder, 'whole.py')];
      writeFileSync(load, REPLACES);
      writeFileSync(whole, WHOLE);
      const marks: string[] = [];
      await disk.mounted('noatime', async (path) => {
        for (const how of ['careful', 'careful', 'careless']) {
          await run(PYTHON, [load, path, how, '2']);
          marks.push(await disk.head());
        }
      });
      const [begin = '', middle = '', end = ''] = marks;
      const more = ['--jobs', '2', '--max-states', '40'];
      const [failed, checked] = await look(disk, [begin, middle], XFS_CHECK(whole), more);
      expect(failed).toBe(0);
      expect(checked).toBeGreaterThan(10);
      const [found] = await look(disk, [middle, end], XFS_CHECK(whole), more);
      expect(found).toBeGreaterThan(0);
    });
  });
});

describeWith([...ROOT, 'mkfs.btrfs'], 'btrfs', () => {
  it('is found out without its flushes, and holds with them', async () => {
    await onDisk('btrfs', ['-q', '-f'], async (disk) => {
      const load = join(disk.folder, 'load.py');
      writeFileSync(load, REPLACES);
      const use = async (options: string, rounds: number): Promise<string> => {
        await disk.mounted(options, async (path) => {
          await run(PYTHON, [load, path, 'all', `${rounds}`]);
        });
        return await disk.head();
      };
      const begin = await use('noatime', 1);
      const middle = await use('noatime', 3);
      const end = await use('noatime,nobarrier', 6);
      const more = ['--jobs', '2', '--max-states', '120'];
      const [failed, checked] = await look(disk, [begin, middle], BTRFS_CHECK, more);
      expect(failed).toBe(0);
      expect(checked).toBeGreaterThan(10);
      const [found] = await look(disk, [middle, end], BTRFS_CHECK, more);
      expect(found).toBeGreaterThan(0);
    });
  });
});
