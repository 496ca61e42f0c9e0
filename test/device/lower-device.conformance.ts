/**
 * What every lower device promises, as a function of how one is had: the same cases for files,
 * block devices, slices and the simulated disk.
 */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { byteCount, byteOffset, mebibytes } from '../../src/base/units.ts';
import type { LowerDevice } from '../../src/device/lower-device.ts';
import { SeededRandom } from '../sim/random.ts';

/** Of every device under test; holds zeros at first. */
export const BENCH_BYTES = mebibytes(8);

export interface Bench extends AsyncDisposable {
  readonly device: LowerDevice;
  /** Runs `work` in the device's world. */
  run<T>(work: () => Promise<T>): Promise<T>;
}

export function inThisWorld<T>(work: () => Promise<T>): Promise<T> {
  return work();
}

async function readBytes(device: LowerDevice, offset: number, length: number): Promise<Buffer> {
  const target = Buffer.alloc(length, 0xee);
  await device.read(byteOffset(offset), target);
  return target;
}

function pattern(seed: number, length: number): Uint8Array {
  return new SeededRandom(seed).bytes(length);
}

export function describeLowerDevice(name: string, open: () => Promise<Bench>): void {
  describe(`${name} as a lower device`, () => {
    let bench: Bench;
    beforeEach(async () => {
      bench = await open();
    });
    afterEach(async () => {
      await bench[Symbol.asyncDispose]();
    });

    /** A case that runs in the world of the device. */
    function works(title: string, work: (device: LowerDevice) => Promise<void>): void {
      test(title, async () => {
        await bench.run(() => work(bench.device));
      });
    }

    works('has its size and a name', async (device) => {
      expect(device.size).toBe(BENCH_BYTES);
      expect(device.name).not.toBe('');
    });
    works('says what it takes up: what was written, at most all of it', async (device) => {
      await device.write(byteOffset(0), [pattern(1, 500_000)]);
      await device.sync('final');
      expect(await device.allocated()).toBeGreaterThanOrEqual(500_000);
      expect(await device.allocated()).toBeLessThanOrEqual(BENCH_BYTES);
    });
    describeReadsAndWrites(works);
    describePunches(works);
    describeEnds(works);
  });
}

type Works = (title: string, work: (device: LowerDevice) => Promise<void>) => void;

function describeReadsAndWrites(works: Works): void {
  works('reads zeros where nothing was written', async (device) => {
    expect(await readBytes(device, 12_345, 70_000)).toEqual(Buffer.alloc(70_000));
  });

  works('keeps bytes at any alignment, and leaves the neighbours alone', async (device) => {
    const bytes = pattern(1, 10_001);
    await device.write(byteOffset(4095), [bytes]);
    expect(await readBytes(device, 4094, 10_003)).toEqual(Buffer.from([0, ...bytes, 0]));
  });

  works('writes its sources one after the other, empty ones included', async (device) => {
    const sources = [pattern(2, 3), new Uint8Array(0), pattern(3, 4096), pattern(4, 513)];
    await device.write(byteOffset(100), sources);
    expect(await readBytes(device, 100, 3 + 4096 + 513)).toEqual(Buffer.concat(sources));
  });

  works('writes more sources than the system takes at once', async (device) => {
    const sources = Array.from({ length: 2500 }, (_, at) => pattern(at, 1 + (at % 9)));
    await device.write(byteOffset(7), sources);
    const whole = Buffer.concat(sources);
    expect(await readBytes(device, 7, whole.length)).toEqual(whole);
  });

  works('borrows a part of a larger buffer, at an offset in it', async (device) => {
    const arena = pattern(5, 20_000);
    await device.write(byteOffset(512), [arena.subarray(1000, 3000)]);
    const target = new Uint8Array(4000).fill(1);
    await device.read(byteOffset(512), target.subarray(1000, 3000));
    expect(Buffer.from(target.subarray(1000, 3000))).toEqual(
      Buffer.from(arena.subarray(1000, 3000)),
    );
    expect([target[999], target[3000]]).toEqual([1, 1]);
  });

  works('reads and writes up to its very end, and not one byte beyond', async (device) => {
    const end = device.size;
    await device.write(byteOffset(end - 3), [pattern(6, 3)]);
    expect(await readBytes(device, end - 3, 3)).toEqual(Buffer.from(pattern(6, 3)));
    await expect(device.write(byteOffset(end - 2), [new Uint8Array(3)])).rejects.toThrow(/inside/);
    await expect(device.read(byteOffset(end), new Uint8Array(1))).rejects.toThrow(/inside/);
    await expect(device.punch(byteOffset(end - 1), byteCount(2))).rejects.toThrow(/inside/);
    expect(await readBytes(device, end - 3, 3)).toEqual(Buffer.from(pattern(6, 3)));
  });

  works('takes requests of no length', async (device) => {
    await device.read(byteOffset(5), new Uint8Array(0));
    await device.write(byteOffset(device.size), []);
    await device.write(byteOffset(5), [new Uint8Array(0)]);
    await device.punch(byteOffset(5), byteCount(0));
    await device.sync('commit');
  });

  works('keeps many requests in flight apart', async (device) => {
    const pieces = Array.from({ length: 200 }, (_, at) => pattern(at, 5000));
    await Promise.all(pieces.map((piece, at) => device.write(byteOffset(at * 5000), [piece])));
    const back = await Promise.all(pieces.map((_, at) => readBytes(device, at * 5000, 5000)));
    expect(Buffer.concat(back).equals(Buffer.concat(pieces))).toBe(true);
  });

  works('has the newest bytes, before and after a sync', async (device) => {
    await device.write(byteOffset(0), [pattern(7, 9000)]);
    await device.sync('commit');
    await device.write(byteOffset(4000), [pattern(8, 1000)]);
    const expected = Buffer.from(pattern(7, 9000));
    expected.set(pattern(8, 1000), 4000);
    expect(await readBytes(device, 0, 9000)).toEqual(expected);
    await device.sync('commit');
    expect(await readBytes(device, 0, 9000)).toEqual(expected);
  });
}

