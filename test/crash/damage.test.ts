/** What lies on the devices was changed behind the volume's back: reported, never believed. */
import { describe, expect, test } from 'vitest';
import { crc32c } from '../../src/base/crc32c.ts';
import { isVarveError, type VarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteOffset, slot } from '../../src/base/units.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { slotOffset } from '../../log/geometry.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';

interface Bench {
  readonly world: SimWorld;
  readonly sim: SimVolume;
  /** Opens, runs, closes. */
  readonly use: <T>(work: (volume: Volume) => Promise<T>) => Promise<T>;
  /** Opens, runs, and loses power. */
  readonly crash: (work: (volume: Volume) => Promise<void>) => Promise<void>;
  readonly openError: () => Promise<VarveError>;
}

async function bench(seed: number): Promise<Bench> {
  const world = new SimWorld(seed);
  const power = new PowerSupply(world);
  const sim = new SimVolume(power);
  await world.run(() => sim.format(power.life));
  return {
    world,
    sim,
    use: (work) =>
      world.run(async () => {
        const volume = await sim.open(power.life);
        const result = await work(volume);
        await volume.close();
        return result;
      }),
    crash: async (work) => {
      await world.run(async () => work(await sim.open(power.life)));
      power.cut();
      power.restore();
    },
    openError: () =>
      world.run(async () => {
        try {
          await sim.open(power.life);
        } catch (error) {
          if (isVarveError(error)) return error;
          throw error;
        }
        throw new Error('the volume opened');
      }),
  };
}

async function put(volume: Volume, block: number, value: number): Promise<void> {
  const content = new Uint8Array(BLOCK_BYTES).fill(value);
  await volume.live().write(byteOffset(block * BLOCK_BYTES), content, { fua: false });
}

async function get(volume: Volume, block: number): Promise<number> {
  const content = new Uint8Array(BLOCK_BYTES);
  await volume.live().read(byteOffset(block * BLOCK_BYTES), content);
  expect(content.every((byte) => byte === content[0])).toBe(true);
  return content[0] ?? 0;
}

/** Enough writes to settle blocks 0 to 7 in final storage. */
async function settleSome(volume: Volume): Promise<void> {
  for (let i = 0; i < 8; i++) await put(volume, i, 100 + i);
  for (let i = 0; volume.core.settled < 8; i++) await put(volume, 20 + (i % 50), i % 256);
}

/** Writes on until no slot of the log has what was settled before. */
async function reuseSlots(volume: Volume): Promise<void> {
  const until = volume.core.counters.rounds + 6;
  for (let i = 0; volume.core.counters.rounds < until; i++)
    await put(volume, 20 + (i % 50), i % 256);
}

