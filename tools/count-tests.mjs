/**
 * `node tools/count-tests.mjs REPORT STATUS`: prints `PASSED FAILED` from vitest's JSON report and
 * the exit status of the test command. Plain JavaScript, so that it counts even where the build
 * fails.
 *
 * Invariants:
 *   - What did not run is never counted as passed: skipped and todo tests, files that could not
 *     be loaded, a report that is missing.
 *   - A status other than 0 gives at least one failure.
 */
import { readFileSync } from 'node:fs';

/**
 * @param {string | undefined} report - the text of vitest's report
 * @param {number} status
 * @returns {{ passed: number, failed: number }}
 */
function countTests(report, status) {
  let passed = 0;
  let failed = 0;
  try {
    for (const file of JSON.parse(report ?? '').testResults) {
      const results = file.assertionResults;
      const bad = results.filter((result) => result.status !== 'passed').length;
      passed += results.length - bad;
      // A file that could not be loaded, or whose hooks failed, has no failing test of its own.
      failed += bad === 0 && file.status === 'failed' ? 1 : bad;
    }
  } catch {
    failed += 1;
  }
  if (failed === 0 && (status !== 0 || passed === 0)) failed = 1;
  return { passed, failed };
}

function textOf(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

const [, , path = '', status = '1'] = process.argv;
const { passed, failed } = countTests(textOf(path), Number(status));
console.log(`${passed} ${failed}`);
