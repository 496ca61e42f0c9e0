/** Flipped bytes in the files of a real volume, as clients, copies and scrubs meet them. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { describeWith } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { LibNbd } from '../support/libnbd.ts';
import { run, runToEnd, varve, VARVE } from '../support/run.ts';
import { Server } from '../support/server.ts';

const BLOCK = 4096;
const READ_CHUNKS = fileURLToPath(new URL('../support/read-chunks.py', import.meta.url));

interface Chunks {
  readonly result: string;
  readonly chunks: readonly {
    readonly kind: 'data' | 'hole' | 'error';
    readonly offset: number;
    readonly length: number;
    readonly first: number | null;
  }[];
}

async function readChunks(uri: string, offset: number, length: number): Promise<Chunks> {
  const words = [READ_CHUNKS, uri, String(offset), String(length)];
  const chunks: Chunks = JSON.parse(await run('/usr/bin/python3', words));
  return chunks;
}

/** A block that is told from all others, and found in a file. */
function content(value: number): Buffer {
  return Buffer.alloc(BLOCK, `block ${String(value).padStart(10, '0')};`);
}

/** Flips one byte inside each place where the file holds this block. @returns how many */
function flip(path: string, value: number): number {
  const bytes = readFileSync(path);
  const file = openSync(path, 'r+');
  let count = 0;
  const needle = content(value).subarray(0, 64);
  for (let at = bytes.indexOf(needle); at >= 0; at = bytes.indexOf(needle, at + BLOCK)) {
    if (at % BLOCK !== 0) continue;
    writeSync(file, Buffer.of((bytes[at + 100] ?? 0) ^ 0x40), 0, 1, at + 100);
    count += 1;
  }
  closeSync(file);
  return count;
}

async function writeBlocks(uri: string, first: number, count: number): Promise<void> {
  await using client = new LibNbd();
  const disk = await client.open(uri);
  for (let i = first; i < first + count; i++) await disk.write(i * BLOCK, content(i));
  await disk.flush();
  await disk.close();
}

interface Scrubbed {
  readonly code: number | null;
  readonly ok: boolean;
  readonly repaired: number;
  readonly left: number;
  readonly damages: readonly Readonly<Record<string, unknown>>[];
}

/** `varve scrub`, by itself or through the server that runs. */
async function scrub(data: string, rate = '0'): Promise<Scrubbed> {
  const words = [VARVE, 'scrub', 'disk', '--rate', rate, '--json', '--dir', data];
  const { code, stdout, stderr } = await runToEnd(process.execPath, words);
  if (stdout === '') throw new Error(stderr);
  const report: Scrubbed = JSON.parse(stdout);
  return { ...report, code };
}

describeWith(['python3-nbd', 'nbdcopy', 'qemu-img'], 'a damaged block', () => {
  it('is an error for itself alone, to libnbd, nbdcopy, qemu and our own copy', async () => {
    using directory = temporaryDirectory();
    const data = join(directory.path, 'data');
    {
      await using server = await Server.start(data, { create: 'disk:64M' });
      await writeBlocks(server.uri(), 0, 16);
      expect(await server.stop()).toBe(0);
    }
    expect(flip(join(data, 'disk', 'log'), 3)).toBe(1);
    expect(flip(join(data, 'disk', 'log'), 4)).toBe(1);
    expect(flip(join(data, 'disk', 'log'), 9)).toBe(1);

    await using server = await Server.start(data);
    const uri = server.uri();
    expect(await readChunks(uri, 0, 32 * BLOCK)).toEqual({
      result: 'EIO',
      chunks: [
        { kind: 'data', offset: 0, length: 3 * BLOCK, first: 'b'.charCodeAt(0) },
        { kind: 'error', offset: 3 * BLOCK, length: 0, first: null },
        { kind: 'data', offset: 5 * BLOCK, length: 4 * BLOCK, first: 'b'.charCodeAt(0) },
        { kind: 'error', offset: 9 * BLOCK, length: 0, first: null },
        { kind: 'data', offset: 10 * BLOCK, length: 22 * BLOCK, first: 'b'.charCodeAt(0) },
      ],
    });
    expect((await readChunks(uri, 5 * BLOCK, 4 * BLOCK)).result).toBe('good');
    const simple = [READ_CHUNKS, uri, '0', String(32 * BLOCK), 'simple'];
    expect(JSON.parse(await run('/usr/bin/python3', simple))).toMatchObject({ result: 'EIO' });

    const copy = join(directory.path, 'copy.raw');
    expect((await runToEnd('nbdcopy', [uri, copy])).code).not.toBe(0);
    expect((await runToEnd('qemu-img', ['convert', '-O', 'raw', uri, copy])).code).not.toBe(0);

    const words = ['export', 'disk', copy, '--force', '--dir', data];
    const stopped = await runToEnd(process.execPath, [VARVE, ...words]);
    expect(stopped.code).toBe(1);
    expect(stopped.stderr).toMatch(
      /BLOCK_CORRUPT.*at byte 12288, 8192 bytes: block 3, generation 4/s,
    );
    const kept = await runToEnd(process.execPath, [VARVE, ...words, '--keep-going', '--json']);
    expect(kept.code).toBe(1);
    expect(JSON.parse(kept.stdout)).toMatchObject({
      unreadable: [
        { offset: 3 * BLOCK, length: 2 * BLOCK },
        { offset: 9 * BLOCK, length: BLOCK },
      ],
    });
    const bytes = readFileSync(copy);
    for (let i = 0; i < 16; i++) {
      const expected = [3, 4, 9].includes(i) ? Buffer.alloc(BLOCK) : content(i);
      expect(bytes.subarray(i * BLOCK, (i + 1) * BLOCK).equals(expected), `block ${i}`).toBe(true);
    }
    expect(await server.stop()).toBe(0);
  });
});

