/** Snapshots outlive the window, whatever crashes: many seeded lives, and each sync is needed. */
import { expect, test } from 'vitest';
import type { SyncPoint } from '../../src/device/lower-device.ts';
import { runPinnedLives } from './pinned-lives.ts';

test.each(Array.from({ length: 25 }, (_, i) => i + 1))('seed %i', async (seed) => {
  const report = await runPinnedLives({ seed, lives: 4, steps: 150 });
  expect(report.snapshots).toBeGreaterThan(0);
});

test.each<SyncPoint>(['undo', 'kept'])(
  'without the sync "%s" some snapshot is wrong',
  async (point) => {
    const skipSyncs = new Set([point]);
    let isFound = false;
    for (let seed = 1; seed <= 60 && !isFound; seed++) {
      try {
        await runPinnedLives({ seed, lives: 6, steps: 100, skipSyncs });
      } catch {
        isFound = true;
      }
    }
    expect(isFound).toBe(true);
  },
);
