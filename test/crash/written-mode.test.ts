/** What was answered in mode `written` is there after a kill, also while it is written again elsewhere. */
import { describe, expect, test } from 'vitest';
import { kibibytes, mebibytes } from '../../src/base/units.ts';
import { Bench, blocksOf, holds, put } from './bench.ts';
import { runWrittenMode } from './written-mode.ts';

const CACHES = [
  ['keeps them', { dropDirty: false }],
  ['forgets them', { dropDirty: true }],
] as const;

describe('what was written, and answered, before a sync failed', () => {
  test.each(CACHES)(
    'survives a kill while it is written again, where the cache %s',
    async (_, fault) => {
      // Recovery went on with what was laid out anew, though that was only a beginning.
      let killed = 0;
      for (let operations = 1; operations <= 24; operations++) {
        const bench = await Bench.create(operations, {
          size: mebibytes(1),
          slots: 40,
          requestBytesMax: kibibytes(512),
          ringBytes: mebibytes(2),
        });
        let answered = 0;
        const end = await bench.untilLost('kill', async (volume, plan) => {
          volume.setWriteMode('written');
          await put(volume, 200, blocksOf(1), true);
          bench.sim.log.failNextSync({ ...fault, point: 'commit' });
          for (let i = 0; i < 40; i++) {
            await put(volume, i * 4, blocksOf(100 + i, 4));
            answered = i + 1;
          }
          plan({ loss: 'kill', afterOperations: operations });
          await volume.live().flush();
          await bench.world.sleep(1000);
        });
        if (end.kind === 'lost') killed += 1;
        expect(answered).toBe(40);
        for (const loss of ['kill', 'cut'] as const) {
          await bench.lose(loss, async (volume) => {
            for (let i = 0; i < answered; i++) {
              expect(await holds(volume.live(), i * 4, [blocksOf(100 + i, 4)])).toBe(0);
            }
            volume.core.check();
          });
        }
      }
      expect(killed).toBeGreaterThan(10);
    },
  );
});

describe('what was written, and answered, to a log that is nearly full', () => {
  // What had to be written again went into the slots of what the failed sync had left: a kill in the
  // middle of that found neither, and up to 35 of 47 answered writes were gone.
  test('survives a kill while it is written again', async () => {
    let most = 0;
    for (let seed = 1; seed <= 30; seed++) most = Math.max(most, await runWrittenMode({ seed }));
    expect(most).toBeGreaterThan(30);
  });
});

describe('what was answered and never flushed', () => {
  // In mode `written` nobody ever synced: a power cut took an hour of it, which mode `back` had kept.
  test.each(['back', 'written'] as const)('is durable a second later in mode %s', async (mode) => {
    for (let seed = 1; seed <= 10; seed++) {
      const bench = await Bench.create(seed);
      await bench.lose('cut', async (volume) => {
        volume.setWriteMode(mode);
        for (let i = 0; i < 5; i++) await put(volume, i, blocksOf(7 + i));
        await bench.world.sleep(1_500_000);
      });
      await bench.use(async (volume) => {
        for (let i = 0; i < 5; i++)
          expect(await holds(volume.live(), i, [blocksOf(7 + i)])).toBe(0);
      });
    }
  });
});
