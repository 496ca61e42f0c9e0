/** A rotten header between two openings: nothing that was shown is gone without a word. */
import { runRottenHeader } from '../../test/crash/rotten-header.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({ name: 'volume-rotten-headers', one: runRottenHeader });
