/**
 * How the tests run. `npm test`: everything in test/ side by side, then the end-to-end tests with
 * real clients four at a time. `npm run test:endurance`: what goes on for as long as it is told to,
 * one after the other, since some of it measures memory.
 *
 * VARVE_TEST_REPORT names a file for vitest's JSON report, from which .ci/run takes its counts.
 */
import { defineConfig } from 'vitest/config';

const ENDURANCE = 'test/endurance/**';

const report = process.env['VARVE_TEST_REPORT'];

export default defineConfig({
  test: {
    pool: 'forks',
    reporters: report === undefined ? ['default'] : ['default', ['json', { outputFile: report }]],
    projects: [
      {
        extends: true,
        test: {
          name: 'parts',
          include: ['test/**/*.test.ts'],
          exclude: ['test/e2e/**', ENDURANCE],
          // More than there are cores: some wait for processes that they start.
          maxWorkers: '150%',
          // Loading the code anew for each file would take a tenth of the time.
          isolate: false,
          testTimeout: 60_000,
          hookTimeout: 30_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          name: 'clients',
          include: ['test/e2e/**/*.test.ts'],
          // They wait for clients and disks, mostly.
          maxWorkers: 4,
          testTimeout: 300_000,
          hookTimeout: 60_000,
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: {
          name: 'endurance',
          include: [`${ENDURANCE}/*.test.ts`],
          fileParallelism: false,
          testTimeout: 300_000,
          hookTimeout: 60_000,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
