/** Slow readers of snapshots beside segments of the undo device that are freed and used again. */
import { runFreedImages } from '../../test/crash/freed-images.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({ name: 'volume-freed-images', runs: 8, one: runFreedImages });
