/**
 * The first story that a new user is told: `npm start` on a fresh machine, something valuable on the
 * disk, a mistake, and the lines that the server itself printed bring it back.
 */
import { randomBytes } from 'node:crypto';
import { appendFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { describeWith } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { run, runToEnd } from '../support/run.ts';
import { Server } from '../support/server.ts';

const MIB = 1024 ** 2;
/** What `npm start` runs; a free port, since another server may be running. */
const START = ['--start', '--tcp', '127.0.0.1:0'];

describeWith(['nbdinfo', 'nbdcopy', 'qemu-img', 'qemu-io'], 'what npm start serves', () => {
  it('is rescued with the lines that it printed', async () => {
    using directory = temporaryDirectory();
    const data = join(directory.path, 'varve-data');
    const image = join(directory.path, 'valuable.raw');
    writeFileSync(image, '');
    truncateSync(image, 300 * MIB);
    appendFileSync(image, randomBytes(MIB));
    truncateSync(image, 1024 * MIB);

    await using server = await Server.start(data, { more: START });
    expect(server.stdout).toContain('made a blank volume "disk" of 1 GiB');
    expect(server.uris.some((uri) => uri.startsWith('nbd+unix:///disk?socket='))).toBe(true);
    expect(server.uris.some((uri) => /^nbd:\/\/127\.0\.0\.1:\d+\/disk$/.test(uri))).toBe(true);
    for (const uri of server.uris.filter((one) => !/@|%40/.test(one))) {
      expect((await run('nbdinfo', ['--size', uri])).trim()).toBe(String(1024 * MIB));
    }

    await run('nbdcopy', ['--flush', image, server.uri()]);
    await delay(2200);
    await run('qemu-io', ['-f', 'raw', '-c', 'write -P 0xee 300M 1M', server.uri()]);

    const lines = server.stdout.split('\n').filter((line) => line.startsWith('  '));
    expect(lines).toHaveLength(3);
    for (const line of lines) {
      expect(line).toContain('disk@-1m');
      await run('sh', ['-c', line.replaceAll('-1m', '-2s')], { cwd: directory.path });
    }
    await run('cmp', [image, join(directory.path, 'a-minute-ago.raw')]);
    const copy = join(directory.path, 'a-minute-ago.qcow2');
    await run('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', image, copy]);

    await run('nbdcopy', ['--flush', join(directory.path, 'a-minute-ago.raw'), server.uri()]);
    await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', image, server.uri()]);
    expect(await server.stop()).toBe(0);

    await using again = await Server.start(data, { more: START });
    expect(again.stdout).not.toContain('made a blank volume');
    await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', image, again.uri()]);
    expect(await again.stop()).toBe(0);
  });

  it('is never made again because it is missing', async () => {
    using directory = temporaryDirectory();
    const data = join(directory.path, 'varve-data');
    {
      await using server = await Server.start(data, { more: START });
      expect(await server.stop()).toBe(0);
    }
    rmSync(join(data, 'disk'), { recursive: true });
    await expect(Server.start(data, { more: START })).rejects.toThrow(/VOLUME_UNKNOWN/);
    const listed = await runToEnd('ls', [data]);
    expect(listed.stdout).not.toContain('disk');
  });
});
