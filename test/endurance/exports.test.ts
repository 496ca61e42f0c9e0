/** Exports of half a gigabyte that are killed on their way, and go on. */
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

describeWith(['qemu-img', 'qemu-io'], 'varve export --resume', () => {
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