function describePunches(works: Works): void {
  works('reads zeros in a punched range, and the old bytes on either side', async (device) => {
    const bytes = pattern(9, 3_000_000);
    const ranges = [
      [4096, 8192],
      [100_001, 1],
      [200_000, 5000],
      [300_000, 100],
      [400_000, 2_500_001],
    ];
    await device.write(byteOffset(0), [bytes]);
    const expected = Buffer.from(bytes);
    for (const [from = 0, length = 0] of ranges) {
      await device.punch(byteOffset(from), byteCount(length));
      expected.fill(0, from, from + length);
    }
    expect((await readBytes(device, 0, 3_000_000)).equals(expected)).toBe(true);
    await device.sync('final');
    expect((await readBytes(device, 0, 3_000_000)).equals(expected)).toBe(true);
  });

  works('is punched whole, and written again', async (device) => {
    await device.write(byteOffset(device.size - 5000), [pattern(10, 5000)]);
    await device.punch(byteOffset(0), device.size);
    expect(await readBytes(device, device.size - 5000, 5000)).toEqual(Buffer.alloc(5000));
    await device.write(byteOffset(4096), [pattern(11, 100)]);
    expect(await readBytes(device, 4096, 100)).toEqual(Buffer.from(pattern(11, 100)));
    expect(device.size).toBe(BENCH_BYTES);
  });

  works('equals an array of bytes after 300 requests of any kind', async (device) => {
    const random = new SeededRandom(12);
    const model = Buffer.alloc(device.size);
    for (let turn = 0; turn < 300; turn++) {
      const length = random.pick([1, 511, 4096, 10_000, 65_536, 1_500_000]);
      const offset = random.below(device.size - length);
      const kind = random.pick(['read', 'write', 'write', 'punch', 'sync']);
      if (kind === 'read') {
        const got = await readBytes(device, offset, length);
        expect(got.equals(model.subarray(offset, offset + length))).toBe(true);
      } else if (kind === 'write') {
        const bytes = pattern(turn, length);
        await device.write(byteOffset(offset), [bytes]);
        model.set(bytes, offset);
      } else if (kind === 'punch') {
        await device.punch(byteOffset(offset), byteCount(length));
        model.fill(0, offset, offset + length);
      } else {
        await device.sync('final');
      }
    }
    expect((await readBytes(device, 0, device.size)).equals(model)).toBe(true);
  });
}

function describeEnds(works: Works): void {
  works('is closed as often as one likes, and refuses all else from then on', async (device) => {
    await device.write(byteOffset(0), [pattern(13, 10)]);
    await device.close();
    await device.close();
    const refused = { code: 'CLOSED' };
    await expect(device.read(byteOffset(0), new Uint8Array(1))).rejects.toMatchObject(refused);
    await expect(device.write(byteOffset(0), [pattern(1, 1)])).rejects.toMatchObject(refused);
    await expect(device.punch(byteOffset(0), byteCount(1))).rejects.toMatchObject(refused);
    await expect(device.sync('close')).rejects.toMatchObject(refused);
    await expect(device.allocated()).rejects.toMatchObject(refused);
  });
}
