/**
 * Law 6 on a real file system that fills up, one of a few MiB on a loop device: below final
 * storage, below the log, at creation, and below the small files of a directory.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { SeededRandom } from '../sim/random.ts';
import { describeWith } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { LibNbd, NbdError, type Connection } from '../support/libnbd.ts';
import { expectSame, RequestModel, send } from '../support/request-model.ts';
import { varve, varveToEnd } from '../support/run.ts';
import { Server } from '../support/server.ts';
import { SmallFileSystem } from '../support/small-file-system.ts';

const MIB = 1024 ** 2;
const SIZE = 32 * MIB;
const SIZES = ['--size', '32M', '--log-size', '74M', '--ring-size', '64M'];
/** The first one that is refused was hoped to be served; the next ones know better. */
const FIRST_MS_MAX = 10_000;
const LATER_MS_MAX = 1000;
/** A snapshot is made after so many requests. */
const EARLY = 200;
const RECOVERY_MS_MAX = 5000;

/** Sends until one is refused. @returns how long that one took */
async function sendUntilRefused(
  disk: Connection,
  model: RequestModel,
  random: SeededRandom,
): Promise<number> {
  for (let i = 0; i < 20_000; i++) {
    const began = performance.now();
    const request = model.any(random);
    try {
      await send(disk, request);
      model.requests.push(request);
    } catch (error) {
      if (!(error instanceof NbdError)) throw error;
      expect(error.errno).toBe('ENOSPC');
      return performance.now() - began;
    }
  }
  throw new Error('nothing was refused');
}

async function expectRefusals(disk: Connection, model: RequestModel): Promise<void> {
  for (let i = 0; i < 20; i++) {
    const random = new SeededRandom(i);
    expect(await sendUntilRefused(disk, model, random)).toBeLessThan(LATER_MS_MAX);
  }
}

async function expectContent(client: LibNbd, uri: string, wanted: Buffer): Promise<void> {
  const disk = await client.open(uri);
  expectSame(await disk.readAll(), wanted, uri);
  await disk.close();
}

/** Moments spread over the window, each against the model. */
async function expectMoments(
  client: LibNbd,
  server: Server,
  requests: RequestModel['requests'],
): Promise<void> {
  const { head, horizon } = await server.info();
  const past = new RequestModel(SIZE);
  past.requests.push(...requests);
  for (let step = 0; step <= 4; step++) {
    const span = head.generation - horizon.generation;
    const generation = horizon.generation + Math.floor((span * step) / 4);
    const uri = server.uri(`disk@gen=${generation}`);
    await expectContent(client, uri, past.advance(generation));
  }
}

