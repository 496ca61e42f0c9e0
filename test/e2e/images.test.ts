/** Disk images of qemu: what `varve export` writes, as qemu-img sees it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { describeWith } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { run, varve } from '../support/run.ts';
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
});
