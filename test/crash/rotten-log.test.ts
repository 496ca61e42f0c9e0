/** Stories of logs of which a part rotted between two lives, beside what a cut took. */
import { describe, expect, test } from 'vitest';
import { BLOCK_BYTES, kibibytes } from '../../src/base/units.ts';
import { SUPERBLOCK_BLOCKS } from '../../src/format/layouts.ts';
import { decodeSuperblock } from '../../log/superblock.ts';
import { Bench, blocksOf, get, put } from './bench.ts';
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
      const sequences = SUPERBLOCK_BLOCKS.map((block) => {
        const bytes = new Uint8Array(BLOCK_BYTES);
        bench.sim.log.platter.read(block * BLOCK_BYTES, bytes);
        return decodeSuperblock(bytes)?.sequence;
      });
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

  // The cut had taken all of the next slots but a batch two or more slots on, and that alone stated
  // that the batch with the rotten payload was durable: flushed requests were gone without a word.
  test.each([10_019, 12_412, 1, 2, 3])('is there whatever rots, seed %i', async (seed) => {
    await runRottenLog({ seed });
  });
});
