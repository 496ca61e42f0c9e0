/** Flipped bytes in the files of a real volume, as clients, copies and scrubs meet them. */
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { describeWith } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { LibNbd } from '../support/libnbd.ts';
import { run, runToEnd, VARVE } from '../support/run.ts';
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
