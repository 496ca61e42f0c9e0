/**
 * Ten thousand snapshots of one volume, in this process, on real files:
 *
 *   npm run --silent build:tools && node dist/bench/snapshots.bench.js [SNAPSHOTS] [WRITES BETWEEN]
 *
 * How long creating and deleting one takes, for each tenth of them, and how fast random writes of 4 KiB
 * are with them, beside the same writes without any, before and after, in the same run: then a flush stands where a
 * snapshot is created, which is durable when it answers. The log wraps many times.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NodeFiles } from '../src/app/node-files.ts';
import { realWorld } from '../src/app/real-world.ts';
import { BLOCK_BYTES, byteOffset, mebibytes } from '../src/base/units.ts';
import { VolumeDirectory } from '../src/control/volume-directory.ts';
import { FileDevice } from '../src/device/file-device.ts';
import type { Volume } from '../src/volume/volume.ts';
import { loadVolumes } from '../test/support/volume-code.ts';

const SNAPSHOTS = Number(process.argv[2] ?? 10_000);
const WRITES = Number(process.argv[3] ?? 8);
const IN_FLIGHT = 32;
const TENTHS = 10;
const SIZE = mebibytes(256);
const LOG_SIZE = mebibytes(256);
const NO = { fua: false };

const content = Buffer.alloc(BLOCK_BYTES, 7);
let seed = 1;

function nextBlock(blocks: number): number {
  seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
  return seed % blocks;
}

async function write(volume: Volume, count: number): Promise<number> {
  const live = volume.live();
  const blocks = SIZE / BLOCK_BYTES;
  const start = performance.now();
  for (let done = 0; done < count; done += IN_FLIGHT) {
    const batch: Promise<void>[] = [];
    for (let i = 0; i < Math.min(IN_FLIGHT, count - done); i++) {
      content.writeUInt32LE(seed, 0);
      const written = live.write(byteOffset(nextBlock(blocks) * BLOCK_BYTES), content, NO);
      // What the ring takes at once is no promise.
      if (written !== undefined) batch.push(written);
    }
    await Promise.all(batch);
  }
  return performance.now() - start;
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Flushes stand where snapshots would. @returns milliseconds */
async function plain(volume: Volume): Promise<number> {
  let ms = 0;
  for (let i = 0; i < SNAPSHOTS; i++) {
    ms += await write(volume, WRITES);
    const start = performance.now();
    await volume.live().flush();
    ms += performance.now() - start;
  }
  say(`without: ${Math.round(((SNAPSHOTS * WRITES) / ms) * 1000)} writes a second`);
  return ms;
}

async function run(volume: Volume): Promise<void> {
  const all = SNAPSHOTS * WRITES;
  // Until rounds come as often as they will: an empty log takes writes faster.
  await write(volume, LOG_SIZE / BLOCK_BYTES);
  const before = await plain(volume);
  let withMs = 0;
  for (let tenth = 0; tenth < TENTHS; tenth++) {
    let createMs = 0;
    let writeMs = 0;
    for (let i = 0; i < SNAPSHOTS / TENTHS; i++) {
      const start = performance.now();
      await volume.createSnapshot(`s${tenth}-${i}`);
      createMs += performance.now() - start;
      writeMs += await write(volume, WRITES);
    }
    withMs += writeMs + createMs;
    const { held } = volume.core.undo;
    say(
      `create, tenth ${tenth + 1}: ${((createMs * TENTHS) / SNAPSHOTS).toFixed(2)} ms each, ` +
        `${Math.round((all / TENTHS / (writeMs + createMs)) * 1000)} writes a second, ` +
        `${Math.round(held.bytes / 2 ** 20)} MiB held`,
    );
  }
  for (let tenth = 0; tenth < TENTHS; tenth++) {
    const start = performance.now();
    for (let i = 0; i < SNAPSHOTS / TENTHS; i++) await volume.deleteSnapshot(`s${tenth}-${i}`);
    const ms = performance.now() - start;
    say(`delete, tenth ${tenth + 1}: ${((ms * TENTHS) / SNAPSHOTS).toFixed(2)} ms each`);
  }
  await volume.core.collected();
  say(`left: ${volume.core.undo.held.bytes} bytes, ${volume.core.undo.segments} segments`);
  const after = await plain(volume);
  const plainMs = (before + after) / 2;
  say(
    `with: ${Math.round((all / withMs) * 1000)} writes a second, ${(plainMs / withMs).toFixed(2)} of those without`,
  );
  say(`resident: ${Math.round(process.memoryUsage().rss / 2 ** 20)} MiB`);
}

// The world's timers keep no process: while this runs, this one does.
const alive = setInterval(() => undefined, 2 ** 30);
const folder = mkdtempSync(join(tmpdir(), 'varve-snapshots-'));
try {
  const directory = new VolumeDirectory(folder, {
    files: new NodeFiles(),
    openDevice: (path, options) => FileDevice.open(path, options),
    world: realWorld,
    loadVolumes,
  });
  await directory.create('disk', { size: SIZE, logSize: LOG_SIZE }, () => undefined);
  const opened = await directory.open('disk', 'write');
  await run(opened.volume);
  await opened.close();
} finally {
  clearInterval(alive);
  rmSync(folder, { recursive: true });
}
