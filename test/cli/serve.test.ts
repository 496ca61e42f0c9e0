/** The server as a process: ready, asked by other commands, ended in order or not. */
import { connect } from 'node:net';
import { once } from 'node:events';
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { NbdClient } from '../../src/nbd/client.ts';
import { connectUnix } from '../../src/nbd/node-socket.ts';
import { describeWith } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { run, varve } from '../support/run.ts';
import { Server } from '../support/server.ts';
import { makeVolume, refused, SMALL_SIZES } from './house.ts';

const MIB = 1024 ** 2;

/** Sends bytes to the control socket; gives the lines of the answer. */
async function askRaw(directory: string, bytes: Uint8Array, lines: number): Promise<string[]> {
  const socket = connect(join(directory, 'control.sock'));
  await once(socket, 'connect');
  socket.write(bytes);
  let text = '';
  for await (const piece of socket) {
    text += String(piece);
    if (text.split('\n').length > lines) break;
  }
  socket.destroy();
  return text.split('\n').slice(0, lines);
}

/** A file that is not zero in its first part, and is a hole after it. */
function patterned(path: string, bytes: number, seed: number): void {
  const content = Buffer.alloc(bytes);
  for (let at = 0; at < bytes / 2; at++) content[at] = (at * seed + (at >> 12)) & 0xff;
  writeFileSync(path, content);
}

describe('varve serve', () => {
  test('prints a URI for each socket, then `ready`, and ends with 0 at SIGTERM', async () => {
    using directory = temporaryDirectory();
    await makeVolume(directory.path);
    const more = ['--tcp', '127.0.0.1:0', '--create', 'second:1M', '--write-mode', 'written'];
    await using server = await Server.start(directory.path, { more });
    const [unix, tcp, ...others] = server.uris;
    expect(unix).toBe(`nbd+unix:///disk?socket=${join(directory.path, 'nbd.sock')}`);
    expect(tcp).toMatch(/^nbd:\/\/127\.0\.0\.1:\d+\/disk$/);
    expect(others).toHaveLength(2);
    expect(server.stdout.trimEnd().split('\n').at(-1)).toBe('ready');
    expect(statSync(join(directory.path, 'nbd.sock')).mode & 0o777).toBe(0o600);
    expect(statSync(join(directory.path, 'control.sock')).mode & 0o777).toBe(0o600);
    expect(await server.info()).toMatchObject({ writeMode: 'written' });
    expect(await server.stop()).toBe(0);
    expect(existsSync(join(directory.path, 'nbd.sock'))).toBe(false);
    expect(existsSync(join(directory.path, 'control.sock'))).toBe(false);
  });

  // Closing the terminal was like kill -9: in the mode `back` acknowledged writes were lost. A shell
  // and the kernel both send SIGHUP then.
  test('ends in order when its terminal is closed, however often that is told', async () => {
    using directory = temporaryDirectory();
    const { path } = directory;
    await makeVolume(path);
    await using server = await Server.start(path, { writeMode: 'back' });
    const client = await NbdClient.connect(await connectUnix(join(path, 'nbd.sock')), {
      exportName: 'disk',
      metaContexts: [],
    });
    await client.write(0, new Uint8Array(MIB).fill(7), { fua: false });
    // Not its exit code: the second one may meet a process that has closed all, and is exiting.
    await server.stop(['SIGHUP', 'SIGHUP']);
    client.destroy();
    expect(await varve(path, ['info', 'disk'])).toContain('an orderly end');
    const out = join(path, 'out.raw');
    await varve(path, ['export', 'disk', out]);
    expect(readFileSync(out).subarray(0, MIB).equals(Buffer.alloc(MIB, 7))).toBe(true);

    await using again = await Server.start(path);
    expect(await again.stop(['SIGHUP'])).toBe(0);
    expect(again.stdout).toContain('stopped in order');
  });

  test('refuses a second process, and names the first', async () => {
    using directory = temporaryDirectory();
    await makeVolume(directory.path);
    await using server = await Server.start(directory.path);
    const second = await refused(directory.path, ['serve']);
    expect(second.error).toMatchObject({ code: 'VOLUME_LOCKED' });
    expect(second.error.message).toContain(String(server.pid));
    expect(second.error.next).toContain('use the server that runs');
    expect(second.code).toBe(1);
    const check = await refused(directory.path, ['check', 'disk']);
    expect(check.error).toMatchObject({ code: 'SERVER_RUNS' });
    // Without the control socket, a command sees that the volume is taken.
    rmSync(join(directory.path, 'control.sock'));
    const alone = await refused(directory.path, ['info', 'disk']);
    expect(alone.error).toMatchObject({ code: 'VOLUME_LOCKED' });
    expect(alone.error.message).toContain(String(server.pid));
    expect(server.isRunning).toBe(true);
  });

  test('starts over what a killed one left', async () => {
    using directory = temporaryDirectory();
    await makeVolume(directory.path);
    await using killed = await Server.start(directory.path);
    await varve(directory.path, ['mark', 'disk', 'before']);
    await killed.kill();
    expect(existsSync(join(directory.path, 'control.sock'))).toBe(true);
    expect(await varve(directory.path, ['info', 'disk'])).toContain('an unclean end');
    await using server = await Server.start(directory.path);
    expect(await varve(directory.path, ['info', 'disk'])).toContain('before');
    expect(await server.stop()).toBe(0);
  });

  test('is not brought down by what comes in on the control socket', async () => {
    using directory = temporaryDirectory();
    await makeVolume(directory.path);
    await using server = await Server.start(directory.path);
    const rows = ['', '{', 'null', '[]', '{"id":1}', '{"id":1,"call":"toString"}', '\u0000\u0001'];
    const last = '{"id":9,"call":"info","name":"disk"}';
    const bytes = Buffer.from(`${[...rows, last].join('\n')}\n`);
    const answers = await askRaw(directory.path, bytes, rows.length + 1);
    for (const answer of answers.slice(0, -1)) expect(answer).toContain('"code":"USAGE"');
    expect(answers.at(-1)).toContain('"id":9,"result":{');
    const long = Buffer.concat([Buffer.alloc(4 * MIB, 'x'), Buffer.from(`\n${last}\n`)]);
    expect(await askRaw(directory.path, long, 2)).toEqual([
      expect.stringContaining('longer than'),
      expect.stringContaining('"id":9'),
    ]);
    // Half a line, and gone.
    const socket = connect(join(directory.path, 'control.sock'));
    socket.write('{"id":1,');
    socket.destroy();
    expect(server.isRunning).toBe(true);
    expect(await server.stop()).toBe(0);
  });

  test('does for other commands what they would do themselves', async () => {
    using directory = temporaryDirectory();
    const { path } = directory;
    const file = join(path, 'in.raw');
    const out = join(path, 'out.raw');
    patterned(file, 3 * MIB + 17, 3);
    await makeVolume(path);
    await using server = await Server.start(path);
    const imported = JSON.parse(await varve(path, ['import', file, 'disk', '--json']));
    expect(imported).toMatchObject({ name: 'disk', bytes: 3 * MIB + 17 });
    const made = await varve(path, ['snapshot', 'create', 'disk', 'kept', '--json']);
    expect(JSON.parse(made)).toMatchObject({ label: 'kept' });
    patterned(file, 3 * MIB + 17, 5);
    await varve(path, ['import', file, 'disk']);
    await varve(path, ['export', 'disk@kept', out]);
    patterned(file, 3 * MIB + 17, 3);
    expect(
      readFileSync(out)
        .subarray(0, 3 * MIB + 17)
        .equals(readFileSync(file)),
    ).toBe(true);
    expect(statSync(out).size).toBe(16 * MIB);
    expect(statSync(out).blocks * 512).toBeLessThan(3 * MIB);
    await varve(path, ['create', 'later', ...SMALL_SIZES]);
    const names: { name: string }[] = JSON.parse(await varve(path, ['list', '--json']));
    expect(names.map(({ name }) => name)).toEqual(['disk', 'later']);
    expect(await varve(path, ['info', 'later'])).toContain('16 MiB');
    expect(JSON.parse(await varve(path, ['mode', 'disk', 'through', '--json']))).toMatchObject({
      writeMode: 'through',
    });
    expect(await server.info()).toMatchObject({ writeMode: 'through' });
    const bad = await refused(path, ['export', 'disk@gen=99999', join(path, 'bad.raw')]);
    expect(bad.error).toMatchObject({ code: 'MOMENT_OUTSIDE' });
    expect(await server.stop()).toBe(0);
    expect(await varve(path, ['check', 'disk'])).toContain('disk is whole');
  });

  test('--start makes a directory that is missing, and never a volume that is', async () => {
    using directory = temporaryDirectory();
    const empty = await refused(directory.path, ['serve', '--start', '--tcp', '127.0.0.1:0']);
    expect(empty.error).toMatchObject({ code: 'VOLUME_UNKNOWN' });
    const data = join(directory.path, "it's new");
    const more = ['--start', '--tcp', '127.0.0.1:0'];
    await using server = await Server.start(data, { more });
    expect(server.stdout).toContain('made a blank volume "disk" of 1 GiB');
    const lines = server.stdout.split('\n').filter((line) => line.startsWith('  '));
    expect(lines).toHaveLength(3);
    for (const line of lines) expect(line).toContain('disk@-1m');
    expect(await server.stop()).toBe(0);
    await using again = await Server.start(data, { more });
    expect(again.stdout).not.toContain('made');
  });
});

