/** The disk that forgets: what a loss of power may leave, and what it may not. */
import { describe, expect, test } from 'vitest';
import { byteCount, byteOffset, mebibytes } from '../../src/base/units.ts';
import type { SyncPoint } from '../../src/device/lower-device.ts';
import { PowerSupply, type PowerSupplyOptions } from './power-supply.ts';
import { SimDisk, type ReopenOptions } from './sim-disk.ts';
import { SimWorld } from './sim-world.ts';

const SECTOR = 512;

interface Machine {
  readonly world: SimWorld;
  readonly power: PowerSupply;
  readonly disk: SimDisk;
}

function machine(
  seed: number,
  skipSyncs: readonly SyncPoint[] = [],
  options: PowerSupplyOptions = {},
): Machine {
  const world = new SimWorld(seed);
  const power = new PowerSupply(world, options);
  const size = mebibytes(1);
  const disk = SimDisk.create(power, { name: 'disk', size, skipSyncs: new Set(skipSyncs) });
  return { world, power, disk };
}

function filled(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

function put(disk: SimDisk, offset: number, length: number, value: number): Promise<void> {
  return disk.write(byteOffset(offset), [filled(length, value)]);
}

function ascending(left: number, right: number): number {
  return left - right;
}

/** What is there after a cut, as one number per sector; -1 for a sector that is mixed. */
function sectors(disk: SimDisk, offset: number, length: number): number[] {
  const bytes = new Uint8Array(length);
  disk.platter.read(offset, bytes);
  const found: number[] = [];
  for (let at = 0; at < length; at += SECTOR) {
    const sector = bytes.subarray(at, at + SECTOR);
    found.push(sector.every((byte) => byte === sector[0]) ? (sector[0] ?? -1) : -1);
  }
  return found;
}

/** Runs `work` under many seeds, cuts the power at its end, and counts what is left. */
async function outcomes(
  seeds: number,
  work: (machine: Machine) => Promise<unknown>,
  look: (disk: SimDisk) => string,
): Promise<Map<string, number>> {
  const found = new Map<string, number>();
  for (let seed = 0; seed < seeds; seed++) {
    const parts = machine(seed);
    await parts.world.run(() => work(parts));
    parts.power.cut();
    const seen = look(parts.disk);
    found.set(seen, (found.get(seen) ?? 0) + 1);
  }
  return found;
}

describe('a power cut', () => {
  test('never takes what was synced', async () => {
    const work = async ({ disk }: Machine): Promise<void> => {
      await put(disk, 0, 8192, 1);
      await disk.sync('commit');
    };
    const found = await outcomes(100, work, (disk) => sectors(disk, 0, 8192).join(''));
    expect([...found.keys()]).toEqual(['1'.repeat(16)]);
  });

  test('keeps, loses or tears what was not, at sectors', async () => {
    const work = ({ disk }: Machine): Promise<void> => put(disk, 0, 8192, 1);
    const found = await outcomes(300, work, (disk) => sectors(disk, 0, 8192).join(''));
    expect(found.get('1'.repeat(16))).toBeGreaterThan(50);
    expect(found.get('0'.repeat(16))).toBeGreaterThan(50);
    expect([...found.keys()].every((seen) => /^[01]{16}$/.test(seen))).toBe(true);
    const torn = [...found.keys()].filter((seen) => /0/.test(seen) && /1/.test(seen));
    expect(torn.length).toBeGreaterThan(20);
    expect(torn.some((seen) => /^1+0+$/.test(seen))).toBe(true);
    expect(torn.some((seen) => /^0+1+/.test(seen))).toBe(true);
  });

  test('tears at sectors of the disk, though a write is not aligned', async () => {
    const work = async ({ disk }: Machine): Promise<void> => {
      await put(disk, 0, 4096, 1);
      await disk.sync('commit');
      await put(disk, 700, 1000, 2);
    };
    const found = await outcomes(1000, work, (disk) => {
      const bytes = new Uint8Array(4096);
      disk.platter.read(0, bytes);
      expect(bytes.every((byte, at) => byte === 1 || (at >= 700 && at < 1700))).toBe(true);
      // The parts of the write in its three sectors, each whole.
      const parts = [
        bytes.subarray(700, 1024),
        bytes.subarray(1024, 1536),
        bytes.subarray(1536, 1700),
      ];
      return parts.map((part) => (part.every((byte) => byte === part[0]) ? part[0] : 'x')).join('');
    });
    expect([...found.keys()].some((seen) => seen.includes('x'))).toBe(false);
    expect(found.size).toBe(8);
  });

  test('keeps a later write without an earlier one, and applies them in any order', async () => {
    const work = async ({ disk }: Machine): Promise<void> => {
      await put(disk, 0, SECTOR, 1);
      await put(disk, 4096, SECTOR, 1);
      await put(disk, 0, SECTOR, 2);
    };
    const look = (disk: SimDisk): string =>
      [...sectors(disk, 0, 1), ...sectors(disk, 4096, 1)].join('');
    const found = await outcomes(400, work, look);
    expect([...found.keys()].sort()).toEqual(['00', '01', '10', '11', '20', '21']);
  });

  test('loses punches as it loses writes', async () => {
    const work = async ({ disk }: Machine): Promise<void> => {
      await put(disk, 0, 4096, 1);
      await disk.sync('final');
      await disk.punch(byteOffset(0), byteCount(4096));
    };
    const found = await outcomes(300, work, (disk) => sectors(disk, 0, 4096).join(''));
    expect(found.get('1'.repeat(8))).toBeGreaterThan(50);
    expect(found.get('0'.repeat(8))).toBeGreaterThan(50);
    expect(found.size).toBeGreaterThan(10);
  });

  test('leaves a punch of a whole terabyte as cheap as it is', async () => {
    const world = new SimWorld(1);
    const power = new PowerSupply(world);
    const disk = SimDisk.create(power, { name: 'huge', size: 2 ** 40 });
    await world.run(async () => {
      await put(disk, 2 ** 39, 4096, 1);
      await disk.sync('final');
      await disk.punch(byteOffset(1), byteCount(2 ** 40 - 1));
      await disk.sync('final');
    });
    power.cut();
    expect(sectors(disk, 2 ** 39, 4096).join('')).toBe('00000000');
    expect(disk.platter.allocatedBytes).toBe(0);
  });

  test('may keep or lose what is in flight', async () => {
    const work = ({ disk, world }: Machine): Promise<void> => {
      put(disk, 0, SECTOR, 1).catch(() => undefined);
      return world.sleep(0);
    };
    const found = await outcomes(200, work, (disk) => sectors(disk, 0, SECTOR).join(''));
    expect([...found.keys()].sort()).toEqual(['0', '1']);
  });
});

describe('a sync', () => {
  test('does not cover what was in flight when it began', async () => {
    const found = await outcomes(
      300,
      async ({ disk }) => {
        const written = put(disk, 0, SECTOR, 1);
        await Promise.all([written, disk.sync('commit')]);
      },
      (disk) => sectors(disk, 0, SECTOR).join(''),
    );
    expect(found.get('0')).toBeGreaterThan(50);
    expect(found.get('1')).toBeGreaterThan(50);
  });

  test('does not cover what settled after it began', async () => {
    const found = await outcomes(
      300,
      async ({ disk, world }) => {
        const synced = disk.sync('commit');
        await put(disk, 0, SECTOR, 1);
        await synced;
        await world.sleep(1000);
      },
      (disk) => sectors(disk, 0, SECTOR).join(''),
    );
    expect(found.get('0')).toBeGreaterThan(50);
  });

  test('of one disk covers no other', async () => {
    const lost = new Set<number>();
    for (let seed = 0; seed < 50; seed++) {
      const { world, power, disk } = machine(seed);
      const other = SimDisk.create(power, { name: 'other', size: mebibytes(1) });
      await world.run(async () => {
        await put(disk, 0, SECTOR, 1);
        await other.sync('commit');
      });
      power.cut();
      lost.add(sectors(disk, 0, SECTOR)[0] ?? -1);
    }
    expect([...lost].sort(ascending)).toEqual([0, 1]);
  });

  test('left out is visible, and only that one', async () => {
    for (const [point, kept] of [
      ['commit', false],
      ['final', true],
    ] as const) {
      let losses = 0;
      for (let seed = 0; seed < 60; seed++) {
        const { world, power, disk } = machine(seed, ['commit']);
        await world.run(async () => {
          await put(disk, 0, SECTOR, 1);
          await disk.sync(point);
        });
        power.cut();
        if (sectors(disk, 0, SECTOR)[0] !== 1) losses += 1;
      }
      expect(losses > 0).toBe(!kept);
    }
  });

  test('that fails may have lost what it covered, though the next one succeeds', async () => {
    for (const evict of [false, true]) {
      const { world, power, disk } = machine(3);
      disk.failNextSync({ dropDirty: true, evict, point: 'final' });
      await world.run(async () => {
        await disk.sync('commit');
        await put(disk, 0, SECTOR, 1);
        await expect(disk.sync('final')).rejects.toMatchObject({ code: 'DEVICE_IO' });
        expect(sectors(disk, 0, SECTOR)).toEqual([evict ? 0 : 1]);
        await disk.sync('final');
      });
      power.cut();
      expect(sectors(disk, 0, SECTOR)).toEqual([0]);
    }
  });

  test('that fails and loses nothing is made good by the next', async () => {
    const { world, power, disk } = machine(3);
    disk.failNextSync({ dropDirty: false });
    await world.run(async () => {
      await put(disk, 0, SECTOR, 1);
      await expect(disk.sync('final')).rejects.toMatchObject({ code: 'DEVICE_IO' });
      await disk.sync('final');
    });
    power.cut();
    expect(sectors(disk, 0, SECTOR)).toEqual([1]);
  });
});

describe('a life', () => {
  test('that was killed leaves its writes, unsynced', async () => {
    const left = new Set<number>();
    for (let seed = 0; seed < 50; seed++) {
      const { world, power, disk } = machine(seed);
      await world.run(() => put(disk, 0, SECTOR, 1));
      power.kill();
      power.restore();
      const next = disk.reopen();
      await world.run(async () => {
        const bytes = new Uint8Array(1);
        await next.read(byteOffset(0), bytes);
        expect(bytes[0]).toBe(1);
      });
      if (seed % 2 === 0) await world.run(() => next.sync('recovery'));
      power.cut();
      const seen = sectors(disk, 0, SECTOR)[0] ?? -1;
      if (seed % 2 === 0) expect(seen).toBe(1);
      else left.add(seen);
    }
    expect([...left].sort(ascending)).toEqual([0, 1]);
  });

  test('that was killed in a write leaves none, all or a beginning of it', async () => {
    const found = new Set<string>();
    for (let seed = 0; seed < 200; seed++) {
      const { world, power, disk } = machine(seed);
      await world.run(async () => {
        put(disk, 0, 4096, 1).catch(() => undefined);
      });
      power.kill();
      found.add(sectors(disk, 0, 4096).join(''));
    }
    expect([...found].every((seen) => /^1*0*$/.test(seen))).toBe(true);
    expect(found.size).toBe(9);
  });

  for (const afterLoss of ['hang', 'reject'] as const) {
    test(`that ended changes nothing any more (${afterLoss})`, async () => {
      const { world, power, disk } = machine(5, [], { afterLoss });
      const settled: string[] = [];
      const listen = (name: string, work: Promise<void>): void => {
        work.then(
          () => settled.push(`${name} done`),
          (error: unknown) => settled.push(`${name} ${String(error)}`),
        );
      };
      let fired = false;
      await world.run(async () => {
        listen('before', put(disk, 0, SECTOR, 1));
        power.life.timers.after(1, () => {
          fired = true;
        });
      });
      const { timers } = power.life;
      power.cut();
      const after = sectors(disk, 0, 8192).join('');
      const writes = disk.counters.writes;
      listen('write', put(disk, 4096, SECTOR, 1));
      listen('sync', disk.sync('commit'));
      listen('read', disk.read(byteOffset(0), new Uint8Array(1)));
      timers.after(1, () => {
        fired = true;
      });
      power.restore();
      listen('later', put(disk, 4096, SECTOR, 1));
      await world.runFor(100_000);
      expect(fired).toBe(false);
      expect(sectors(disk, 0, 8192).join('')).toBe(after);
      expect(disk.counters.writes).toBe(writes);
      if (afterLoss === 'hang') expect(settled).toEqual([]);
      else expect(settled.filter((text) => text.includes('gone'))).toHaveLength(5);
    });
  }

  test('ends at the planned operation of any of its disks, for all at one instant', async () => {
    const ends = new Set<number>();
    for (let seed = 0; seed < 40; seed++) {
      const { world, power, disk } = machine(seed);
      const other = SimDisk.create(power, { name: 'other', size: mebibytes(1) });
      power.plan({ loss: 'cut', afterOperations: 10 });
      let answered = 0;
      const end = await power.runLife(async () => {
        for (;;) {
          await put(disk, answered * SECTOR, SECTOR, 1);
          answered += 1;
          await put(other, answered * SECTOR, SECTOR, 1);
          answered += 1;
        }
      });
      expect(end).toEqual({ kind: 'lost', loss: 'cut' });
      expect(power.operations).toBeGreaterThanOrEqual(10);
      expect(power.alive).toBe(false);
      ends.add(answered);
      await world.settle();
      expect(disk.platter.pendingCount + other.platter.pendingCount).toBe(0);
    }
    // The tenth is in flight: nine are answered, or a few more when the cut comes a bit later.
    expect(Math.min(...ends)).toBe(9);
  });

  test('ends at a planned time, not before and not after its work', async () => {
    const { world, power } = machine(1);
    power.plan({ loss: 'kill', afterUs: 500 });
    const early = await power.runLife(() => world.sleep(499).then(() => 'in time'));
    expect(early).toEqual({ kind: 'done', value: 'in time' });
    expect(await power.runLife(() => world.sleep(2))).toEqual({ kind: 'lost', loss: 'kill' });
    expect(world.nowUs).toBe(500);
    power.restore();
    expect(await power.runLife(() => world.sleep(2000))).toMatchObject({ kind: 'done' });
  });

  test('passes on an error of its work, unless it has ended', async () => {
    const { power } = machine(1);
    await expect(power.runLife(() => Promise.reject(new Error('no')))).rejects.toThrow('no');
    const lost = await power.runLife(() => {
      power.cut();
      return Promise.reject(new Error('no'));
    });
    expect(lost).toEqual({ kind: 'lost', loss: 'cut' });
  });
});

describe('faults', () => {
  test('bit rot is there at once, and after a cut', async () => {
    const { world, power, disk } = machine(1);
    await world.run(async () => {
      await put(disk, 0, 4096, 1);
      await disk.sync('commit');
    });
    disk.corruptBit(100, 7);
    disk.corrupt(4095, Uint8Array.of(9, 9));
    for (const look of ['read', 'readDurable'] as const) {
      const bytes = new Uint8Array(4097);
      disk.platter[look](0, bytes);
      expect([bytes[99], bytes[100], bytes[4095], bytes[4096]]).toEqual([1, 129, 9, 9]);
    }
    power.cut();
    expect(sectors(disk, 4096, 1)).toEqual([9]);
  });

  test('reads and writes fail in their range, until they are mended', async () => {
    const { world, disk } = machine(1);
    const mendRead = disk.failRead({ offset: 4096, length: 1 });
    const mendWrite = disk.failWrite({ offset: 0, length: 10 });
    const target = filled(4097, 5);
    await world.run(async () => {
      const failed = { code: 'DEVICE_IO' };
      await expect(disk.read(byteOffset(0), target)).rejects.toMatchObject(failed);
      expect(target.every((byte) => byte === 0xdb)).toBe(true);
      await disk.read(byteOffset(0), target.subarray(1));
      await expect(put(disk, 9, 1, 1)).rejects.toMatchObject(failed);
      await put(disk, 10, 1, 1);
      mendRead();
      mendWrite();
      await disk.read(byteOffset(0), target);
      await put(disk, 9, 1, 1);
    });
  });

  test('a full disk takes overwrites, and nothing new', async () => {
    const { world, disk } = machine(1);
    await world.run(async () => {
      await put(disk, 0, 8192, 1);
      disk.limitSpace(12_288);
      await put(disk, 100, 8192, 2);
      await expect(put(disk, 12_288, 1, 1)).rejects.toMatchObject({ code: 'DISK_FULL' });
      await disk.punch(byteOffset(0), byteCount(4096));
      await put(disk, 12_288, 1, 1);
      disk.setFull(true);
      await put(disk, 4096, 4096, 3);
      await expect(put(disk, 0, 1, 1)).rejects.toMatchObject({ code: 'DISK_FULL' });
      disk.setFull(false);
      await put(disk, 0, 1, 1);
    });
  });

  test('a buffer that changes while it is borrowed is reported', async () => {
    for (let seed = 0; seed < 10; seed++) {
      const { world, disk } = machine(seed);
      const source = filled(100, 1);
      const written = world.run(async () => {
        const writing = disk.write(byteOffset(0), [source]);
        source[50] = 2;
        await writing;
      });
      await expect(written).rejects.toThrow(/keeps its content/);
    }
  });

  test('a write to a disk opened to be read is a bug', async () => {
    const { world, disk } = machine(1);
    const options: ReopenOptions = { readOnly: true };
    await expect(world.run(() => put(disk.reopen(options), 0, 1, 1))).rejects.toThrow(/to be read/);
  });

  test('writes that overlap in flight are counted', async () => {
    const { world, disk } = machine(1);
    await world.run(() =>
      Promise.all([put(disk, 0, 10, 1), put(disk, 9, 1, 2), put(disk, 10, 1, 2)]),
    );
    expect(disk.counters.overlaps).toBe(1);
    expect(disk.counters).toMatchObject({ writes: 3, bytesWritten: 12, reads: 0 });
  });
});

describe('a copy', () => {
  test('is a disk of its own, pending changes included', async () => {
    const { world, power, disk } = machine(1);
    await world.run(async () => {
      await put(disk, 0, 4096, 1);
      await disk.sync('commit');
      await put(disk, 4096, 4096, 1);
    });
    const copy = disk.copy(power, { name: 'copy' });
    expect(copy.platter.contentChecksum()).toBe(disk.platter.contentChecksum());
    expect(copy.platter.pendingCount).toBe(1);
    await world.run(() => put(copy, 0, 4096, 2));
    expect(sectors(disk, 0, SECTOR)).toEqual([1]);
    expect(copy.platter.contentChecksum()).not.toBe(disk.platter.contentChecksum());
  });
});