describeWith(['python3-nbd'], 'varve scrub', () => {
  it('repairs a served volume from memory, and tells what it can not repair', async () => {
    using directory = temporaryDirectory();
    const data = join(directory.path, 'data');
    const log = join(data, 'disk', 'log');
    {
      await using server = await Server.start(data, { create: 'disk:64M' });
      await writeBlocks(server.uri(), 0, 16);
      expect(flip(log, 3)).toBe(1);
      expect(await scrub(data)).toMatchObject({
        code: 0,
        repaired: 1,
        damages: [{ place: 'payload', block: 3, outcome: 'repaired', repairedFrom: 'memory' }],
      });
      expect((await scrub(data)).damages).toEqual([]);
      expect(await server.stop()).toBe(0);
    }
    expect(flip(log, 5)).toBe(1);
    await using server = await Server.start(data);
    expect(await scrub(data)).toMatchObject({
      code: 1,
      left: 1,
      damages: [
        { block: 5, offset: 5 * BLOCK, generation: 6, outcome: 'left', seenBy: { live: true } },
      ],
    });
    const told = await runToEnd(process.execPath, [VARVE, 'scrub', 'disk', '--dir', data]);
    expect(told.stdout).toMatch(
      /DAMAGED {3}block 5, generation 6, .*\(byte 20480 of the disk\), of 20.*; seen by the live disk/,
    );
    // One that is interrupted ends in the server, too, and does not keep out the next one.
    const slow = [VARVE, 'scrub', 'disk', '--rate', '1', '--dir', data];
    const child = spawn(process.execPath, slow, { stdio: 'ignore' });
    const ended = once(child, 'exit');
    await delay(2000);
    expect(await scrub(data).catch(String)).toMatch(/SCRUB_RUNS/);
    child.kill('SIGINT');
    await ended;
    // Another moment for the server to notice.
    await delay(500);
    // A write of the whole block heals it; the moments before still see the damage.
    await writeBlocks(server.uri(), 5, 1);
    expect(await scrub(data)).toMatchObject({ code: 1, damages: [{ seenBy: { live: false } }] });
    expect((await readChunks(server.uri(), 0, 16 * BLOCK)).result).toBe('good');
    expect(await server.stop()).toBe(0);
  });

  it('repairs final storage of a volume at rest from what the log still has', async () => {
    using directory = temporaryDirectory();
    const data = join(directory.path, 'data');
    const final = join(data, 'disk', 'final.raw');
    await varve(data, ['create', 'disk', '--size', '256M', '--log-size', '96M']);
    {
      await using server = await Server.start(data);
      await writeBlocks(server.uri(), 0, 16);
      await using client = new LibNbd();
      const disk = await client.open(server.uri());
      for (let at = 0; at < 88; at++) {
        await disk.fill({ offset: (64 + at) * 1024 ** 2, length: 1024 ** 2 }, Buffer.alloc(8, 7));
      }
      await disk.flush();
      for (let i = 0; i < 100 && (await server.info()).settled.generation < 16; i++) {
        await delay(100);
      }
      await disk.close();
      expect(await server.stop()).toBe(0);
    }
    for (const block of [2, 3, 9]) expect(flip(final, block)).toBe(1);
    expect((await runToEnd(process.execPath, [VARVE, 'check', 'disk', '--dir', data])).code).toBe(
      1,
    );
    expect(await scrub(data)).toMatchObject({
      code: 0,
      repaired: 3,
      damages: [2, 3, 9].map((block) => ({
        place: 'final storage',
        block,
        outcome: 'repaired',
        repairedFrom: 'the log',
      })),
    });
    const bytes = readFileSync(final);
    for (let i = 0; i < 16; i++) {
      expect(bytes.subarray(i * BLOCK, (i + 1) * BLOCK).equals(content(i)), `block ${i}`).toBe(
        true,
      );
    }
    expect((await runToEnd(process.execPath, [VARVE, 'check', 'disk', '--dir', data])).code).toBe(
      0,
    );
  });
});