describe('damage in the log', () => {
  test('in a header of flushed history is refused, with its place; nothing is cut', async () => {
    const { sim, use, openError } = await bench(1);
    await use(async (volume) => {
      for (let i = 0; i < 3; i++) {
        await put(volume, i, i + 1);
        await volume.live().flush();
      }
    });
    sim.log.corruptBit(slotOffset(sim.geometry, slot(0)) + BLOCK_BYTES + 40, 3);
    const before = sim.log.platter.contentChecksum();
    const error = await openError();
    expect(error.code).toBe('VOLUME_CORRUPT');
    expect(error.detail).toMatch(/LSN 0, segment 1, slot 0, is damaged or missing/);
    expect(sim.log.platter.contentChecksum()).toBe(before);
  });

  test('in a payload of flushed history is EIO for that block alone', async () => {
    const { sim, use } = await bench(2);
    await use(async (volume) => {
      for (let i = 0; i < 3; i++) await put(volume, i, i + 1);
      await volume.live().flush();
    });
    // Segment header, lineage batch (header and record), batch header, then the payloads.
    const first = slotOffset(sim.geometry, slot(0));
    sim.log.corruptBit(first + 5 * BLOCK_BYTES + 7, 0);
    await use(async (volume) => {
      const values: (number | string)[] = [];
      for (let i = 0; i < 3; i++) {
        values.push(
          await get(volume, i).catch((error: unknown) =>
            isVarveError(error) ? error.code : String(error),
          ),
        );
      }
      expect(values.filter((value) => value === 'BLOCK_CORRUPT')).toHaveLength(1);
      const report = await volume.check(() => undefined);
      expect(report.ok).toBe(false);
      expect(report.problems.join('\n')).toMatch(/bad checksum/);
      await put(volume, 9, 9);
      expect(await get(volume, 9)).toBe(9);
    });
  });

  test('a torn tail that nobody was promised is cut, and said so', async () => {
    const { use, crash } = await bench(3);
    await crash(async (volume) => {
      await put(volume, 0, 1);
      await volume.live().flush();
      for (let i = 0; i < 5; i++) await put(volume, 1 + i, 2);
      volume.core.log.stream.seal();
      await volume.core.log.writer.waitWritten(volume.core.log.stream.nextLsn);
    });
    await use(async (volume) => {
      expect(await get(volume, 0)).toBe(1);
      expect(volume.core.head).toBeGreaterThanOrEqual(1);
    });
  });

  test('one superblock may be lost; both are refused', async () => {
    const { sim, use, openError } = await bench(4);
    await use((volume) => put(volume, 0, 5));
    sim.log.corrupt(0, new Uint8Array(512).fill(0xee));
    await use(async (volume) => expect(await get(volume, 0)).toBe(5));
    sim.log.corruptBit(20, 1);
    sim.log.corruptBit(8 * BLOCK_BYTES + 20, 1);
    expect((await openError()).code).toBe('VOLUME_CORRUPT');
  });

  test('a format of another version is refused, with both numbers', async () => {
    const { sim, use, openError } = await bench(5);
    await use((volume) => put(volume, 0, 5));
    for (const block of [0, 8]) {
      const bytes = new Uint8Array(512);
      sim.log.platter.read(block * BLOCK_BYTES, bytes);
      const view = new DataView(bytes.buffer);
      view.setUint16(12, 7, true);
      view.setUint32(8, crc32c(bytes.subarray(12)), true);
      sim.log.corrupt(block * BLOCK_BYTES, bytes);
    }
    const error = await openError();
    expect(error.code).toBe('VERSION_UNKNOWN');
    expect(error.detail).toBe('got 7, this build knows 3');
  });

  test('a read error at opening is no torn tail: it is passed on', async () => {
    const { sim, use, openError } = await bench(6);
    await use((volume) => put(volume, 0, 5));
    const mend = sim.log.failRead({ offset: slotOffset(sim.geometry, slot(0)), length: 1 });
    expect((await openError()).code).toBe('DEVICE_IO');
    mend();
    await use(async (volume) => expect(await get(volume, 0)).toBe(5));
  });
});

describe('damage in final storage', () => {
  test('bit rot in a settled block is EIO for that block, and check names it', async () => {
    const { sim, use } = await bench(7);
    await use(settleSome);
    await use(reuseSlots);
    await use(async (volume) => {
      sim.final.corruptBit(3 * BLOCK_BYTES + 11, 2);
      await expect(get(volume, 3)).rejects.toMatchObject({ code: 'BLOCK_CORRUPT', errno: 'EIO' });
      expect(await get(volume, 4)).toBe(104);
      const report = await volume.check(() => undefined);
      expect(report.problems.join('\n')).toMatch(/block 3 of final storage/);
      await put(volume, 3, 77);
      expect(await get(volume, 3)).toBe(77);
    });
  });

  test('a lost write of the sidecar, or of a block, never shows as older data', async () => {
    const { sim, use } = await bench(8);
    await use(settleSome);
    await use(reuseSlots);
    await use(async (volume) => {
      sim.final.corrupt(2 * BLOCK_BYTES, new Uint8Array(BLOCK_BYTES));
      await expect(get(volume, 2)).rejects.toMatchObject({ code: 'BLOCK_CORRUPT' });
    });
  });

  test('an older image put back is refused before any write', async () => {
    const { sim, use, openError } = await bench(9);
    await use(settleSome);
    const old = new Uint8Array(sim.final.size);
    sim.final.platter.read(0, old);
    await use(async (volume) => {
      const { rounds } = volume.core.counters;
      for (let i = 0; volume.core.counters.rounds < rounds + 3; i++) {
        await put(volume, i % 60, 200 + (i % 50));
      }
    });
    sim.final.corrupt(0, old);
    const before = sim.log.platter.contentChecksum();
    expect((await openError()).code).toBe('VOLUME_FOREIGN');
    expect(sim.log.platter.contentChecksum()).toBe(before);
  });

  test('a foreign log is refused', async () => {
    const mine = await bench(10);
    const other = await bench(11);
    await mine.use((volume) => put(volume, 0, 5));
    await other.use((volume) => put(volume, 0, 5));
    const bytes = new Uint8Array(mine.sim.log.size);
    other.sim.log.platter.read(0, bytes);
    mine.sim.log.corrupt(0, bytes);
    expect((await mine.openError()).code).toBe('VOLUME_FOREIGN');
  });
});
