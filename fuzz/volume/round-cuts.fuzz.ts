/**
 * Cuts a few operations behind the turning points of a round, under writers that never flush: what
 * whole lives meet too seldom, because later syncs hide one that is missing.
 */
import { runCutAfterRound } from '../../test/crash/cut-after-round.ts';
import { SeededRandom } from '../../test/sim/random.ts';
import type { Fuzzer, FuzzOptions } from '../options.ts';

/** Cuts of one case. */
const CUTS = 5;
/** Device operations behind the turning point, at most. */
const OPERATIONS = 60;

async function main({ seed, runs, onStep }: FuzzOptions): Promise<void> {
  for (let i = 0; i < runs; i++) {
    const random = new SeededRandom((seed + i) >>> 0).fork('round-cuts');
    for (let cut = 0; cut < CUTS; cut++) {
      const options = {
        seed: random.below(2 ** 31),
        point: random.pick(['horizon', 'settled'] as const),
        round: random.between(1, 4),
        operations: random.between(1, random.pick([12, OPERATIONS])),
        takesSuperblocks: random.chance(0.4),
      };
      try {
        await runCutAfterRound({ ...options, ...(onStep && { onStep }) });
      } catch (error) {
        const what = error instanceof Error ? error.stack : String(error);
        throw new Error(`${JSON.stringify(options)}: ${what}`, { cause: error });
      }
    }
  }
}

export const fuzzer: Fuzzer = { name: 'volume-round-cuts', runs: 20, main };
