/**
 * The planted bugs fit the present source, compile, and stay out of the product. All of them run
 * by hand, `npm run fuzz:mutants`; a few in test/endurance/.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { emitted, sourceOf, TypeCheck } from '../../fuzz/mutants/emit.ts';
import { MUTANTS } from '../../fuzz/mutants/list.ts';
import { patched } from '../../fuzz/mutants/mutant.ts';
import { page } from '../../fuzz/mutants/report.ts';
import { FUZZERS } from '../../fuzz/registry.ts';
import { REPOSITORY } from '../../tools/repository.ts';

const files = [...new Set(MUTANTS.map(({ file }) => file))];

describe('the planted bugs', () => {
  it('are many, each with a name of its own', () => {
    const names = MUTANTS.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    expect(names.length).toBeGreaterThanOrEqual(40);
    for (const name of names) expect(name).toMatch(/^[a-z0-9]+(-[a-z0-9]+)+$/);
  });

  it('are each looked for by fuzzers that exist', () => {
    const known = new Set(FUZZERS.map(({ name }) => name));
    for (const { name, fuzzers } of MUTANTS) {
      expect(
        fuzzers.filter((one) => known.has(one)),
        name,
      ).not.toEqual([]);
    }
  });

  it.each(MUTANTS)('$name applies to $file once, and compiles', (mutant) => {
    const source = sourceOf(mutant.file);
    expect(patched(source, mutant)).not.toBe(source);
    expect(emitted(mutant)).not.toContain(".ts'");
  });

  it('are told from patches that do not apply, or twice', () => {
    const [first] = MUTANTS;
    if (first === undefined) throw new Error('there is a first one');
    expect(() => patched(sourceOf(first.file), { ...first, find: 'no such text' })).toThrow(
      /0 times/,
    );
    expect(() => patched(sourceOf(first.file), { ...first, find: 'const' })).toThrow(/times/);
  });

  it('pass a type check, by the runner, which notices one that does not', () => {
    const types = new TypeCheck();
    const [first] = MUTANTS;
    if (first === undefined) throw new Error('there is a first one');
    expect(types.problem(first)).toBeUndefined();
    const wrong = { ...first, replace: `nonsense(); ${first.find}` };
    expect(types.problem(wrong)).toMatch(/nonsense/);
  }, 120_000);

  it('are unknown to the product', () => {
    for (const file of files) expect(sourceOf(file)).not.toMatch(/mutant/i);
    const packed = readFileSync(join(REPOSITORY, 'tsconfig.build.json'), 'utf8');
    expect(packed).toContain('"include": ["src", "log", "index"]');
  });

  it('make a page with a row for each', () => {
    const text = page(
      MUTANTS.map((mutant) => ({ mutant, verdict: { kind: 'survived', steps: 1, seconds: 2 } })),
    );
    expect(text).toContain(`0 of ${MUTANTS.length} found`);
    for (const { name } of MUTANTS) expect(text).toContain(`\`${name}\``);
  });
});