describeWith(['losetup', 'mkfs.ext4', 'mount', 'python3-nbd'], 'a full file system', () => {
  it('below final storage: writes are refused, all else goes on, and it resumes', async () => {
    await using small = await SmallFileSystem.make(64 * MIB);
    using other = temporaryDirectory();
    const data = join(small.path, 'data');
    await varve(data, ['create', 'disk', ...SIZES, '--log', join(other.path, 'log')]);
    small.fill('filler', 8 * MIB);
    const model = new RequestModel(SIZE);
    const random = new SeededRandom(6);
    await using client = new LibNbd();
    {
      await using server = await Server.start(data);
      const disk = await client.open(server.uri());
      for (let i = 0; i < EARLY; i++) {
        const request = model.any(random);
        await send(disk, request);
        model.requests.push(request);
      }
      await varve(data, ['snapshot', 'create', 'disk', 'early']);
      expect(await sendUntilRefused(disk, model, random)).toBeLessThan(FIRST_MS_MAX);
      const accepted = model.requests.length;
      expect(accepted).toBeGreaterThan(300);
      small.fill('filler-of-the-rest');
      await expectRefusals(disk, model);
      const info = await server.info();
      expect(info.head.generation).toBe(model.requests.length);
      expect(info.failure).toContain('ENOSPC');
      await disk.flush();
      expectSame(await disk.readAll(), model.advance(), 'the head');
      await expectMoments(client, server, model.requests);

      // A snapshot that frees nothing yet can be deleted all the same: the log has a reserve.
      const early = new RequestModel(SIZE);
      early.requests.push(...model.requests);
      await expectContent(client, server.uri('disk@early'), early.advance(EARLY));
      await varve(data, ['snapshot', 'delete', 'disk', 'early']);
      await expectRefusals(disk, model);
      // What can't be written leaves the old file, whole.
      const record = readFileSync(join(data, 'disk', 'volume.json'), 'utf8');
      const mode = await varveToEnd(data, ['mode', 'disk', 'through', '--json']);
      expect([mode.code, mode.stdout + mode.stderr]).toEqual([
        1,
        expect.stringContaining('DISK_FULL'),
      ]);
      expect(readFileSync(join(data, 'disk', 'volume.json'), 'utf8')).toBe(record);
      expect(readdirSync(join(data, 'disk')).sort()).toEqual([
        'final.raw',
        'final.sums',
        'lock',
        'undo',
        'volume.json',
      ]);
      await server.kill();
      await disk.close();
    }
    // Not even the number of the process that holds a lock has a place.
    for (const lock of [join(data, 'lock'), join(data, 'disk', 'lock')]) writeFileSync(lock, '');
    small.fill('filler-of-what-that-left');
    {
      // A server starts, reads and refuses where nothing can be written; what was flushed is there.
      await using server = await Server.start(data);
      const disk = await client.open(server.uri());
      expectSame(await disk.readAll(), model.advance(), 'after a kill');
      await sendUntilRefused(disk, model, random);
      await expectRefusals(disk, model);
      small.remove('filler');
      const freed = performance.now();
      for (;;) {
        const request = model.any(random);
        const isThere = await send(disk, request).then(
          () => true,
          () => false,
        );
        if (isThere) model.requests.push(request);
        if (isThere) break;
        await delay(50);
      }
      const resumedMs = performance.now() - freed;
      expect(resumedMs).toBeLessThan(RECOVERY_MS_MAX);
      for (let i = 0; i < 1000; i++) {
        const request = model.any(random);
        await send(disk, request);
        model.requests.push(request);
      }
      expectSame(await disk.readAll(), model.advance(), 'after space was freed');
      const info = await server.info();
      expect(info.failure).toBeUndefined();
      expect(info.head.generation).toBe(model.requests.length);
      console.info(`${model.requests.length} requests, resumed after ${Math.round(resumedMs)} ms`);
      await disk.close();
      expect(await server.stop()).toBe(0);
      expect(server.stderr).toBe('');
    }
    const report = JSON.parse(await varve(data, ['check', 'disk', '--json']));
    expect(report).toMatchObject({ ok: true, problems: [] });
  });

  it('below the log changes nothing, since the log has its space from the beginning', async () => {
    await using small = await SmallFileSystem.make(96 * MIB);
    using directory = temporaryDirectory();
    const log = join(small.path, 'log');
    await varve(directory.path, ['create', 'disk', ...SIZES, '--log', log]);
    small.fill('filler');
    await using server = await Server.start(directory.path);
    await using client = new LibNbd();
    const disk = await client.open(server.uri());
    const value = Buffer.alloc(8, 'wrapped');
    for (let pass = 0; pass < 8; pass++) {
      for (let offset = 0; offset < SIZE; offset += MIB) {
        await disk.fill({ offset, length: MIB }, value);
      }
    }
    await disk.flush();
    expect((await server.info()).counters.rounds).toBeGreaterThan(2);
    expect((await disk.readAll()).equals(Buffer.alloc(SIZE, value))).toBe(true);
    await disk.close();
    expect(await server.stop()).toBe(0);
  });

  it('at creation: nothing is made, and the reason is told', async () => {
    await using small = await SmallFileSystem.make(48 * MIB);
    const freeBytes = small.freeBytes;
    const before = readdirSync(small.path).sort();
    const data = join(small.path, 'data');
    const ended = await varveToEnd(data, ['create', 'disk', ...SIZES, '--json']);
    expect([ended.code, ended.stdout + ended.stderr]).toEqual([
      1,
      expect.stringContaining('DISK_FULL'),
    ]);
    expect(readdirSync(small.path).sort()).toEqual(before);
    expect(small.freeBytes).toBeGreaterThan(freeBytes - 64 * 1024);
  });
});
