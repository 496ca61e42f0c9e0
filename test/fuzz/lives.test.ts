/** The lives of fuzz/life: a few of them, that a run repeats, and that a failure becomes short. */
import { describe, expect, test } from 'vitest';
import { fuzzer } from '../../fuzz/life/lives.fuzz.ts';
import { runLife } from '../../fuzz/life/life.ts';
import { CRASHES_MIN, parseScript, scriptOf, STEPS_MIN } from '../../fuzz/life/steps.ts';

describe('lives of a volume', () => {
  test('keep every law, with as many steps and crashes as they promise', async () => {
    const counts = await fuzzer.main({ seed: 20_261_121, runs: 4 });
    expect(counts).toMatchObject({ lives: 4 });
    expect(counts?.['steps']).toBeGreaterThanOrEqual(4 * STEPS_MIN);
    expect(counts?.['crashes']).toBeGreaterThanOrEqual(4 * CRASHES_MIN);
    expect(
      Object.keys(counts ?? {}).filter((word) => word.startsWith('fault ')).length,
    ).toBeGreaterThan(8);
  });

  test('are the same for the same seed, down to the digest of all that happened', async () => {
    const script = scriptOf(7);
    expect(await runLife(script)).toEqual(await runLife(parseScript(JSON.stringify(script))));
    expect((await runLife(scriptOf(8)))['digest']).not.toBe((await runLife(script))['digest']);
  });
});
