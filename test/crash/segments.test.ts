/** Segments and their ends: footers, headers and batches that are not where they should be. */
import { describe, expect, test } from 'vitest';
import { BLOCK_BYTES, byteCount, byteOffset, lsn, mebibytes, slot } from '../../src/base/units.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { decodeBatch, endOf } from '../../log/batch.ts';
import { uuidBytes } from '../../src/base/identity.ts';
import { slotOffset } from '../../log/geometry.ts';
import { Bench, blocksOf, get, holds, put, unreadable, withWriteHook } from './bench.ts';

const NO = { fua: false };

async function trims(volume: Volume, count: number): Promise<void> {
  const live = volume.live();
  for (let i = 0; i < count; i++) {
    await live.trim(byteOffset(50 * BLOCK_BYTES), byteCount(BLOCK_BYTES), NO);
  }
}

describe('a segment that gave up its summary is full to the end of its slot', () => {
  test('its last block, data, survives a clean close and an opening', async () => {
    // The opening erased a footer that was not there.
    const bench = await Bench.create(1);
    await bench.use(async (volume) => {
      await trims(volume, 300);
      for (let i = 0; i < 12; i++) await put(volume, i, blocksOf(i));
      await volume.live().flush();
      const [segment] = volume.core.log.segments.live;
      expect(volume.core.log.segments.live).toHaveLength(1);
      expect(volume.core.log.stream.nextLsn - (segment?.firstLsn ?? 0)).toBe(15 * BLOCK_BYTES);
    });
    for (let opening = 0; opening < 2; opening++) {
      await bench.use(async (volume) => {
        for (let i = 0; i < 12; i++) expect(await holds(volume.live(), i, [blocksOf(i)])).toBe(0);
      });
    }
  });

  test('its last block, a batch header, survives as well', async () => {
    const bench = await Bench.create(2);
    const head = await bench.use(async (volume) => {
      await trims(volume, 300);
      for (let i = 0; i < 11; i++) await put(volume, i, blocksOf(i));
      volume.core.log.stream.seal();
      await trims(volume, 3);
      expect(volume.core.log.stream.nextLsn).toBe(15 * BLOCK_BYTES);
      return volume.core.head;
    });
    for (let opening = 0; opening < 2; opening++) {
      await bench.use(async (volume) => {
        expect(volume.core.head).toBe(head);
        expect(volume.core.recovery.clean).toBe(true);
        for (let i = 0; i < 11; i++) expect(await holds(volume.live(), i, [blocksOf(i)])).toBe(0);
      });
    }
  });
});

/** The last batch header of a slot, by its place on the log device. */
function lastHeader(bench: Bench, of: number): number {
  const { sim } = bench;
  const start = slotOffset(sim.geometry, slot(of));
  const volume = uuidBytes(sim.uuid);
  let last = 0;
  for (let at = start + BLOCK_BYTES; at < start + sim.geometry.segmentBytes;) {
    const bytes = new Uint8Array(BLOCK_BYTES);
    sim.log.platter.read(at, bytes);
    const batch = decodeBatch(bytes, volume);
    if (batch === undefined) break;
    last = at;
    at += endOf(batch) - batch.header.lsn;
  }
  return last;
}

describe('a batch that is known from a summary alone', () => {
  test('is not believed above what was durable, and so is not lost by the next opening', async () => {
    // It was taken from the summary, the summary was erased, and the volume never opened again.
    const bench = await Bench.create(3);
    await bench.lose('kill', async (volume) => {
      const { log } = volume.core;
      for (let i = 0; log.segments.live.length < 2; i++) {
        await put(volume, i, blocksOf(i));
        log.stream.seal();
      }
      log.stream.seal();
      await log.writer.waitWritten(log.stream.nextLsn);
      expect(log.writer.durable.lsn).toBe(0);
    });
    const zeros = new Uint8Array(BLOCK_BYTES);
    bench.sim.log.corrupt(slotOffset(bench.sim.geometry, slot(1)), zeros);
    bench.sim.log.corrupt(lastHeader(bench, 0), zeros);
    const kept = await bench.use(async (volume) => {
      const { head } = volume.core;
      await put(volume, 90, blocksOf(90), true);
      return head;
    });
    expect(kept).toBeGreaterThan(2);
    await bench.use(async (volume) => {
      expect(volume.core.head).toBe(kept + 1);
      expect(volume.core.recovery.clean).toBe(true);
      for (let i = 0; i < kept; i++) expect(await holds(volume.live(), i, [blocksOf(i)])).toBe(0);
      expect(await holds(volume.live(), 90, [blocksOf(90)])).toBe(0);
      expect(await unreadable(volume.live(), 0, 96)).toEqual(new Map());
    });
  });
});

