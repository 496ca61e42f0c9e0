/** An undo device that refuses something: snapshots may have to wait for it, the live disk does not. */
import { expect, test, vi } from 'vitest';
import { isVarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount, byteOffset, kibibytes } from '../../src/base/units.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { SimDisk } from '../sim/sim-disk.ts';
import { Bench, blocksOf, holds, pushRounds, put } from './bench.ts';

const SIZE = byteCount(1000 * BLOCK_BYTES);
const WIDE = byteCount(2000 * BLOCK_BYTES);
const OLD = blocksOf(1, 10);
const NEW = blocksOf(2, 10);

/** What a snapshot sees is replaced. */
async function replaceUnderSnapshot(volume: Volume): Promise<void> {
  await put(volume, 500, OLD);
  await volume.createSnapshot('first');
  await put(volume, 500, NEW);
}

// The opening cleared what a crash may have left there, and was refused for ever by one bad place.
test.each([
  ['at the end of it', (size: number) => ({ offset: size - BLOCK_BYTES, length: BLOCK_BYTES })],
  ['all over it', (size: number) => ({ offset: 0, length: size })],
])('a volume opens though its undo device refuses writes, %s', async (_, place) => {
  const bench = await Bench.create(3, { size: SIZE });
  await bench.lose('cut', async (volume) => {
    await replaceUnderSnapshot(volume);
    await pushRounds(volume, 3);
    await volume.live().flush();
  });
  const { undo } = bench.sim;
  undo.failWrite(place(undo.size));
  await bench.use(async (volume) => {
    expect(await holds(volume.live(), 500, [NEW])).toBe(0);
    const moment = volume.openMoment(await volume.resolve('first'));
    expect(await holds(moment, 500, [OLD])).toBe(0);
    await moment.close();
  });
});

// A superblock that named more slots than there are made an opening look behind the device's end.
test('an undo device that lost its end is refused', async () => {
  const bench = await Bench.create(3, { size: SIZE });
  await bench.use(async (volume) => {
    await replaceUnderSnapshot(volume);
    await pushRounds(volume, 3);
  });
  const { sim } = bench;
  const undo = SimDisk.create(sim.power, { name: 'undo', size: kibibytes(64) });
  vi.spyOn(sim, 'devices').mockReturnValue({ ...sim.devices(), undo });
  const error = await bench.openError();
  expect([error.code, error.message]).toEqual(['VOLUME_FOREIGN', expect.stringContaining('undo')]);
});

// One bad place in a part that holds nothing: rounds that keep something need others, and go on.
test('rounds keep what snapshots need though a free place can not be cleared', async () => {
  const bench = await Bench.create(3, { size: SIZE });
  await bench.lose('kill', async (volume) => {
    await pushRounds(volume, 1);
  });
  const { undo } = bench.sim;
  undo.failWrite({ offset: undo.size - BLOCK_BYTES, length: BLOCK_BYTES });
  await bench.use(async (volume) => {
    await replaceUnderSnapshot(volume);
    await pushRounds(volume, 3);
    const moment = volume.openMoment(await volume.resolve('first'));
    expect(await holds(moment, 500, [OLD])).toBe(0);
    await moment.close();
  });
});

// A slot that takes no write was tried again by every round, here and after each opening: writers were
// refused for good, though all others were free.
test('rounds pass over a place that takes no write, in this life and the next', async () => {
  const bench = await Bench.create(3, { size: SIZE });
  const write = async (volume: Volume, from: number): Promise<void> => {
    for (let i = from; i < from + 300; i++) await put(volume, 510 + (i % 40), blocksOf(100 + i));
    await volume.live().flush();
  };
  const looked = async (volume: Volume): Promise<void> => {
    const moment = volume.openMoment(await volume.resolve('first'));
    expect(await holds(moment, 500, [OLD])).toBe(0);
    await moment.close();
    await volume.core.collected();
    await volume.core.home.run(() => volume.core.undo.check());
  };
  bench.sim.undo.failWrite({ offset: kibibytes(64) + 5 * BLOCK_BYTES, length: BLOCK_BYTES });
  await bench.lose('kill', async (volume) => {
    await replaceUnderSnapshot(volume);
    await write(volume, 0);
    expect(volume.core.counters.rounds).toBeGreaterThan(3);
    await looked(volume);
  });
  for (const from of [300, 600]) {
    await bench.use(async (volume) => {
      const label = `later-${from}`;
      await volume.createSnapshot(label);
      await write(volume, from);
      expect(volume.core.counters.rounds).toBeGreaterThan(3);
      await looked(volume);
      await volume.deleteSnapshot(label);
    });
  }
});

// A power cut took clearing back after numbers of segments had been given again because of it.
test('an opening after a crash makes durable what it clears', async () => {
  const bench = await Bench.create(3, { size: SIZE });
  const syncs = (): number => bench.sim.undo.counters.syncsBy.get('undo') ?? 0;
  await bench.lose('kill', (volume) => pushRounds(volume, 1));
  const before = syncs();
  await bench.lose('kill', async () => {
    expect(syncs()).toBe(before + 1);
  });
});

