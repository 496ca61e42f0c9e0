/**
 * Ten thousand snapshots of one volume, in this process, on real files:
 *
 *   npm run --silent build:tools && node dist/bench/snapshots.bench.js [SNAPSHOTS] [WRITES BETWEEN]
 *
 * How long creating and deleting one takes, for each tenth of them, and how fast random writes of 4 KiB
 * are while they are created and while all of them are there, beside the same writes to a volume
 * without any, in turns. A flush stands where none is created, since a snapshot is durable when it
 * answers. The logs are full from the beginning, and wrap many times.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NodeFiles } from '../src/app/node-files.ts';
import { realWorld } from '../src/app/real-world.ts';
import { BLOCK_BYTES, byteOffset, mebibytes } from '../src/base/units.ts';
import { VolumeDirectory, type OpenedVolume } from '../src/control/volume-directory.ts';
import { FileDevice } from '../src/device/file-device.ts';
import type { Volume } from '../src/volume/volume.ts';
import { loadVolumes } from '../test/support/volume-code.ts';

const SNAPSHOTS = Number(process.argv[2] ?? 10_000);
const WRITES = Number(process.argv[3] ?? 8);
const IN_FLIGHT = 32;
/** Of the two volumes, one after the other: what a disk does by the way meets both alike. */
const TURNS = 10;
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

/** As many writes as between the snapshots of one turn, each time made durable. @returns milliseconds */
async function turn(volume: Volume, durable: (i: number) => Promise<unknown>): Promise<number> {
  const start = performance.now();
  for (let i = 0; i < SNAPSHOTS / TURNS; i++) {
    await write(volume, WRITES);
    await durable(i);
  }
  // The round that these writes have begun is theirs.
  await volume.core.home.run(() => Promise.resolve());
  return performance.now() - start;
}

/** Turns of the two volumes, one after the other. @returns how fast the second is beside the first */
async function compare(
  [plain, kept]: readonly [Volume, Volume],
  durable: (turn: number, i: number) => Promise<unknown>,
): Promise<string> {
  let [plainMs, keptMs] = [0, 0];
  for (let at = 0; at < TURNS; at++) {
    plainMs += await turn(plain, () => Promise.resolve(plain.live().flush()));
    keptMs += await turn(kept, (i) => durable(at, i));
  }
  const rate = (ms: number): number => Math.round((SNAPSHOTS * WRITES * 1000) / ms);
  const ratio = (plainMs / keptMs).toFixed(2);
  return `${rate(keptMs)} writes a second, ${rate(plainMs)} without snapshots: ${ratio} of them`;
}

async function run(plain: Volume, kept: Volume): Promise<void> {
  // Until rounds come as often as they will: an empty log takes writes faster.
  for (const volume of [plain, kept]) await write(volume, LOG_SIZE / BLOCK_BYTES);
  const createMs = Array.from({ length: TURNS }, () => 0);
  const created = await compare([plain, kept], async (at, i) => {
    const start = performance.now();
    await kept.createSnapshot(`s${at}-${i}`);
    createMs[at] = (createMs[at] ?? 0) + performance.now() - start;
  });
  const each = (ms: number): string => ((ms * TURNS) / SNAPSHOTS).toFixed(2);
  say(`created in ${createMs.map(each).join(', ')} ms each`);
  say(`while ${SNAPSHOTS} are created: ${created}`);
  const { held } = kept.core.undo;
  say(`held: ${Math.round(held.bytes / 2 ** 20)} MiB`);
  const there = await compare([plain, kept], () => Promise.resolve(kept.live().flush()));
  say(`while ${SNAPSHOTS} are there: ${there}`);
  const deleteMs: number[] = [];
  for (let at = 0; at < TURNS; at++) {
    const start = performance.now();
    for (let i = 0; i < SNAPSHOTS / TURNS; i++) await kept.deleteSnapshot(`s${at}-${i}`);
    deleteMs.push(performance.now() - start);
  }
  say(`deleted in ${deleteMs.map(each).join(', ')} ms each`);
  await kept.core.collected();
  say(`left: ${kept.core.undo.held.bytes} bytes, ${kept.core.undo.segments} segments`);
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
  const opened = async (name: string): Promise<OpenedVolume> => {
    await directory.create(name, { size: SIZE, logSize: LOG_SIZE }, () => undefined);
    return await directory.open(name, 'write');
  };
  const [plain, kept] = [await opened('plain'), await opened('kept')];
  await run(plain.volume, kept.volume);
  await plain.close();
  await kept.close();
} finally {
  clearInterval(alive);
  rmSync(folder, { recursive: true });
}
