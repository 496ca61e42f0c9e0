/**
 * Many clones of one root image with a real file system, some mounted through nbdfuse and written at
 * once: each is right after a remount. VARVE_CLONES gives their number (1000 shows it in full),
 * VARVE_CLONES_MOUNTED of how many at once.
 */
import { expect, it } from 'vitest';
import { cloneFleet } from '../support/clone-fleet.ts';
import { describeWith } from '../support/clients.ts';

const CLONES = Number(process.env['VARVE_CLONES'] ?? 40);
const MOUNTED = Number(process.env['VARVE_CLONES_MOUNTED'] ?? 6);

describeWith(['nbdfuse', 'mkfs.ext4'], 'clones of one image', () => {
  it(
    'are all right when they are written side by side',
    async () => {
      const options = { clones: CLONES, mounted: MOUNTED, size: '2G', files: 2000 };
      const report = await cloneFleet(options);
      console.info(JSON.stringify(report));
      expect(report).toMatchObject({ clones: CLONES, compared: 2 * MOUNTED });
      expect(report.cloneBytes).toBeLessThan(20 * 2 ** 20);
    },
    300_000 + CLONES * 2000,
  );
});
