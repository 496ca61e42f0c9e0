/**
 * Log and final storage on raw block devices, as on a machine that gives a disk to each: created,
 * served, written, killed, opened again, checked. Nobody else's log is ever taken.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { loopDevice } from '../device/loop-device.ts';
import { describeWith } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { LibNbd } from '../support/libnbd.ts';
import { varve, varveToEnd } from '../support/run.ts';
import { infoOf, Server } from '../support/server.ts';

const MIB = 1024 ** 2;

describeWith(['losetup', 'python3-nbd'], 'a volume on raw block devices', () => {
  it('keeps what was flushed when the server is killed', async () => {
    using directory = temporaryDirectory();
    using log = loopDevice(96 * MIB);
    using final = loopDevice(64 * MIB);
    const paths = ['--log', log.path, '--final', final.path];
    await varve(directory.path, ['create', 'disk', '--size', '64M', ...paths]);
    await using client = new LibNbd();
    const value = Buffer.alloc(8, 'raw');
    {
      await using server = await Server.start(directory.path);
      const disk = await client.open(server.uri());
      // More than the log holds: rounds write to the raw device.
      for (let pass = 0; pass < 4; pass++) {
        for (let offset = 0; offset < 64 * MIB; offset += MIB) {
          await disk.fill({ offset, length: MIB }, value);
        }
      }
      await disk.fill({ offset: 512, length: 1024 }, Buffer.alloc(8, 'late'));
      await disk.flush();
      await disk.fill({ offset: 32 * MIB, length: 512 }, Buffer.alloc(8, 'lost?'));
      expect((await server.info()).counters.rounds).toBeGreaterThan(0);
      await server.kill();
      await disk.close();
    }
    {
      await using server = await Server.start(directory.path);
      expect((await server.info()).recovery.clean).toBe(false);
      const disk = await client.open(server.uri());
      const content = await disk.readAll();
      const wanted = Buffer.alloc(64 * MIB, value);
      wanted.fill(Buffer.alloc(8, 'late'), 512, 1536);
      const unsure = content.subarray(32 * MIB, 32 * MIB + 512);
      expect([
        Buffer.alloc(512, value),
        Buffer.alloc(512, Buffer.alloc(8, 'lost?')),
      ]).toContainEqual(unsure);
      unsure.copy(wanted, 32 * MIB);
      expect(content.equals(wanted)).toBe(true);
      await disk.close();
      expect(await server.stop()).toBe(0);
    }
    const report = JSON.parse(await varve(directory.path, ['check', 'disk', '--json']));
    expect(report).toMatchObject({ ok: true, problems: [] });
  });

  it('is not made on a log that another volume uses, and changes nothing there', async () => {
    using directory = temporaryDirectory();
    using log = loopDevice(96 * MIB);
    const words = ['--size', '64M', '--log', log.path, '--json'];
    await varve(directory.path, ['create', 'first', ...words]);
    const before = beginningOf(log.path);
    const refused = await varveToEnd(directory.path, ['create', 'second', ...words]);
    expect(refused.code).toBe(1);
    expect(refused.stdout + refused.stderr).toContain('LOG_IN_USE');
    expect(beginningOf(log.path).equals(before)).toBe(true);
    const names = JSON.parse(await varve(directory.path, ['list', '--json']));
    expect(JSON.stringify(names)).not.toContain('second');
    expect((await infoOf(directory.path, 'first')).head.generation).toBe(0);
  });

  it('is refused while another process has it, and when a device is missing', async () => {
    using directory = temporaryDirectory();
    const data = join(directory.path, 'data');
    {
      using log = loopDevice(96 * MIB);
      await varve(data, ['create', 'disk', '--size', '64M', '--log', log.path]);
      await using server = await Server.start(data);
      await expect(Server.start(data)).rejects.toThrow(/SERVER_RUNS|VOLUME_LOCKED|ADDRESS_IN_USE/);
      expect(await server.stop()).toBe(0);
    }
    const ended = await varveToEnd(data, ['info', 'disk', '--json']);
    expect(ended.code).toBe(1);
    expect(ended.stdout + ended.stderr).toMatch(/VOLUME_FOREIGN|FILE_BAD|SIZE_BAD|DEVICE_IO/);
  });
});

function beginningOf(path: string): Buffer {
  const file = openSync(path, 'r');
  try {
    const bytes = Buffer.alloc(MIB);
    readSync(file, bytes, 0, bytes.length, 0);
    return bytes;
  } finally {
    closeSync(file);
  }
}