// The round had put all of it again, and reads were right; but what the sync had taken stayed stated:
// whoever looked at its headers told of damage until a restart.
test.each([
  ['forgets them', false],
  ['forgets and evicts them', true],
])('a sync that fails once leaves nothing behind, when the page cache %s', async (_, evict) => {
  const bench = await Bench.create(3, { size: SIZE });
  await bench.use(async (volume) => {
    await replaceUnderSnapshot(volume);
    const [snapshot] = volume.snapshots();
    if (snapshot === undefined) throw new Error('there is one');
    bench.sim.undo.failNextSync({ dropDirty: true, evict, point: 'undo' });
    await pushRounds(volume, 4);
    expect(volume.core.undo.held).toMatchObject({ bytes: OLD.length });
    const moment = volume.openMoment(snapshot);
    expect(await holds(moment, 500, [OLD])).toBe(0);
    await moment.close();
    const { ranges } = await volume.past.changed({
      from: snapshot.generation,
      to: volume.core.head,
      offset: byteOffset(500 * BLOCK_BYTES),
      rangesMax: 1,
    });
    expect(ranges).toMatchObject([{ length: OLD.length }]);
    const { damages } = await volume.scrub({ bytesPerSecond: 0, progress: () => undefined });
    expect(damages).toEqual([]);
    await volume.core.undo.check();
  });
  // Nor is it there twice at the next opening.
  await bench.use(async (volume) => {
    expect(volume.core.undo.held).toMatchObject({ bytes: OLD.length });
  });
});

// What a round had put lay in slots of which the superblock did not know. The end was in order, so
// that nobody cleared them either.
test('slots of a round that came to nothing are known after an end in order', async () => {
  const bench = await Bench.create(3, { size: SIZE });
  const used = await bench.use(async (volume) => {
    await replaceUnderSnapshot(volume);
    bench.sim.undo.limitSpace(kibibytes(16));
    await expect(pushRounds(volume, 1)).rejects.toMatchObject({ code: 'DISK_FULL' });
    return volume.core.undo.slotsUsed;
  });
  bench.sim.undo.limitSpace(undefined);
  expect(used).toBeGreaterThan(0);
  await bench.use(async (volume) => {
    expect(volume.core.recovery.clean).toBe(true);
    expect(volume.core.undo.slotsUsed).toBe(used);
  });
});

// Bad places counted as free: a full device was never told as full, nothing was let go for it, and
// writers were refused for good.
test.each([
  ['no bad place', []],
  ['two bad places', [5, 9]],
  ['three bad places', [5, 9, 11]],
])('open moments end where the undo device is full, with %s', async (_, bad) => {
  const slotBytes = kibibytes(64);
  const undoBytes = byteCount(slotBytes + 16 * slotBytes);
  const { world, sim, power } = await Bench.create(3, { size: WIDE, undoBytes });
  for (const slot of bad) {
    sim.undo.failWrite({ offset: (1 + slot) * slotBytes, length: BLOCK_BYTES });
  }
  await world.run(async () => {
    const volume = await sim.open(power.life);
    for (let block = 0; block < 1200; block++) await put(volume, block, blocksOf(1 + block));
    await volume.live().flush();
    const moment = volume.openMoment({ generation: volume.core.head });
    let refused = 0;
    for (let block = 0; block < 1200; block++) {
      try {
        await put(volume, block, blocksOf(3000 + block));
      } catch (error) {
        if (!isVarveError(error)) throw error;
        refused += 1;
        await world.sleep(2_000_000);
      }
    }
    expect(refused).toBeLessThan(10);
    const target = new Uint8Array(BLOCK_BYTES);
    await expect(async () => moment.read(byteOffset(0), target)).rejects.toMatchObject({
      code: 'MOMENT_GONE',
    });
    await moment.close();
    await volume.close();
  });
});

test('a device that takes no write at all is not told as full', async () => {
  const { world, sim, power } = await Bench.create(3, { size: WIDE });
  await world.run(async () => {
    const volume = await sim.open(power.life);
    await replaceUnderSnapshot(volume);
    const mend = sim.undo.failWrite({ offset: 0, length: sim.undo.size });
    const refused = new Set<string>();
    for (let i = 0; refused.size === 0 || i < 40; i++) {
      try {
        await put(volume, i % 40, blocksOf(i));
      } catch (error) {
        if (!isVarveError(error)) throw error;
        refused.add(error.code);
        await world.sleep(2_000_000);
      }
    }
    expect([...refused]).toEqual(['DEVICE_IO']);
    mend();
    await world.sleep(5_000_000);
    await pushRounds(volume, 1);
    const moment = volume.openMoment(await volume.resolve('first'));
    expect(await holds(moment, 500, [OLD])).toBe(0);
    await moment.close();
    await volume.close();
  });
});

// All that an outage had refused counted as bad once one write was done, and the next outage as a full
// device: the open moment ended for it.
test('two outages are no full device', async () => {
  const slotBytes = kibibytes(64);
  const bench = await Bench.create(3, {
    size: SIZE,
    slots: 24,
    undoBytes: byteCount(4 * slotBytes),
  });
  const { world, sim } = bench;
  await bench.use(async (volume) => {
    const outage = async (first: number): Promise<void> => {
      const all = { offset: 0, length: sim.undo.size };
      const mends = [sim.undo.failWrite(all), sim.undo.failRead(all)];
      await put(volume, first, blocksOf(2, 10));
      for (let i = 0; i < 250; i++) {
        const writing = put(volume, 850 + (i % 10), blocksOf(500 + i)).catch(() => undefined);
        await Promise.race([writing, world.sleep(50_000)]);
      }
      await world.sleep(1_500_000);
      for (const mend of mends) mend();
      await world.sleep(3_000_000);
    };
    await put(volume, 500, blocksOf(1, 12));
    await put(volume, 512, blocksOf(1, 12));
    await pushRounds(volume, 2, 850, 10);
    const moment = volume.openMoment({ generation: volume.core.head });
    await outage(500);
    await outage(510);
    expect(await holds(moment, 500, [blocksOf(1, 10)])).toBe(0);
    await moment.close();
  });
});
