/** Clones of clones, and cuts anywhere in their making, flattening and use. */
import { runCloneLives } from '../../test/crash/clone-lives.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({ name: 'volume-clone-lives', runs: 6, one: runCloneLives });
