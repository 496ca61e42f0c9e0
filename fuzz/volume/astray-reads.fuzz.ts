/** Single reads that are answered with what lies elsewhere, on sound disks: nothing is lost or refused. */
import { runAstrayReads } from '../../test/crash/astray-reads.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({
  name: 'volume-astray-reads',
  perRun: 10,
  runs: 4,
  one: runAstrayReads,
});
