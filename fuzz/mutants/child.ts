/**
 * The process that hunts in one tree: `node child.js --fuzzers A,B --seed N --seconds N`, or one
 * turn again with `--runs N`. Prints reports, one JSON text a line.
 */
import fc from 'fast-check';
import { parseArgs } from 'node:util';
import { FUZZERS } from '../registry.ts';
import { Hunt } from './hunt.ts';

const text = { type: 'string' } as const;
const { values } = parseArgs({ options: { fuzzers: text, seed: text, seconds: text, runs: text } });
const names = (values.fuzzers ?? '').split(',');
const fuzzers = names.flatMap((name) => FUZZERS.filter((fuzzer) => fuzzer.name === name));
if (fuzzers.length !== names.length) throw new Error(`not all known: ${names.join(', ')}`);

// The first failure is the answer; a shorter one would only take longer to find.
fc.configureGlobal({ endOnFailure: true });

const seed = Number(values.seed);
const hunt = new Hunt({
  fuzzers,
  seed,
  seconds: Number(values.seconds),
  // Of this process, so that neighbours on the machine don't shorten the hunt.
  nowMs: () => (process.cpuUsage().user + process.cpuUsage().system) / 1000,
  report: (report) => {
    process.stdout.write(`${JSON.stringify(report)}\n`);
  },
});

/** Assertions in callbacks that nobody awaits end a real process too. */
function fall(error: unknown): void {
  hunt.fail(error);
  process.exitCode = 1;
  process.stdout.write('', () => process.exit());
}
process.on('uncaughtException', fall);
process.on('unhandledRejection', fall);

if (values.runs === undefined) await hunt.run();
else {
  for (const fuzzer of fuzzers) await hunt.turn(fuzzer, seed, Number(values.runs));
  hunt.end();
}
process.stdout.write('', () => process.exit());
