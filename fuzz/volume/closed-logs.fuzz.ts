/** Bad places of a log that was closed in order, where nothing of it lies. */
import { runClosedLogs } from '../../test/crash/closed-logs.ts';
import { eachSeed } from './each-seed.ts';

export const fuzzer = eachSeed({ name: 'volume-closed-logs', runs: 60, one: runClosedLogs });
