/**
 * Every fuzzer is registered, and holds for a short while; `npm run fuzz` runs them for longer, and
 * every old seed before that.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Fuzzer } from '../../fuzz/options.ts';
import { FUZZERS } from '../../fuzz/registry.ts';
import { oldSeeds } from '../../fuzz/seeds.ts';
import { REPOSITORY } from '../../tools/repository.ts';

const RUNS = 1;

const files = readdirSync(join(REPOSITORY, 'fuzz'), { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('.fuzz.ts') && path !== 'canary.fuzz.ts')
  .toSorted();

describe('the registry of fuzzers', () => {
  it.each(files)('lists %s', async (path) => {
    const { fuzzer }: { fuzzer: Fuzzer } = await import(join(REPOSITORY, 'fuzz', path));
    expect(FUZZERS).toContain(fuzzer);
  });

  it('gives each fuzzer a name of its own', () => {
    const names = FUZZERS.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    expect(names).not.toContain('canary');
  });

  it('knows the fuzzer of every old seed', () => {
    const names = FUZZERS.map(({ name }) => name);
    expect(oldSeeds().filter(({ name }) => !names.includes(name))).toEqual([]);
  });
});

describe.each(FUZZERS)('fuzzer $name', (fuzzer) => {
  it('holds for a short while', async () => {
    await fuzzer.main({ seed: 1, runs: RUNS });
  });
});
