/** One process of a long run: takes turns as messages, and answers each when it is done. */
import { fuzzer as canary } from './canary.fuzz.ts';
import { outcomeOf, type Turn } from './options.ts';
import { FUZZERS } from './registry.ts';

function isTurn(message: unknown): message is Turn {
  return typeof message === 'object' && message !== null && 'name' in message && 'seed' in message;
}

// Ctrl-C reaches the whole group: whoever started this decides when it ends.
process.on('SIGINT', () => undefined);
process.on('disconnect', () => {
  process.exit();
});
process.on('message', (message: unknown) => {
  if (!isTurn(message)) throw new Error('a worker is given turns');
  const { name } = message;
  const fuzzer = [...FUZZERS, canary].find((candidate) => candidate.name === name);
  if (fuzzer === undefined) throw new Error(`no fuzzer is called ${name}`);
  void outcomeOf(fuzzer, message).then((outcome) => {
    process.send?.(outcome);
  });
});
