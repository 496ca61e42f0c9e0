/**
 * Real clients, for tests that serve a disk to programs which others wrote.
 *
 * Invariants:
 *   - A missing client is never passed over in silence: it is named aloud, with the Debian package
 *     that holds it.
 *   - In CI (CI=true) nothing is skipped: a missing client is a test that fails.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'vitest';

/** The Debian package of each program; `python3-nbd` is libnbd's module for /usr/bin/python3. */
export const PACKAGES = {
  nbdinfo: 'libnbd-bin',
  nbdcopy: 'libnbd-bin',
  nbdfuse: 'libnbd-bin',
  fio: 'fio',
  'qemu-img': 'qemu-utils',
  'qemu-io': 'qemu-utils',
  'qemu-nbd': 'qemu-utils',
  nbdkit: 'nbdkit',
  'mkfs.ext4': 'e2fsprogs',
  'mkfs.xfs': 'xfsprogs',
  'mkfs.btrfs': 'btrfs-progs',
  mount: 'mount',
  losetup: 'mount',
  fusermount3: 'fuse3',
  'python3-nbd': 'python3-libnbd',
} as const;

export type Client = keyof typeof PACKAGES;

/** Why a client can not be used here, and what would help. */
interface Lack {
  readonly client: Client;
  readonly remedy: string;
}

const FOLDERS = [
  ...(process.env['PATH'] ?? '').split(':'),
  '/usr/sbin',
  '/sbin',
  '/usr/bin',
  '/bin',
];

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function isInstalled(client: Client): boolean {
  if (client === 'python3-nbd') {
    return spawnSync('/usr/bin/python3', ['-c', 'import nbd'], { stdio: 'ignore' }).status === 0;
  }
  return FOLDERS.some((folder) => folder !== '' && isExecutable(join(folder, client)));
}

/** What a program needs beside itself: undefined, or what to do about it. */
function obstacle(client: Client): string | undefined {
  const isRoot = process.getuid?.() === 0;
  if ((client === 'losetup' || client === 'mount') && !isRoot) return 'run the tests as root';
  if (client === 'losetup' && !existsSync('/dev/loop-control')) return 'load the loop module';
  if (client === 'fusermount3' || client === 'nbdfuse') {
    if (!existsSync('/dev/fuse')) return 'load the fuse module';
  }
  return undefined;
}

const lacks = new Map<Client, Lack | undefined>();

function lackOf(client: Client): Lack | undefined {
  if (!lacks.has(client)) {
    const remedy = isInstalled(client) ? obstacle(client) : `apt-get install ${PACKAGES[client]}`;
    lacks.set(client, remedy === undefined ? undefined : { client, remedy });
  }
  return lacks.get(client);
}

function lacking(clients: readonly Client[]): readonly Lack[] {
  return clients.map(lackOf).filter((lack) => lack !== undefined);
}

function told(list: readonly Lack[]): string {
  return list.map(({ client, remedy }) => `${client} (${remedy})`).join(', ');
}

/** Whether all of them can be used here; says aloud which can not, and what to do. */
export function needs(...clients: readonly Client[]): boolean {
  const list = lacking(clients);
  if (list.length > 0) console.warn(`SKIPPED for want of ${told(list)}`);
  return list.length === 0;
}

/**
 * A group of tests that needs real clients: run where they are, skipped aloud where they are not,
 * failed in CI.
 */
export function describeWith(clients: readonly Client[], name: string, tests: () => void): void {
  const list = lacking(clients);
  if (list.length === 0) {
    describe(name, tests);
  } else if (process.env['CI'] === 'true') {
    describe(name, () => {
      it('has its clients', () => {
        throw new Error(`CI has every client, but not ${told(list)}`);
      });
    });
  } else {
    console.warn(`SKIPPED: ${name}, for want of ${told(list)}`);
    describe.skip(`${name} [needs ${told(list)}]`, tests);
  }
}
