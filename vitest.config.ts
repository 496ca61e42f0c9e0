/**
 * How the tests run: everything in test/ side by side, then the end-to-end tests with real clients
 * two at a time, then alone those that measure memory and waiting.
 *
 * VARVE_TEST_REPORT names a file for vitest's JSON report, from which .ci/run takes its counts.
 */
import { defineConfig } from 'vitest/config';

const ALONE = ['hostile', 'memory', 'still-clients'].map((name) => `test/e2e/${name}.test.ts`);

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
          exclude: ['test/e2e/**'],
          // One for each core: these wait for nothing but the processor.
          maxWorkers: '100%',
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
          exclude: ALONE,
          maxWorkers: 2,
          testTimeout: 300_000,
          hookTimeout: 60_000,
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: {
          name: 'alone',
          include: ALONE,
          fileParallelism: false,
          testTimeout: 300_000,
          hookTimeout: 60_000,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