describe('the header of the newest segment', () => {
  test('rotten, it does not take flushed history with it: that is damage', async () => {
    const bench = await Bench.create(4);
    await bench.lose('cut', async (volume) => {
      for (let i = 0; i < 3; i++) {
        await put(volume, i, blocksOf(i));
        await volume.live().flush();
      }
      // Long enough for a batch that states what was flushed.
      await bench.world.sleep(100_000);
    });
    bench.sim.log.corruptBit(slotOffset(bench.sim.geometry, slot(0)) + 44, 2);
    const before = bench.sim.log.platter.contentChecksum();
    expect((await bench.openError()).code).toBe('VOLUME_CORRUPT');
    expect(bench.sim.log.platter.contentChecksum()).toBe(before);
  });
});

describe('what is stated durable', () => {
  test('is never half a batch, though a sync fell between two writes of the log', async () => {
    // The horizon's superblock stated a position inside a batch, whose rest the cut took.
    const bench = await Bench.create(5, {
      size: mebibytes(16),
      segmentBytes: mebibytes(16),
      slots: 6,
      requestBytesMax: mebibytes(16),
      ringBytes: mebibytes(32),
    });
    const { sim, power, world } = bench;
    const devices = sim.devices.bind(sim);
    let writes = 0;
    await world.run(async () => {
      const plain = devices();
      const never = new Promise<void>(() => {
        // The second large write stays in the queue of the device.
      });
      const log = withWriteHook(plain.log, async (_, length) => {
        if (length > mebibytes(1) && ++writes === 2) await never;
      });
      sim.devices = () => ({ ...plain, log });
      const volume = await sim.open(power.life);
      sim.devices = devices;
      const first = put(volume, 0, blocksOf(7), true);
      void put(volume, 1, blocksOf(8, 3072));
      await first;
      expect(volume.core.log.writer.durable.lsn).toBeGreaterThan(mebibytes(6));
      await volume.core.log.publish({}, 'horizon');
    });
    expect(writes).toBe(2);
    power.cut();
    power.restore();
    await bench.use(async (volume) => {
      expect(volume.core.head).toBe(1);
      expect(await holds(volume.live(), 0, [blocksOf(7)])).toBe(0);
      expect((await get(volume.live(), 1, 3072)).every((byte) => byte === 0)).toBe(true);
    });
  });
});

describe('what a cut left behind the end', () => {
  test.each([
    ['is reported once, and not again after a clean close', 0],
    ['is not reported again though the clock was set back meanwhile', -3_600_000_000],
  ])('%s', async (_, jumpUs) => {
    // Each opening met the old batches in the slot, and reported a new cut.
    const bench = await Bench.create(6);
    await bench.lose('kill', async (volume) => {
      const { log } = volume.core;
      await put(volume, 0, blocksOf(0), true);
      for (let i = 1; i < 6; i++) {
        await put(volume, i, blocksOf(i));
        log.stream.seal();
      }
      await log.writer.waitWritten(log.stream.nextLsn);
    });
    // The first batch that nobody was promised; those behind it stay.
    const lost = slotOffset(bench.sim.geometry, slot(0)) + 4 * BLOCK_BYTES;
    bench.sim.log.corruptBit(lost + 20, 0);
    bench.world.jumpWall(jumpUs);
    await bench.use(async (volume) => {
      expect(volume.core.recovery.cut).toMatchObject({ lsn: lsn(3 * BLOCK_BYTES), generation: 1 });
    });
    for (let opening = 0; opening < 3; opening++) {
      await bench.use(async (volume) => {
        expect(volume.core.recovery).toMatchObject({ clean: true, cut: undefined });
        if (opening === 1) await put(volume, 20, blocksOf(20));
      });
    }
  });
});
