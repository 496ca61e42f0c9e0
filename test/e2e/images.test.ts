/** Disk images of qemu: what `varve export` writes, as qemu-img sees it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { describeWith } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { run, varve, VARVE, varveToEnd } from '../support/run.ts';
import { Server } from '../support/server.ts';

/** Data, partly covered; zeros that are allocated; what was trimmed; the disk's last block. */
const WRITES = [
  'write -P 1 0 1M',
  'write -P 2 700M 100k',
  'write -z 100M 1M',
  'write -P 5 600M 2M',
  'write -z -u 600M 1M',
  'write -P 0 200M 64k',
  'write -P 3 300M 1M',
  'discard 300M 1M',
  'write -P 9 1023996k 4k',
  'flush',
].flatMap((command) => ['-c', command]);

interface Mapped {
  readonly start: number;
  readonly length: number;
  readonly present: boolean;
  readonly zero: boolean;
  readonly data: boolean;
}

describeWith(['qemu-img', 'qemu-io'], 'varve export --format qcow2', () => {
  it('writes what qemu-img finds whole, and the same as the export over NBD', async () => {
    using directory = temporaryDirectory();
    const data = join(directory.path, 'data');
    await using server = await Server.start(data, { create: 'disk:1000M' });
    await run('qemu-io', ['-f', 'raw', ...WRITES, server.uri()]);
    const file = join(directory.path, 'disk.qcow2');
    const words = ['export', 'disk', file, '--format', 'qcow2', '--json'];
    const done = JSON.parse(await varve(data, words));
    expect(done).toMatchObject({ format: 'qcow2', resumedAt: 0, unreadable: [] });
    expect(await run('qemu-img', ['check', file])).toContain('No errors were found');
    const moment = server.uri(done.export);
    await run('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', file, moment]);
    const info = JSON.parse(await run('qemu-img', ['info', '--output', 'json', file]));
    expect(info).toMatchObject({
      format: 'qcow2',
      'virtual-size': 1000 * 2 ** 20,
      'cluster-size': 65_536,
      'dirty-flag': false,
      'format-specific': { data: { compat: '1.1', corrupt: false, 'refcount-bits': 16 } },
    });
    expect(info['actual-size']).toBeLessThan(4 * 2 ** 20);
    const map: Mapped[] = JSON.parse(await run('qemu-img', ['map', '--output', 'json', file]));
    const at = (mebibyte: number): Mapped | undefined =>
      map.find(({ start, length }) => {
        const offset = mebibyte * 2 ** 20;
        return start <= offset && offset < start + length;
      });
    expect(at(0)).toMatchObject({ present: true, zero: false, data: true });
    // Zeros that were written are the disk's own; what was trimmed, or never written, is not.
    expect(at(100)).toMatchObject({ present: true, zero: true });
    expect(at(200)).toMatchObject({ present: true, zero: true });
    expect(at(300)).toMatchObject({ present: false, zero: true });
    expect(at(600)).toMatchObject({ present: false, zero: true });
    expect(at(999)).toMatchObject({ present: false, zero: true });
    // Also beside a stopped server, and after the window moved on.
    const before = readFileSync(file);
    expect(await server.stop()).toBe(0);
    await varve(data, ['export', done.export, file, '--format', 'qcow2', '--force']);
    expect(readFileSync(file).equals(before)).toBe(true);
  });

  it.each(['raw', 'qcow2'])(
    'goes on with a %s that was killed, and not with another',
    async (format) => {
      using directory = temporaryDirectory();
      const data = join(directory.path, 'data');
      await using server = await Server.start(data, { create: 'disk:1000M', writeMode: 'written' });
      const fill = ['-c', 'write -P 7 1M 500M', '-c', 'write -z 600M 100M', '-c', 'flush'];
      await run('qemu-io', ['-f', 'raw', ...fill, server.uri()]);
      await varve(data, ['snapshot', 'create', 'disk', 'kept']);
      const file = join(directory.path, 'disk.image');
      const words = ['export', 'disk@kept', file, '--format', format, '--dir', data];
      const child = spawn(process.execPath, [VARVE, ...words], { stdio: 'ignore' });
      const ended = once(child, 'close');
      const note = `${file}.part.json`;
      for (let tries = 0; tries < 6000; tries += 1) {
        if (existsSync(note) && JSON.parse(readFileSync(note, 'utf8')).done > 0) break;
        await delay(5);
      }
      child.kill('SIGKILL');
      await ended;
      expect(readdirSync(directory.path).sort()).toEqual([
        'data',
        'disk.image.part',
        'disk.image.part.json',
      ]);
      const again = await varveToEnd(data, ['export', 'disk@kept', file, '--format', format]);
      expect(again.stderr).toMatch(/PART_EXISTS.*of 1048576000 bytes of disk@/);
      await run('qemu-io', ['-f', 'raw', '-c', 'write -P 8 0 4k', server.uri()]);
      const others = [
        ['export', 'disk', file, '--format', format, '--resume'],
        ['export', 'disk@kept', file, '--format', format === 'raw' ? 'qcow2' : 'raw', '--resume'],
      ];
      for (const other of others) {
        expect((await varveToEnd(data, other)).stderr).toMatch(/PART_FOREIGN.*begun by/);
      }
      const resume = ['export', 'disk@kept', file, '--format', format, '--resume', '--json'];
      const done = JSON.parse(await varve(data, resume));
      expect(done.resumedAt).toBeGreaterThan(0);
      expect(readdirSync(directory.path).sort()).toEqual(['data', 'disk.image']);
      if (format === 'qcow2') {
        expect(await run('qemu-img', ['check', file])).toContain('No errors were found');
      }
      const uri = server.uri('disk@kept');
      await run('qemu-img', ['compare', '-f', format, '-F', 'raw', file, uri]);
      expect(await server.stop()).toBe(0);
    },
  );
});
