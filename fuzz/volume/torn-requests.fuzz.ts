/** Requests of many segments, killed half-way and asked for again. */
import { runTornRequests } from '../../test/crash/torn-requests-run.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({ name: 'volume-torn-requests', runs: 40, one: runTornRequests });
