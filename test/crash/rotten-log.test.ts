/** Stories of logs of which a part rotted between two lives, beside what a cut took. */
import { describe, expect, test } from 'vitest';
import { uuidBytes } from '../../src/base/identity.ts';
import { BLOCK_BYTES, kibibytes, slot } from '../../src/base/units.ts';
import { SUPERBLOCK_BLOCKS } from '../../src/format/layouts.ts';
import { decodeBatch } from '../../log/batch.ts';
import { slotOffset } from '../../log/geometry.ts';
import { decodeSegmentHeader } from '../../log/summary.ts';
import { decodeSuperblock } from '../../log/superblock.ts';
import { Bench, blocksOf, get, put, unreadable } from './bench.ts';
import { batchesOn, dataOf, logBlock } from './log-batches.ts';
import { runRottenHeader, runRottenPayload } from './rotten-header.ts';
import { runRottenLog } from './rotten-log.ts';

describe('what an opening has shown', () => {
  // A torn batch was all that stated what was durable before it. The opening that cut it off went by
  // that; the next one took a rotten header for a torn tail, and flushed requests were gone.
  test('is there at the next one, or that one refuses', async () => {
    let openings = 0;
    for (let seed = 1; seed <= 120; seed++) openings += await runRottenHeader({ seed });
    expect(openings).toBeGreaterThan(60);
  });

  // The cut took the header of the segment behind, whose first batch states that the one with the
  // rotten payload was durable. It was heard after that one had been called torn: the volume was
  // refused, though no more than a block was damaged (volume-lives, seed 440000104).
  test('is all of it but a block whose payload rotted, whatever a cut took behind that', async () => {
    let rotten = 0;
    for (let seed = 580; seed <= 600; seed++) rotten += await runRottenPayload({ seed });
    expect(rotten).toBeGreaterThan(15);
  });

  // The segment had no room left for the batch that states what is durable, so nothing ever did. Rot
  // in the last payload, an hour later, passed for a torn tail: flushed data was gone without a word.
  // And after a FUA write the batch that states it was never synced, so a cut took it.
  test.each([
    ['where its segment is full', false],
    ['after FUA writes', true],
  ])('is all of it when the last payload rots on an idle disk, %s', async (_, fua) => {
    for (let seed = 1; seed <= 10; seed++) {
      const bench = await Bench.create(seed);
      let last = -1;
      await bench.lose('cut', async (volume) => {
        const { stream } = volume.core.log;
        do {
          last += 1;
          await put(volume, last, blocksOf(100 + last), fua);
          if (!fua) await volume.live().flush();
          await bench.world.sleep(2000);
        } while (fua ? last < 7 : stream.canClaim);
        await bench.world.sleep(3_600_000_000);
      });
      const payload = batchesOn(bench.sim)
        .flatMap(dataOf)
        .findLast(({ block }) => block === last);
      bench.sim.log.corruptBit((payload?.at ?? 0) + 5, 1);
      await bench.use(async (volume) => {
        expect(volume.core.recovery.cut).toBeUndefined();
        expect([...(await unreadable(volume.live(), 0, last + 1)).keys()]).toEqual([last]);
      });
    }
  });

  // Only one copy of the superblock knew of the last round. When that copy rotted, the other led to
  // segments whose slots had been used again: damage was told of that nobody could read, and a log
  // that had moved on further was refused (volume-lives, seed 470001450).
  test('is all of it when the newest superblock rots', async () => {
    for (let seed = 8; seed <= 20; seed++) {
      const bench = await Bench.create(seed, { segmentBytes: kibibytes(32), slots: 10 });
      await bench.untilLost('cut', async (volume, plan) => {
        plan({ loss: 'cut', afterOperations: 100 + 7 * seed });
        for (let i = 1; ; i++) await put(volume, i % 20, blocksOf(i));
      });
      const sequences = SUPERBLOCK_BLOCKS.map(
        (block) => decodeSuperblock(logBlock(bench.sim, block * BLOCK_BYTES))?.sequence,
      );
      // The cut may have torn one of them, and then the other is needed.
      const [one, other] = sequences;
      if (one === undefined || other === undefined) continue;
      const newest = SUPERBLOCK_BLOCKS[one > other ? 0 : 1];
      bench.sim.log.corruptBit(newest * BLOCK_BYTES + 20, 1);
      await bench.use(async (volume) => {
        const { damages } = await volume.scrub({ bytesPerSecond: 0, progress: () => undefined });
        expect(damages).toEqual([]);
        const { head } = volume.core;
        for (let i = Math.max(1, head - 19); i <= head; i++) {
          expect(await get(volume.live(), i % 20)).toEqual(blocksOf(i));
        }
      });
    }
  });

  // The cut had taken all of the next slot, and of the one behind it all but a header, which alone
  // stated that the batch with the rotten payload was durable: it was called torn, and flushed
  // requests were gone without a word.
  test('is all of it when what states so lies two slots on', async () => {
    const bench = await Bench.create(1, { segmentBytes: kibibytes(32), slots: 12 });
    const { log, geometry, uuid } = bench.sim;
    let written = 0;
    let endLsn = 0;
    await bench.lose('kill', async (volume) => {
      const { segments, writer } = volume.core.log;
      while (segments.live.length < 2) await put(volume, ++written % 20, blocksOf(written), true);
      endLsn = writer.durable.lsn;
      for (let more = written; segments.live.length < 5;) {
        await put(volume, ++more % 20, blocksOf(more));
        await bench.world.sleep(3000);
      }
    });
    let last = 0;
    let isTold = false;
    for (let i = 0; i < geometry.slotCount; i++) {
      const start = slotOffset(geometry, slot(i));
      const firstLsn = decodeSegmentHeader(logBlock(bench.sim, start), uuid)?.firstLsn;
      for (let at: number = start; at < start + geometry.segmentBytes; at += BLOCK_BYTES) {
        const batch = decodeBatch(logBlock(bench.sim, at), uuidBytes(uuid));
        if (firstLsn === undefined) continue;
        const lsn = firstLsn + at - start - BLOCK_BYTES;
        const isFlushed = at > start ? lsn < endLsn : firstLsn < endLsn;
        if (isFlushed) {
          if (batch !== undefined) last = at;
          continue;
        }
        // One header, that is none of its segment's first batch.
        if (i === 3 && !isTold && batch !== undefined && lsn > firstLsn) isTold = true;
        else log.corrupt(at, new Uint8Array(BLOCK_BYTES));
      }
    }
    expect(isTold).toBe(true);
    log.corruptBit(last + BLOCK_BYTES + 100, 1);
    await bench.use(async (volume) => {
      expect(volume.core.head).toBe(written);
      const bad = await unreadable(volume.live(), 0, 20);
      expect([...bad]).toEqual([[written % 20, 'BLOCK_CORRUPT EIO']]);
    });
  });

  // After a failed sync the log had forked. A payload that rotted in what was written again had the
  // branch that was given up taken for the history: the volume was refused at seeds 1060 and 1303, and
  // a flushed request was gone without a word at seeds 46 and 3433.
  test.each([46, 1060, 1303, 3433])('is there whatever rots, seed %i', async (seed) => {
    await runRottenLog({ seed });
  });
});
