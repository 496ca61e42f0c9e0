/** top, as a process beside a server. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { temporaryDirectory } from '../support/files.ts';
import { varve, VARVE } from '../support/run.ts';
import { Server } from '../support/server.ts';
import { makeVolume, refusedHere } from './house.ts';

interface Load {
  readonly name: string;
  readonly perSecond: Readonly<Record<string, number>>;
  readonly logSizeBytes: number;
}

describe('varve top', () => {
  test('needs a server, a volume and a duration', async () => {
    using directory = temporaryDirectory();
    const { path } = directory;
    await makeVolume(path);
    expect(await refusedHere(path, ['top'])).toMatchObject({
      code: 1,
      error: { code: 'SERVER_NEEDED' },
    });
    const soon = await refusedHere(path, ['top', '--interval', 'soon']);
    expect(soon).toMatchObject({ code: 2, error: { code: 'USAGE' } });
    await using server = await Server.start(path);
    expect((await refusedHere(path, ['top', 'other'])).error.code).toBe('VOLUME_UNKNOWN');
    expect(await server.stop()).toBe(0);
  });

  test('measures once, or line by line until it is ended', async () => {
    using directory = temporaryDirectory();
    const { path } = directory;
    await makeVolume(path);
    await makeVolume(path, 'other');
    await using server = await Server.start(path);
    const table = await varve(path, ['top', '--once', '--interval', '100ms']);
    expect(table).toMatch(/^NAME +READS\/s +READ\/s .* WINDOW +GENERATION\ndisk .*\nother .*\n$/);

    const words = ['top', 'disk', '--json', '--interval', '200ms', '--dir', path];
    const child = spawn(process.execPath, [VARVE, ...words], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let told = '';
    child.stdout.on('data', (chunk: Buffer) => (told += chunk.toString()));
    const ended = once(child, 'exit');
    await once(child.stdout, 'data');
    const file = join(path, 'in.raw');
    writeFileSync(file, Buffer.alloc(2 ** 20, 'x'));
    await varve(path, ['import', file, 'disk']);
    const loads = (): Load[] =>
      told
        .trimEnd()
        .split('\n')
        .map((line): Load => JSON.parse(line));
    const written = (): number =>
      Math.max(...loads().map(({ perSecond }) => perSecond['writeBytes'] ?? 0));
    while (written() === 0) await once(child.stdout, 'data');
    child.kill('SIGINT');
    expect(await ended).toEqual([0, null]);
    expect(new Set(loads().map(({ name }) => name))).toEqual(new Set(['disk']));
    expect(loads()[0]?.logSizeBytes).toBeGreaterThan(2 ** 26);
    expect(await server.stop()).toBe(0);
  });
});
