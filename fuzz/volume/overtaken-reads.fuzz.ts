/** A snapshot is read while a round begins to write over it. */
import { runOvertakenReads } from '../../test/crash/overtaken-reads.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({ name: 'volume-overtaken-reads', one: runOvertakenReads });
