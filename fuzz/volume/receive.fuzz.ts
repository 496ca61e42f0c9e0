/** Streams received while the power goes: the sender at one moment or the other, never a mixture. */
import { runReceiveLives } from '../../test/crash/receive-lives.ts';
import { eachSeed } from './each-seed.ts';

const LIVES = 10;

export const fuzzer = eachSeed({
  name: 'volume-receive',
  runs: 20,
  one: (options) => runReceiveLives({ ...options, lives: LIVES }),
});
