/** What a page of checksums is taken for when sectors of it are zeros. */
import { describe, expect, test } from 'vitest';
import {
  block,
  BLOCK_BYTES,
  byteCount,
  checksum,
  generation,
  type Generation,
} from '../../src/base/units.ts';
import { SUM_DATA, SUM_NEVER, SUMS_ENTRIES, SUMS_SECTOR_BYTES } from '../../src/format/layouts.ts';
import { Sidecar } from '../../src/volume/sidecar.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import { SimDisk } from '../sim/sim-disk.ts';
import { SimWorld } from '../sim/sim-world.ts';

const world = new SimWorld(1);
const BLOCKS = 248;
const FIRST_ROUND = generation(5);
const SECOND_ROUND = generation(9);
const LAST_BLOCK = block(BLOCKS - 1);

function sidecarOn(device: SimDisk): Sidecar {
  return new Sidecar({ device, blocks: BLOCKS, seed: 7, cacheBytes: byteCount(BLOCK_BYTES) });
}

/** A page whose block 0 was settled by the round, and whose other sectors tell of nothing. */
async function pageOf(round: Generation): Promise<SimDisk> {
  const device = SimDisk.create(new PowerSupply(world), {
    name: 'sums',
    size: BLOCK_BYTES,
  });
  const sidecar = sidecarOn(device);
  sidecar.round = round;
  const sum = { kind: SUM_DATA, generation: round, checksum: checksum(77) };
  await sidecar.write([
    { block: block(0), sum },
    { block: LAST_BLOCK, sum },
  ]);
  await sidecar.sync('sums');
  device.corrupt(0, new Uint8Array(SUMS_SECTOR_BYTES));
  return device;
}

describe('a sector of zeros beside others', () => {
  test('is damage', () =>
    world.run(async () => {
      const sidecar = sidecarOn(await pageOf(FIRST_ROUND));
      await expect(sidecar.sum(block(0))).rejects.toMatchObject({ code: 'BLOCK_CORRUPT' });
      expect((await sidecar.sum(block(SUMS_ENTRIES))).kind).toBe(SUM_NEVER);
    }));

  // A life had it so: a cut in a round, a rotten sector of an older one, and its blocks were zeros.
  test('is damage while a later round is unfinished', () =>
    world.run(async () => {
      const device = await pageOf(FIRST_ROUND);
      const sidecar = sidecarOn(device);
      sidecar.unfinishedAfter = FIRST_ROUND;
      await expect(sidecar.sum(block(0))).rejects.toMatchObject({ code: 'BLOCK_CORRUPT' });
    }));

  test('is damage when the unfinished round has written into the page', () =>
    world.run(async () => {
      const device = await pageOf(FIRST_ROUND);
      const writer = sidecarOn(device);
      writer.round = SECOND_ROUND;
      const sum = { kind: SUM_DATA, generation: SECOND_ROUND, checksum: checksum(78) };
      await writer.write([{ block: LAST_BLOCK, sum }]);
      device.corrupt(0, new Uint8Array(SUMS_SECTOR_BYTES));
      const sidecar = sidecarOn(device);
      sidecar.unfinishedAfter = FIRST_ROUND;
      await expect(sidecar.sum(block(0))).rejects.toMatchObject({ code: 'BLOCK_CORRUPT' });
      expect(await sidecar.sum(LAST_BLOCK)).toEqual(sum);
    }));

  test('is a torn write in a page that only the unfinished round has written', () =>
    world.run(async () => {
      const sidecar = sidecarOn(await pageOf(SECOND_ROUND));
      sidecar.unfinishedAfter = FIRST_ROUND;
      expect((await sidecar.sum(block(0))).kind).toBe(SUM_NEVER);
      expect((await sidecar.sum(LAST_BLOCK)).generation).toBe(SECOND_ROUND);
    }));
});
