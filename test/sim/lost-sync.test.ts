/**
 * The proof by mutation, on a program small enough to be read at once: a page is written ahead to
 * a log, then home, then the log is emptied. Its first two syncs are needed: with either left out
 * some power cut is found that breaks it. With all of them none is, nor without the third, which
 * nothing rests on: what is still in the log is at home too.
 */
import { describe, expect, test } from 'vitest';
import { byteOffset, mebibytes } from '../../src/base/units.ts';
import type { LowerDevice, SyncPoint } from '../../src/device/lower-device.ts';
import { PowerSupply } from './power-supply.ts';
import { SimDisk } from './sim-disk.ts';
import { SimWorld } from './sim-world.ts';

const PAGE = 4096;
const POINTS_NEEDED: readonly SyncPoint[] = ['commit', 'final'];

/** Each page of a value is that number throughout, with an end mark in the log. */
async function putValue(log: LowerDevice, home: LowerDevice, value: number): Promise<void> {
  const page = new Uint8Array(2 * PAGE).fill(value);
  await log.write(byteOffset(0), [page]);
  await log.sync('commit');
  await home.write(byteOffset(0), [page]);
  await home.sync('final');
  await log.write(byteOffset(0), [new Uint8Array(2 * PAGE)]);
  await log.sync('settled');
}

async function readPage(device: LowerDevice): Promise<number | 'torn'> {
  const page = new Uint8Array(2 * PAGE);
  await device.read(byteOffset(0), page);
  const [first = 0] = page;
  return page.every((byte) => byte === first) ? first : 'torn';
}

/** Redo from the log, if it holds a whole page. */
async function recover(log: LowerDevice, home: LowerDevice): Promise<number | 'torn'> {
  const logged = await readPage(log);
  if (logged === 'torn' || logged === 0) return readPage(home);
  await home.write(byteOffset(0), [new Uint8Array(2 * PAGE).fill(logged)]);
  await home.sync('final');
  return logged;
}

/** One run: values go up until the power is cut; what recovery finds must be the last or next. */
async function holds(seed: number, skipSyncs: ReadonlySet<SyncPoint>): Promise<boolean> {
  const world = new SimWorld(seed);
  const power = new PowerSupply(world);
  const size = mebibytes(1);
  const log = SimDisk.create(power, { name: 'log', size, skipSyncs });
  const home = SimDisk.create(power, { name: 'home', size, skipSyncs });
  let done = 0;
  power.plan({ loss: 'cut', afterOperations: 1 + world.random.below(40) });
  await power.runLife(async () => {
    for (;;) {
      await putValue(log, home, done + 1);
      done += 1;
    }
  });
  power.restore();
  const found = await world.run(() => recover(log.reopen(), home.reopen()));
  return found === done || found === done + 1;
}

async function failures(skipSyncs: readonly SyncPoint[]): Promise<number> {
  let count = 0;
  for (let seed = 0; seed < 300; seed++) {
    if (!(await holds(seed, new Set(skipSyncs)))) count += 1;
  }
  return count;
}

describe('a small write-ahead log', () => {
  test('holds through 300 power cuts', async () => {
    expect(await failures([])).toBe(0);
  });

  test('holds through them without a sync that it does not need', async () => {
    expect(await failures(['settled'])).toBe(0);
  });

  for (const point of POINTS_NEEDED) {
    test(`is broken by some of them without its sync '${point}'`, async () => {
      expect(await failures([point])).toBeGreaterThan(0);
    });
  }
});
