/** A rotten payload at the end of a log that a power cut has ended: it costs no more than its block. */
import { runRottenPayload } from '../../test/crash/rotten-header.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({ name: 'volume-rotten-payloads', one: runRottenPayload });
