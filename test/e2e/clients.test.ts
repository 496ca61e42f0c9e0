/**
 * The programs that people use are content: each reads and writes a served disk by its own NBD
 * client, and finds there what it wrote.
 */
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { describeWith } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { run, runToEnd, varve } from '../support/run.ts';
import { Server } from '../support/server.ts';

const SIZE = 256 * 1024 ** 2;

describe('a served disk', () => {
  const directory = temporaryDirectory();
  const data = join(directory.path, 'data');
  const image = join(directory.path, 'image');
  let server: Server;

  beforeAll(async () => {
    await varve(data, ['create', 'disk', '--size', '256M', '--log-size', '1G']);
    server = await Server.start(data);
    // Data, zeros, data: sparse in the middle.
    const bytes = Buffer.alloc(SIZE);
    randomBytes(8 * 1024 ** 2).copy(bytes, 0);
    randomBytes(5 * 1024 ** 2 + 777).copy(bytes, 100 * 1024 ** 2 + 5);
    randomBytes(4096).copy(bytes, SIZE - 4096);
    writeFileSync(image, bytes);
  });

  afterAll(async () => {
    expect(await server.stop()).toBe(0);
    expect(server.stderr).toBe('');
    directory[Symbol.dispose]();
  });

  async function head(): Promise<number> {
    return (await server.info()).head.generation;
  }

  describeWith(['nbdinfo'], 'nbdinfo', () => {
    it('finds what the server printed', async () => {
      expect(server.uris.length).toBeGreaterThan(0);
      for (const uri of server.uris) {
        expect((await run('nbdinfo', ['--size', uri])).trim()).toBe(String(SIZE));
      }
    });

    it('tells what the disk can do', async () => {
      const told = JSON.parse(await run('nbdinfo', ['--json', server.uri()]));
      expect(told.protocol).toBe('newstyle-fixed');
      expect(told.structured).toBe(true);
      expect(told.exports[0]).toMatchObject({
        'export-name': 'disk',
        'export-size': SIZE,
        is_read_only: false,
        can_flush: true,
        can_fua: true,
        can_trim: true,
        can_zero: true,
        can_df: true,
        can_multi_conn: true,
        block_size_minimum: 1,
        block_size_preferred: 4096,
        block_size_maximum: 32 * 1024 ** 2,
      });
      expect(told.exports[0].contexts).toContain('base:allocation');
    });

    it('finds the only volume by the empty name', async () => {
      expect((await run('nbdinfo', ['--size', server.uri('')])).trim()).toBe(String(SIZE));
    });

    it('lists volumes and snapshots', async () => {
      await varve(data, ['snapshot', 'create', 'disk', 'listed']);
      const told = JSON.parse(await run('nbdinfo', ['--list', '--json', server.uri('')]));
      expect(told.exports).toHaveLength(2);
      expect(told.exports[0]).toMatchObject({ 'export-name': 'disk', is_read_only: false });
      expect(told.exports[1]).toMatchObject({ 'export-size': SIZE, is_read_only: true });
      await varve(data, ['snapshot', 'delete', 'disk', 'listed']);
    });
  });

  describeWith(['nbdcopy'], 'nbdcopy', () => {
    it('copies an image there and back', async () => {
      const back = join(directory.path, 'back');
      await run('nbdcopy', ['--flush', image, server.uri()]);
      await run('nbdcopy', [server.uri(), back]);
      await run('cmp', [image, back]);
    });

    it('copies a moment with four connections while the disk goes on', async () => {
      const before = await head();
      const back = join(directory.path, 'moment');
      await run('nbdcopy', ['--connections=4', server.uri(`disk@gen=${before}`), back]);
      await run('cmp', [image, back]);
    });
  });

  describeWith(['qemu-img'], 'qemu-img', () => {
    it('tells its size', async () => {
      const told = JSON.parse(await run('qemu-img', ['info', '--output=json', server.uri()]));
      expect(told).toMatchObject({ format: 'raw', 'virtual-size': SIZE });
    });

    it('converts and compares, the disk and a moment of it', async () => {
      await run('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', image, server.uri()]);
      const moment = server.uri(`disk@gen=${await head()}`);
      await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', image, server.uri()]);
      await run('qemu-io', ['-f', 'raw', '-c', 'write -P 0x5a 3M 1M', server.uri()]);
      const after = await runToEnd('qemu-img', ['compare', '-f', 'raw', image, server.uri()]);
      expect(after.code).toBe(1);
      await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', image, moment]);
      const rescued = join(directory.path, 'rescued.qcow2');
      await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', moment, rescued]);
      await run('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', image, rescued]);
    });

    it.each([
      ['nothing', /there are: disk/],
      ['disk@gen=999999999', /the window is gen=0 .* to gen=/],
      ['disk@2199-01-01T00:00:00Z', /not yet past/],
      ['disk@nobody', /no snapshot or mark has that name/],
      ['disk@', /not understood/],
    ])('shows why "%s" can not be opened', async (name, why) => {
      const ended = await runToEnd('qemu-img', ['info', server.uri(name)]);
      expect(ended.code).toBe(1);
      expect(ended.stderr).toMatch(why);
    });

    it('sees what is allocated', async () => {
      await run('qemu-io', ['-f', 'raw', '-c', 'discard 16M 64M', server.uri()]);
      const map = JSON.parse(
        await run('qemu-img', ['map', '-f', 'raw', '--output=json', server.uri()]),
      );
      const hole = map.find(
        (run: { start: number; length: number }) =>
          run.start <= 16 * 1024 ** 2 && run.start + run.length >= 80 * 1024 ** 2,
      );
      expect(hole).toMatchObject({ zero: true, data: false });
    });
  });

  describeWith(['qemu-io'], 'qemu-io', () => {
    it('writes, discards and zeroes at any offset, and reads it back', async () => {
      const commands = [
        'write -P 0x11 0 1M',
        'write -P 0x22 4095 2',
        'write -P 0x33 1M 512',
        'write -f -P 0x44 2M 64k',
        'write -z 16k 8k',
        'write -z -u 64k 64k',
        'discard 128k 128k',
        'flush',
        'read -P 0x11 0 4095',
        'read -P 0x22 4095 2',
        'read -P 0x11 4097 12287',
        'read -P 0 16k 8k',
        'read -P 0x11 24k 40k',
        'read -P 0 64k 64k',
        'read -P 0 128k 128k',
        'read -P 0x11 256k 768k',
        'read -P 0x33 1M 512',
        'read -P 0x44 2M 64k',
        'aio_write -P 0x55 4M 1M',
        'aio_write -P 0x66 5M 1M',
        'aio_flush',
        'read -P 0x55 4M 1M',
        'read -P 0x66 5M 1M',
      ];
      const words = commands.flatMap((command) => ['-c', command]);
      const said = await run('qemu-io', ['-f', 'raw', ...words, server.uri()]);
      expect(said).not.toMatch(/fail|error|not permitted/i);
    });

    it('may not write to a moment', async () => {
      const uri = server.uri(`disk@gen=${await head()}`);
      const ended = await runToEnd('qemu-io', ['-f', 'raw', '-c', 'write 0 4k', uri]);
      expect(ended.code).not.toBe(0);
    });
  });

  describeWith(['fio'], 'fio', () => {
    it.each(['512', '4k', '64k', '1M'])(
      'verifies what four jobs wrote in blocks of %s',
      async (blockSize) => {
        const perJob = blockSize === '512' ? 2 : 32;
        await run('fio', [
          '--name=verify',
          '--ioengine=nbd',
          `--uri=${server.uri()}`,
          '--rw=randwrite',
          `--bs=${blockSize}`,
          '--iodepth=16',
          '--numjobs=4',
          `--size=${perJob}M`,
          '--offset_increment=64M',
          '--verify=crc32c',
          '--verify_fatal=1',
          '--verify_state_save=0',
          '--do_verify=1',
          '--fsync=64',
          '--group_reporting',
        ]);
      },
    );
  });

  it('is checked whole when nobody serves it', async () => {
    expect(await server.stop()).toBe(0);
    const report = JSON.parse(await varve(data, ['check', 'disk', '--json']));
    expect(report).toMatchObject({ ok: true, problems: [] });
    server = await Server.start(data);
    expect((await server.info()).recovery.clean).toBe(true);
  });
});
