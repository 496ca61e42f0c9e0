/** The runner of the fuzzers: it must notice a failure, and say how to see it again. */
import { describe, expect, it } from 'vitest';
import { fuzzer as canary } from '../../fuzz/canary.fuzz.ts';
import type { Fuzzer, FuzzOptions } from '../../fuzz/options.ts';
import { runFuzzers, type RunPlan, type RunResult } from '../../fuzz/runner.ts';
import { oldSeeds } from '../../fuzz/seeds.ts';

/** Holds for all seeds but one, and remembers what it was given. */
function brokenAt(name: string, broken: number): Fuzzer & { readonly given: FuzzOptions[] } {
  const given: FuzzOptions[] = [];
  return {
    name,
    given,
    main(options) {
      given.push(options);
      if (options.seed === broken) throw new Error(`seed ${broken} is broken`);
    },
  };
}

/** A run on a clock that moves a second with each look. */
async function run(plan: Partial<RunPlan>): Promise<RunResult & { readonly printed: string }> {
  const lines: string[] = [];
  let clock = 0;
  const result = await runFuzzers({
    fuzzers: [],
    oldSeeds: [],
    seed: 7,
    runs: 10,
    seconds: undefined,
    nowMs: () => (clock += 1000),
    print: (line) => lines.push(line),
    ...plan,
  });
  return { ...result, printed: lines.join('\n') };
}

describe('the canary', () => {
  it('fails', () => {
    expect(() => canary.main({ seed: 1, runs: 1000 })).toThrow(/Property failed/);
  });

  it('fails through the runner too, which prints how to see it again', async () => {
    const { failed, printed } = await run({ fuzzers: [canary], runs: 1000 });
    expect(failed).toEqual(['canary']);
    expect(printed).toContain('npm run fuzz -- --name canary --seed 7 --runs 1000');
  });
});

describe('the runner', () => {
  it('runs each fuzzer once when no time is given', async () => {
    const fuzzers = [brokenAt('a', 0), brokenAt('b', 0)];
    const { turns, failed } = await run({ fuzzers });
    expect({ turns, failed }).toEqual({ turns: 2, failed: [] });
    expect(fuzzers.map(({ given }) => given)).toEqual([
      [{ seed: 7, runs: 10 }],
      [{ seed: 7, runs: 10 }],
    ]);
  });

  it('goes on with new seeds until the time is over', async () => {
    const sound = brokenAt('sound', 0);
    await run({ fuzzers: [sound], seconds: 20 });
    const seeds = sound.given.map(({ seed }) => seed);
    expect(seeds.length).toBeGreaterThan(3);
    expect(new Set(seeds).size).toBe(seeds.length);
  });

  it('ends a fuzzer at its first failure, and goes on with the others', async () => {
    const bad = brokenAt('bad', 7);
    const good = brokenAt('good', 0);
    const { failed } = await run({ fuzzers: [bad, good], seconds: 20 });
    expect(failed).toEqual(['bad']);
    expect(bad.given).toHaveLength(1);
    expect(good.given.length).toBeGreaterThan(1);
  });

  it('adds up what the turns of a fuzzer did', async () => {
    const counting: Fuzzer = { name: 'counting', main: () => ({ steps: 3, crashes: 1 }) };
    const silent: Fuzzer = { name: 'silent', main: () => undefined };
    const { counts, turns } = await run({ fuzzers: [counting, silent], seconds: 20 });
    const times = turns / 2;
    expect(counts.get('counting')).toEqual({
      steps: 3 * Math.ceil(times),
      crashes: Math.ceil(times),
    });
    expect(counts.get('silent')).toEqual({});
  });

  it('waits for a fuzzer that is asynchronous', async () => {
    const slow: Fuzzer = {
      name: 'slow',
      async main() {
        await Promise.resolve();
        throw new Error('later');
      },
    };
    expect((await run({ fuzzers: [slow] })).failed).toEqual(['slow']);
  });

  it('runs the seeds that ever failed before any new one', async () => {
    const fuzzer = brokenAt('a', 99);
    const old = { name: 'a', seed: 99, runs: 3, note: 'a torn header was taken for whole' };
    const { failed, printed } = await run({ fuzzers: [fuzzer], oldSeeds: [old] });
    expect(failed).toEqual(['a']);
    expect(printed).toContain('a torn header was taken for whole');
    expect(fuzzer.given).toMatchObject([{ seed: 99, runs: 3 }]);
  });
});

describe('fuzz/seeds.json', () => {
  it('is a list of seeds with their stories', () => {
    expect(oldSeeds()).toBeInstanceOf(Array);
  });

  it.each(['{}', '[1]', '[null]', '[{"name":"a","seed":"7","runs":1,"note":""}]', '[{"seed":7}]'])(
    'is refused when it says %s',
    (text) => {
      expect(() => oldSeeds(text)).toThrow();
    },
  );
});
