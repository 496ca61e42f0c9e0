/**
 * The fuzzer that must fail: it claims that no list holds a number above 1000. A runner that
 * reports it as sound would report anything as sound, so every run of fuzz/run.ts begins with it.
 */
import fc from 'fast-check';
import type { Fuzzer } from './options.ts';

export const fuzzer: Fuzzer = {
  name: 'canary',
  main({ seed, runs }) {
    const small = fc.property(fc.array(fc.nat()), (list) => list.every((n) => n <= 1000));
    fc.assert(small, { seed, numRuns: runs });
  },
};
