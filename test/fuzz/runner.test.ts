/** The runner of the fuzzers: it must notice a failure, and say how to see it again. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { fuzzer as canary } from '../../fuzz/canary.fuzz.ts';
import { ProcessHand } from '../../fuzz/hands.ts';
import type { Fuzzer, FuzzOptions } from '../../fuzz/options.ts';
import { runFuzzers, summary, type RunPlan, type RunResult } from '../../fuzz/runner.ts';
import { oldSeeds } from '../../fuzz/seeds.ts';
import { temporaryDirectory } from '../support/files.ts';

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
    expect(printed).toContain('npm run fuzz -- --name canary --seed=7 --runs 1000');
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
    const result = await run({ fuzzers: [counting, silent], seconds: 20 });
    const times = Math.ceil(result.turns / 2);
    expect(result.fuzzers.get('counting')).toMatchObject({
      turns: times,
      runs: times * 10,
      counts: { steps: 3 * times, crashes: times },
    });
    expect(result.fuzzers.get('silent')?.counts).toEqual({});
    expect(summary(result)).toContain(
      `counting: ${times * 10} runs: ${times} crashes, ${3 * times} steps`,
    );
  });

  it('gives a fuzzer as many cases as it says, when nobody says otherwise', async () => {
    const fuzzer = { ...brokenAt('short', 0), runs: 3 };
    await run({ fuzzers: [fuzzer], runs: undefined });
    expect(fuzzer.given).toMatchObject([{ runs: 3 }]);
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

/** As fuzz/worker.ts, but for what it is told to do by its seed. */
const WORKER = `
  process.on('message', ({ name, seed }) => {
    if (name === 'canary') return process.send({ kind: 'failed', what: 'as it must' });
    if (seed === 1) throw new Error('a bug that brings down its process');
    if (seed === 2) return setInterval(() => {}, 1000);
    process.send({ kind: 'held', counts: { steps: 1 } });
  });
`;

describe('hands that are processes', () => {
  const hands = (script: string, count = 2) =>
    Array.from({ length: count }, () => new ProcessHand({ script, turnMsMax: 1500 }));

  async function inProcesses(plan: Partial<RunPlan>) {
    using directory = temporaryDirectory();
    const script = join(directory.path, 'worker.mjs');
    writeFileSync(script, WORKER);
    const own = hands(script);
    try {
      return await run({ hands: own, nowMs: () => performance.now(), ...plan });
    } finally {
      for (const hand of own) hand.stop();
    }
  }

  it('share the turns, no two of which have the same seed', async () => {
    const fuzzers = [brokenAt('a', -1), brokenAt('b', -1)];
    const { turns, fuzzers: results } = await inProcesses({ fuzzers, seconds: 0.5 });
    expect(turns).toBeGreaterThan(4);
    const [a, b] = [results.get('a'), results.get('b')];
    expect((a?.turns ?? 0) + (b?.turns ?? 0)).toBe(turns);
    expect(a?.counts['steps']).toBe(a?.turns);
  });

  it('tell of a process that fell, how to repeat its turn, and go on', async () => {
    const fuzzers = [brokenAt('a', -1)];
    const oldSeeds = [
      { name: 'b', seed: 1, runs: 5, note: 'falls' },
      { name: 'a', seed: 7, runs: 5, note: 'holds' },
    ];
    const all = [...fuzzers, brokenAt('b', -1)];
    const { failed, printed, turns } = await inProcesses({ fuzzers: all, oldSeeds });
    expect(failed).toEqual(['b']);
    expect(printed).toContain('its process ended: exit code 1');
    expect(printed).toContain('npm run fuzz -- --name b --seed=1 --runs 5');
    expect(turns).toBe(3);
  });

  it('end a turn that hangs, as a failure', async () => {
    const { failed, printed } = await inProcesses({ fuzzers: [brokenAt('a', -1)], seed: 2 });
    expect(failed).toEqual(['a']);
    expect(printed).toContain('the turn takes longer');
  });

  it('are stopped by an interrupt, with what was done until then', async () => {
    const interrupt = new AbortController();
    const going = inProcesses({
      fuzzers: [brokenAt('a', -1)],
      oldSeeds: [{ name: 'a', seed: 3, runs: 1, note: 'holds' }],
      seed: 2,
      signal: interrupt.signal,
      print: () => {
        interrupt.abort();
      },
    });
    expect(await going).toMatchObject({ turns: 1, failed: [] });
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
