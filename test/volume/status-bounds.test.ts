/**
 * What is told of a range takes little memory, however long the range is. Each look at 65,536 blocks
 * that were never written once made a few objects for each of them, and a client may have 256 such
 * requests in hand.
 */
import { describe, expect, test, vi } from 'vitest';
import {
  block as blockOf,
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  checksum,
  generation,
  kibibytes,
  mebibytes,
  type ByteCount,
} from '../../src/base/units.ts';
import { STATE_ZERO } from '../../src/device/block-device.ts';
import { SUM_ALLOCATED, SUM_DATA, SUM_LOST, SUM_ZERO } from '../../src/format/layouts.ts';
import { sumsBytes } from '../../src/format/sums.ts';
import { Sidecar } from '../../src/volume/sidecar.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { Bench } from '../crash/bench.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import { SimDisk } from '../sim/sim-disk.ts';
import { SimWorld } from '../sim/sim-world.ts';
import { MemoryBase } from '../support/memory-base.ts';

const RUNS_MAX = 2048;
const PART_BLOCKS_MAX = 1024;

/** Counts of the looks at the checksums while `work` runs: how many blocks each was for. */
async function looks(volume: Volume, work: () => Promise<void>): Promise<readonly number[]> {
  const { sidecar } = volume.core.final;
  const kinds = vi.spyOn(sidecar, 'kinds');
  const sums = vi.spyOn(sidecar, 'sums');
  await work();
  const counts = kinds.mock.calls.map(([, count]) => count);
  expect(sums).not.toHaveBeenCalled();
  vi.restoreAllMocks();
  return counts;
}

function status(volume: Volume, at: number, length: number, runsMax: number) {
  const rest = Math.min(length, volume.size - at);
  return volume.live().status('base:allocation', byteOffset(at), byteCount(rest), runsMax);
}

async function onDisk(
  size: ByteCount,
  base: MemoryBase | undefined,
  work: (v: Volume) => Promise<void>,
) {
  const bench = await Bench.create(1, { size, base, slots: 12, segmentBytes: kibibytes(256) });
  await bench.use(work);
}

describe('the status of very many blocks', () => {
  test('is looked up part by part', async () => {
    const size = mebibytes(64);
    await onDisk(size, undefined, async (volume) => {
      await volume.live().write(byteOffset(0), new Uint8Array(BLOCK_BYTES).fill(1), { fua: false });
      const counts = await looks(volume, async () => {
        const runs = await status(volume, 0, size, RUNS_MAX);
        expect(runs.map(({ length }) => length)).toEqual([BLOCK_BYTES, size - BLOCK_BYTES]);
      });
      expect(Math.max(...counts)).toBeLessThanOrEqual(PART_BLOCKS_MAX);
      expect(counts.reduce((sum, count) => sum + count, 0)).toBe(size / BLOCK_BYTES - 1);
    });
  });

  test('goes no further than the answer does', async () => {
    const blocks = 8 * PART_BLOCKS_MAX;
    const base = new MemoryBase(new Uint8Array(blocks * BLOCK_BYTES));
    for (let block = 0; block < blocks; block += 2) base.bytes[block * BLOCK_BYTES] = 1;
    await onDisk(byteCount(blocks * BLOCK_BYTES), base, async (volume) => {
      const counts = await looks(volume, async () => {
        const runs = await status(volume, 0, volume.size, 10);
        expect(runs).toHaveLength(10);
      });
      expect(counts).toEqual([PART_BLOCKS_MAX]);
    });
  });

  test('is what the blocks hold, wherever it is cut', async () => {
    const blocks = 2 * PART_BLOCKS_MAX + 77;
    const base = new MemoryBase(new Uint8Array(blocks * BLOCK_BYTES));
    for (let block = 0; block < blocks; block += 1 + ((block * 7) % 40)) {
      base.bytes[block * BLOCK_BYTES + 9] = 1;
    }
    await onDisk(byteCount(blocks * BLOCK_BYTES), base, async (volume) => {
      for (const runsMax of [5, RUNS_MAX]) {
        const seen: boolean[] = [];
        for (let at = 0; at < volume.size; at = seen.length * BLOCK_BYTES) {
          for (const { length, flags } of await status(volume, at, volume.size, runsMax)) {
            const isZero = (flags & STATE_ZERO) !== 0;
            for (let i = 0; i < length; i += BLOCK_BYTES) seen.push(isZero);
          }
        }
        const held = Array.from(
          { length: blocks },
          (_, i) => base.bytes[i * BLOCK_BYTES + 9] !== 1,
        );
        expect(seen).toEqual(held);
      }
    });
  });
});

test('kinds of sums are those of the sums, and data of what is newer', async () => {
  const world = new SimWorld(3);
  const random = world.fork('sums');
  const blocks = 600;
  await world.run(async () => {
    const power = new PowerSupply(world);
    const device = SimDisk.create(power, { name: 'sums', size: sumsBytes(blocks) });
    const sidecar = new Sidecar({ device, blocks, seed: 7, cacheBytes: byteCount(BLOCK_BYTES) });
    const changes = [];
    for (let block = random.below(9); block < blocks; block += 1 + random.below(9)) {
      const kind = random.pick([SUM_ZERO, SUM_DATA, SUM_LOST, SUM_ALLOCATED]);
      const sum = { kind, generation: generation(1 + random.below(9)), checksum: checksum(block) };
      changes.push({ block: blockOf(block), sum });
    }
    await sidecar.write(changes);
    for (let i = 0; i < 60; i += 1) {
      const first = blockOf(random.below(blocks));
      const count = 1 + random.below(blocks - first);
      const at = generation(random.below(11));
      const sums = await sidecar.sums(first, count);
      const wanted = sums.map((sum) => (sum.generation > at ? SUM_DATA : sum.kind));
      expect([...(await sidecar.kinds(first, count, at))]).toEqual(wanted);
    }
  });
});
