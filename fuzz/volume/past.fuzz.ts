/** What changed and when, as a volume tells it, beside the model. */
import { runPast } from '../../test/volume/past-run.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({ name: 'volume-past', runs: 20, one: runPast });
