/** Commands that open the volume themselves: what they print, for people and as JSON. */
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { temporaryDirectory } from '../support/files.ts';
import { run, runToEnd, varve, VARVE, varveToEnd } from '../support/run.ts';
import { makeVolume, SMALL_SIZES, stateOf } from './house.ts';

const MIB = 1024 ** 2;
const COMMANDS = [
  ['serve'],
  ['create'],
  ['list'],
  ['info'],
  ['mode'],
  ['check'],
  ['history'],
  ['snapshot', 'create'],
  ['snapshot', 'list'],
  ['snapshot', 'delete'],
  ['mark'],
  ['diff'],
  ['blame'],
  ['find'],
  ['top'],
  ['export'],
  ['import'],
];

describe('the command line', () => {
  test.each(COMMANDS)('%s %s has help with an example', async (...words) => {
    const names = words.filter((word): word is string => typeof word === 'string');
    const help = await run(process.execPath, [VARVE, ...names, '--help']);
    expect(help).toContain('--json');
    expect(help).toContain('--dir');
    expect(help).toMatch(/Examples:\n {2}\$ varve /);
  });

  test('tells its version and its commands', async () => {
    expect(await run(process.execPath, [VARVE, '--version'])).toMatch(/^\d+\.\d+\.\d+\n$/);
    const alone = await runToEnd(process.execPath, [VARVE]);
    expect(alone.code).toBe(2);
    for (const [name] of COMMANDS) {
      expect(await run(process.execPath, [VARVE, '--help'])).toContain(`${name}`);
    }
  });

  test('takes the directory from VARVE_DIR, too', async () => {
    using directory = temporaryDirectory();
    await makeVolume(directory.path);
    const names = await run('env', [
      `VARVE_DIR=${directory.path}`,
      process.execPath,
      VARVE,
      'list',
    ]);
    expect(names).toMatch(/^NAME .*\ndisk /);
  });

  test('makes, lists and tells of volumes', async () => {
    using directory = temporaryDirectory();
    const { path } = directory;
    const ring = ['--ring-size', '66M', '--log', join(path, 'elsewhere.log')];
    const made = JSON.parse(
      await varve(path, ['create', 'disk', ...SMALL_SIZES, ...ring, '--json']),
    );
    expect(made).toMatchObject({
      name: 'disk',
      size: 16 * MIB,
      logSize: 80 * MIB,
      ringSize: 66 * MIB,
      writeMode: 'back',
      log: join(path, 'elsewhere.log'),
    });
    expect(JSON.parse(await varve(path, ['list', '--json']))).toEqual([made]);
    const info = JSON.parse(await varve(path, ['info', 'disk', '--json']));
    expect(info).toMatchObject({
      name: 'disk',
      uuid: made.uuid,
      size: 16 * MIB,
      head: { generation: 0 },
      horizon: { generation: 0 },
      uncommittedBytes: 0,
      snapshots: [],
    });
    const text = await varve(path, ['info', 'disk']);
    for (const word of ['window from', 'write mode', 'ring', 'log', 'final storage']) {
      expect(text).toContain(word);
    }
  });

  test('looks without changing anything', async () => {
    using directory = temporaryDirectory();
    await makeVolume(directory.path);
    const before = stateOf(directory.path);
    for (const words of [['list'], ['info', 'disk'], ['history', 'disk'], ['check', 'disk']]) {
      await varve(directory.path, words);
    }
    await varve(directory.path, ['snapshot', 'list', 'disk']);
    expect(stateOf(directory.path)).toEqual(before);
  });

  test('keeps snapshots and marks, over restarts', async () => {
    using directory = temporaryDirectory();
    const { path } = directory;
    await makeVolume(path);
    const made = await varve(path, ['snapshot', 'create', 'disk', 'one', '--json']);
    expect(JSON.parse(made)).toMatchObject({ label: 'one', generation: 0 });
    expect(JSON.parse(await varve(path, ['mark', 'disk', 'here', '--json']))).toMatchObject({
      label: 'here',
      generation: 0,
    });
    const list: { label: string }[] = JSON.parse(
      await varve(path, ['snapshot', 'list', 'disk', '--json']),
    );
    expect(list.map(({ label }) => label)).toEqual(['one']);
    expect((await varveToEnd(path, ['snapshot', 'create', 'disk', 'one'])).code).toBe(1);
    await varve(path, ['snapshot', 'delete', 'disk', 'one']);
    expect(await varve(path, ['snapshot', 'list', 'disk'])).toContain('no snapshots');
    expect(await varve(path, ['info', 'disk'])).toContain('here');
  });

  test('imports and exports, sparse both ways, and any moment', async () => {
    using directory = temporaryDirectory();
    const { path } = directory;
    const file = join(path, 'in.raw');
    const content = Buffer.alloc(5 * MIB + 1234);
    content.fill('varve', 2 * MIB, 3 * MIB);
    content.fill('end', 5 * MIB);
    writeFileSync(file, content);
    await makeVolume(path);
    await varve(path, ['import', file, 'disk']);
    const out = join(path, 'out.raw');
    const done = JSON.parse(await varve(path, ['export', 'disk', out, '--json']));
    expect(done).toMatchObject({ file: out, size: 16 * MIB });
    expect(done.export).toMatch(/^disk@gen=\d+$/);
    const found = readFileSync(out);
    expect(found.subarray(0, content.length).equals(content)).toBe(true);
    expect(found.subarray(content.length).every((byte) => byte === 0)).toBe(true);
    expect(statSync(out).blocks * 512).toBeLessThan(2 * MIB);
    await varve(path, ['export', 'disk@gen=0', out, '--force']);
    expect(readFileSync(out).every((byte) => byte === 0)).toBe(true);
    const large = join(path, 'large.raw');
    writeFileSync(large, Buffer.alloc(17 * MIB));
    const refused = await varveToEnd(path, ['import', large, 'disk']);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain('does not fit');
  });

  test('counts the history in intervals that add up', async () => {
    using directory = temporaryDirectory();
    const { path } = directory;
    const file = join(path, 'in.raw');
    writeFileSync(file, Buffer.alloc(2 * MIB, 'x'));
    await makeVolume(path);
    await varve(path, ['import', file, 'disk']);
    const words = ['history', 'disk', '--intervals', '5', '--json'];
    const history: { writes: number; bytes: number; generation: number }[] = JSON.parse(
      await varve(path, words),
    );
    expect(history).toHaveLength(5);
    const { head } = JSON.parse(await varve(path, ['info', 'disk', '--json']));
    expect(history.at(-1)?.generation).toBe(head.generation);
    expect(history.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(2 * MIB);
    const table = await varve(path, ['history', 'disk', '--intervals', '3']);
    expect(table).toContain(`disk@gen=${head.generation}`);
    expect(table).toMatch(
      /^FROM +TO +WRITES +WRITTEN +TRIMS +TRIMMED +FLUSHES +MOMENT AT THE END\n/,
    );
  });

  test('shows the history around a moment', async () => {
    using directory = temporaryDirectory();
    const { path } = directory;
    const file = join(path, 'in.raw');
    writeFileSync(file, Buffer.alloc(2 * MIB, 'x'));
    await makeVolume(path);
    await varve(path, ['import', file, 'disk']);
    const { head } = JSON.parse(await varve(path, ['info', 'disk', '--json']));
    type Part = { fromWallUs: number; toWallUs: number; bytes: number };
    const around = async (...words: readonly string[]): Promise<readonly Part[]> =>
      JSON.parse(await varve(path, ['history', 'disk', '--json', '--around', ...words]));
    const clock = new Date(head.wallUs / 1000).toISOString().slice(11, 19);
    for (const when of [`gen=${head.generation}`, clock]) {
      const parts = await around(when, '--span', '90s');
      expect(parts).toHaveLength(24);
      expect(parts.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(2 * MIB);
      const [from, to] = [parts[0]?.fromWallUs ?? 0, parts.at(-1)?.toWallUs ?? 0];
      expect(from).toBeLessThan(head.wallUs);
      expect(to - head.wallUs).toBeGreaterThan(43e6);
      expect(to - head.wallUs).toBeLessThanOrEqual(45e6);
    }
    expect(await around('-1w')).toEqual([]);
    for (const words of [
      ['--around', '14:99'],
      ['--around', '14:03', '--span', 'soon'],
      ['--around', '14:03', '--from', '-1m'],
      ['--span', '3m'],
      ['--from', '-1m', '--to', '-2m'],
    ]) {
      const { code } = await varveToEnd(path, ['history', 'disk', ...words]);
      expect(code, words.join(' ')).toBe(2);
    }
  });

  test('checks a volume, and ends with 1 when it is damaged', async () => {
    using directory = temporaryDirectory();
    const { path } = directory;
    await makeVolume(path);
    expect(await varve(path, ['check', 'disk'])).toContain('disk is whole');
    const final = join(path, 'disk', 'final.raw');
    const bytes = readFileSync(final);
    bytes[5 * 4096] = 1;
    writeFileSync(final, bytes);
    const { code, stdout, stderr } = await varveToEnd(path, ['check', 'disk', '--json']);
    expect(code).toBe(1);
    // Found by the check, or already by the opening, which compares samples.
    if (stderr === '') {
      const report = JSON.parse(stdout);
      expect(report).toMatchObject({ ok: false });
      expect(report.problems.join('\n')).toContain('block 5');
    } else {
      expect(stderr).toContain('VOLUME_FOREIGN');
    }
  });
});
