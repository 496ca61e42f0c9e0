/** docs/RELIABILITY.md names the tests that show what it says: they are there. */
import { existsSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

const page = readFileSync('docs/RELIABILITY.md', 'utf8');
const rows = page.split('\n').filter((line) => /^\| (?!fault |-)/.test(line));

test('every test that the fault table names is there', () => {
  const names = Array.from(page.matchAll(/`((?:test|fuzz)\/[\w./-]+\.ts)`/g), ([, name]) => name);
  expect(names.length).toBeGreaterThan(50);
  expect(names.filter((name) => name === undefined || !existsSync(name))).toEqual([]);
});

test('every row names a test, a fuzzer, or the fault that lives plant', () => {
  expect(rows.length).toBeGreaterThan(50);
  expect(rows.filter((row) => !/`test\/|`fuzz\/|fuzzer `|lives \(`/.test(row))).toEqual([]);
});
