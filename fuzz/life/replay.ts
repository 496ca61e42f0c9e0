/**
 * `npm run fuzz:replay -- --seed N [--runs N] [--trace] [--shrink SECONDS] [--faults A,B] [--hard]`, or `--script FILE`, or `--json TEXT`:
 * runs again, step by step if asked; a script that fails is made short and printed.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { FAULTS } from './faults.ts';
import { runLife } from './life.ts';
import { failure, shrink } from './shrink.ts';
import { hardScriptOf, parseScript, scriptOf } from './steps.ts';

async function main(): Promise<void> {
  const text = { type: 'string' } as const;
  const { values } = parseArgs({
    options: {
      seed: text,
      runs: text,
      script: text,
      json: text,
      faults: text,
      shrink: text,
      trace: { type: 'boolean' },
      hard: { type: 'boolean' },
    },
  });
  const seed = Number(values.seed ?? 0);
  for (let i = 0; i < Number(values.runs ?? 1); i++) {
    const given = values.script === undefined ? values.json : readFileSync(values.script, 'utf8');
    const of = values.hard === true ? hardScriptOf : scriptOf;
    const whole = given === undefined ? of(seed + i) : parseScript(given);
    const known = values.faults?.split(',');
    const faults = FAULTS.filter((one) => known?.includes(one) ?? whole.faults.includes(one));
    const script = { ...whole, faults };
    if (values.trace === true) {
      await runLife(script, {
        trace: (at, step, { world, model }) => {
          console.log(at, world.nowUs, model.head, JSON.stringify(step));
        },
      });
      continue;
    }
    const failed = await failure(script);
    if (failed === undefined) continue;
    process.exitCode = 1;
    console.log(`seed ${seed + i}: step ${failed.length}`, failed.error);
    if (values.shrink === undefined) continue;
    const limitMs = Number(values.shrink) * 1000;
    const short = await shrink(script, failed, { limitMs, nowMs: () => performance.now() });
    console.log(JSON.stringify(short));
  }
}

await main();
