/** Places of the undo device that refuse to be read or written, beside snapshots: laws 4 and 6. */
import { runBadPlaces } from '../../test/crash/bad-places.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({ name: 'volume-bad-places', runs: 20, one: runBadPlaces });
