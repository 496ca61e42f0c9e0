/** A page of checksums whose write was lost: what it hides is an error, never zeros. */
import { expect, test } from 'vitest';
import { runStaleSums } from './stale-sums.ts';

test('stale checksums never make a block something else, also below the horizon', async () => {
  // A before-image was zeros where the page said "never written", and home had data.
  let [read, refused, foreign] = [0, 0, 0];
  for (let seed = 1; seed <= 8; seed++) {
    const report = await runStaleSums({ seed });
    read += report.read;
    refused += report.refused;
    if (report.foreign) foreign += 1;
  }
  expect(read).toBeGreaterThan(1000);
  expect(refused).toBeGreaterThan(50);
  expect(foreign).toBeLessThan(4);
});
