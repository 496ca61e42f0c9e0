/** Payloads rot between lives, whatever cuts took around them: each costs its block and no more. */
import { runRottenLog } from '../../test/crash/rotten-log.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({ name: 'volume-rotten-log', one: runRottenLog });
