/** What was answered in mode `written` outlives a kill while it is written again. */
import { runWrittenMode } from '../../test/crash/written-mode.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({ name: 'volume-written-mode', one: runWrittenMode });
