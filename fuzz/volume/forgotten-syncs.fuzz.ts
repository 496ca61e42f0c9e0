/** Failed syncs that the page cache hides from the next process, until the power goes: law 7. */
import { runForgottenSyncs } from '../../test/crash/forgotten-syncs.ts';
import { eachSeed } from './each-seed.ts';

const LIVES = 12;

export const fuzzer = eachSeed({
  name: 'volume-forgotten-syncs',
  runs: 20,
  one: (options) => runForgottenSyncs({ ...options, lives: LIVES }),
});