describeWith(['nbdinfo', 'nbdcopy'], 'varve serve, with real clients', () => {
  test('serves what is printed, the past too, and the only volume by the empty name', async () => {
    using directory = temporaryDirectory();
    const file = join(directory.path, 'in.raw');
    patterned(file, 16 * MIB, 7);
    await makeVolume(directory.path);
    await using server = await Server.start(directory.path);
    const [uri = ''] = server.uris;
    await run('nbdcopy', [file, uri]);
    const out = join(directory.path, 'out.raw');
    await run('nbdcopy', [uri, out]);
    expect(readFileSync(out).equals(readFileSync(file))).toBe(true);
    await varve(directory.path, ['snapshot', 'create', 'disk', 'first', '--at', 'gen=0']);
    const listed = await run('nbdinfo', ['--list', '--json', server.uri('')]);
    expect(listed).toContain('nbd+unix:///disk@first?');
    const past = JSON.parse(await run('nbdinfo', ['--json', server.uri('disk@first')]));
    expect(past.exports[0]).toMatchObject({ is_read_only: true, 'export-size': 16 * MIB });
    expect(await run('nbdinfo', ['--size', server.uri('')])).toBe(`${16 * MIB}\n`);
    // It shows its user no reason; whoever runs the server sees it.
    await expect(run('nbdinfo', [server.uri('disk@-10m')])).rejects.toThrow('No such file');
    expect(server.stderr).toMatch(
      /^varve: refused a client "disk@-10m": MOMENT_OUTSIDE: .*window is/,
    );
  });
});
