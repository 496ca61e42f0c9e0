/**
 * The rescue of README.md is run as it stands there, in a shell: a file system, an accident, and a
 * disk as it was before. Only the waits are shorter, and the port is a free one.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { REPOSITORY } from '../../tools/repository.ts';
import { describeWith } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { runToEnd, VARVE } from '../support/run.ts';
import { Server } from '../support/server.ts';

const ADDRESS = '127.0.0.1:10809';
const MOUNT_POINTS = ['old', 'mnt', 'past', 'live'];

/** The first shell block behind the heading. */
function rescueOf(text: string): string {
  const from = text.indexOf('\n## A rescue\n');
  const found = /\n```sh\n([\s\S]*?)\n```\n/.exec(text.slice(Math.max(0, from)));
  if (from < 0 || found?.[1] === undefined) throw new Error('README.md tells of a rescue');
  return found[1];
}

/** Each replacement is needed: a story that changed is looked at again. */
function adapt(script: string, replacements: readonly (readonly [string, string])[]): string {
  let adapted = script;
  for (const [from, to] of replacements) {
    expect(adapted).toContain(from);
    adapted = adapted.replaceAll(from, to);
  }
  return adapted;
}

describeWith(
  ['nbdfuse', 'fusermount3', 'losetup', 'mount', 'mkfs.ext4'],
  'the rescue of README.md',
  () => {
    it('works line by line', async () => {
      using directory = temporaryDirectory();
      const data = join(directory.path, 'varve-data');
      await using server = await Server.start(data, { more: ['--start', '--tcp', '127.0.0.1:0'] });
      const tcp = /nbd:\/\/(127\.0\.0\.1:\d+)\/disk$/m.exec(server.stdout)?.[1];
      expect(tcp).toBeDefined();
      const inPath = `varve() { '${process.execPath}' '${VARVE}' "$@"; }\n`;
      const script = adapt(rescueOf(readFileSync(join(REPOSITORY, 'README.md'), 'utf8')), [
        [ADDRESS, tcp ?? ''],
        ['sleep 90', 'sleep 20'],
        ['-1m', '-10s'],
      ]);
      try {
        const told = await runToEnd('bash', ['-e', '-o', 'pipefail', '-c', inPath + script], {
          cwd: directory.path,
        });
        expect(told.stdout, told.stderr).toContain('all of it is there');
        expect(told.code, told.stderr).toBe(0);
      } finally {
        for (const name of MOUNT_POINTS) {
          const path = join(directory.path, name);
          const { code } = await runToEnd('mountpoint', ['-q', path]);
          if (code === 0) await runToEnd('umount', ['--lazy', path]);
        }
      }
      expect(await server.stop()).toBe(0);
    });
  },
);
