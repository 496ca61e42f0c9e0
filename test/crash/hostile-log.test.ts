/** Logs that a good checksum does not make good: what they say is looked at before it is used. */
import { describe, expect, test } from 'vitest';
import { uuidBytes } from '../../src/base/identity.ts';
import {
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  checksum,
  generation,
  lsn,
  micros,
  segmentSequence,
  slot,
} from '../../src/base/units.ts';
import { BATCH_PREFIX_BYTES, batchEntry, COUNT_END, superblock } from '../../src/format/layouts.ts';
import { encode, decode, offsetOf, writeU48, viewOf } from '../../src/format/record.ts';
import { sealBatch, decodeBatch } from '../../log/batch.ts';
import { slotOffset } from '../../log/geometry.ts';
import { reseal } from '../../fuzz/format/mutation.ts';
import { Bench, blocksOf, holds, put } from './bench.ts';

function readLog(bench: Bench, at: number, length = BLOCK_BYTES): Uint8Array {
  const bytes = new Uint8Array(length);
  bench.sim.log.platter.read(at, bytes);
  return bytes;
}

/** Both superblocks with other values, sealed. */
function rewriteSuperblocks(bench: Bench, changes: Readonly<Record<string, number>>): void {
  for (const at of [0, 8 * BLOCK_BYTES]) {
    const bytes = readLog(bench, at);
    const values = decode(superblock, bytes);
    expect(values).toBeDefined();
    encode(superblock, { ...values, ...changes }, bytes);
    reseal(bytes, superblock.size);
    bench.sim.log.corrupt(at, bytes);
  }
}

describe('a superblock with a good checksum', () => {
  // Found by log-bytes: sizes were believed, and a read got a negative length.
  test.each([
    { segment_bytes: 0 },
    { segment_bytes: 12_345 },
    { segment_bytes: 2 ** 40 },
    { slot_count: 2 ** 32 - 1 },
    { checkpoint_bytes: 2 ** 52 },
    { log_bytes: 2 ** 53 - 1 },
    { log_bytes: 4096 },
    { request_bytes_max: 0 },
    { request_bytes_max: 2 ** 31 },
    { tail_lsn: 17 },
    { tail_lsn: 2 ** 53 - 4096 },
    { sequence: 2 ** 53 - 1 },
    { durable: 2 ** 53 - 1 },
    { settled: 2 ** 40 },
    { horizon: 2 ** 40 },
    { clean: 2 },
    { checkpoint_area: 255 },
  ])('is not believed when it says %o', async (changes) => {
    const bench = await Bench.create(1);
    await bench.use((volume) => put(volume, 3, blocksOf(1)));
    rewriteSuperblocks(bench, changes);
    expect((await bench.openError()).code).toBe('VOLUME_CORRUPT');
  });
});

describe('a batch with a good checksum', () => {
  // Found by log-bytes: the index was asked to hold a range that no volume has.
  test.each([
    ['begins beyond the volume', 1000, 1],
    ['ends beyond the volume', 2, 10_000],
    ['has no blocks', 2, 0],
  ])('is not believed when its range %s', async (_, first, count) => {
    const bench = await Bench.create(1);
    await bench.use(async (volume) => {
      await volume.live().trim(byteOffset(2 * BLOCK_BYTES), byteCount(8192), { fua: true });
    });
    const { geometry, uuid } = bench.sim;
    const start = slotOffset(geometry, slot(0)) + BLOCK_BYTES;
    let isChanged = false;
    // The trim stands in the second batch: the first holds the record of the lineage.
    for (let at = start; at < start + 4 * BLOCK_BYTES && !isChanged; at += BLOCK_BYTES) {
      const bytes = readLog(bench, at);
      const batch = decodeBatch(bytes, uuidBytes(uuid));
      if (batch === undefined) continue;
      const view = viewOf(bytes);
      for (let i = 0; i < batch.header.entryCount; i += 1) {
        const entry = BATCH_PREFIX_BYTES + i * batchEntry.size;
        if (view.getUint8(entry + offsetOf(batchEntry, 'kind')) !== 2) continue;
        writeU48(view, entry, first);
        view.setUint32(entry + offsetOf(batchEntry, 'value'), count, true);
        isChanged = true;
      }
      if (!isChanged) continue;
      sealBatch(bytes, uuid, batch.header);
      bench.sim.log.corrupt(at, bytes);
    }
    expect(isChanged).toBe(true);
    expect((await bench.openError()).code).toBe('VOLUME_CORRUPT');
  });
});

describe('a mark or snapshot', () => {
  // Found by log-bytes: it was refused with LOG_FULL while rounds were about to free the log.
  test('waits for room as a write does', async () => {
    for (let seed = 1; seed < 4; seed += 1) {
      const bench = await Bench.create(seed, { slots: 9 });
      await bench.use(async (volume) => {
        for (let i = 0; i < 30; i += 1) {
          const writes = Array.from({ length: 12 }, (_, at) => put(volume, at * 4, blocksOf(i, 4)));
          await Promise.all([...writes, volume.mark(`mark-${i}`)]);
          await volume.createSnapshot('short');
          await volume.deleteSnapshot('short');
        }
      });
    }
  });
});

describe('what a client writes', () => {
  test.each([
    { segment: 1_000_000, lsn: 2 ** 40, durableLsn: 2 ** 40 },
    { segment: COUNT_END - 1, lsn: 2 ** 30, durableLsn: 0 },
  ])('is no batch header, though it looks like one: %o', async (forged) => {
    // It was found behind a slot's header and believed: nothing opened, or no sequence was left.
    const bench = await Bench.create(21);
    const block = new Uint8Array(BLOCK_BYTES);
    sealBatch(block, bench.sim.uuid, {
      entryCount: 0,
      lineage: bench.sim.uuid,
      segment: segmentSequence(forged.segment),
      lsn: lsn(forged.lsn),
      generation: generation(1),
      wallUs: micros(1),
      elapsedUs: micros(1),
      durable: generation(1),
      durableLsn: lsn(forged.durableLsn),
      chain: checksum(0),
      payloadBlocks: 0,
    });
    await bench.lose('cut', async (volume) => {
      const until = volume.core.counters.rounds + 2;
      for (let i = 0; volume.core.counters.rounds < until; i++) {
        await put(volume, i % 8, block, i % 4 === 3);
      }
      await put(volume, 9, blocksOf(1), true);
    });
    for (let life = 1; life <= 3; life++) {
      await bench.lose('cut', async (volume) => {
        expect(await holds(volume.live(), 9, [blocksOf(life)])).toBe(0);
        for (let i = 0; i < 30; i++) await put(volume, 10 + (i % 8), blocksOf(900 + i), true);
        await put(volume, 9, blocksOf(life + 1), true);
      });
    }
  });
});
