/** Bugs of automatic snapshots. */
import type { Mutant } from './mutant.ts';

const RETENTION = ['volume-retention'];

export const RETENTION_MUTANTS: readonly Mutant[] = [
  {
    name: 'automatic-snapshots-not-durable-before-the-horizon',
    law: 4,
    story: 'the horizon passes moments whose automatic snapshots no checkpoint has yet',
    file: 'src/volume/retention.ts',
    find: 'await core.log.publishCheckpoint(() => core.checkpoint(), {});',
    replace: 'await Promise.resolve();',
    fuzzers: RETENTION,
  },
  {
    name: 'automatic-snapshots-by-the-first-write-of-an-hour',
    law: 4,
    story: 'the moment behind the end of an hour is kept, and not the one before it',
    file: 'index/timeline.ts',
    find: 'const { generation, wallUs } = this.#pointAt(row - 1);',
    replace: 'const { generation, wallUs } = this.#pointAt(Math.min(row, points.end - 1));',
    fuzzers: RETENTION,
  },
  {
    name: 'retention-counts-the-day-that-goes-on',
    law: 4,
    story: 'the newest hour of today is taken for the end of the day',
    file: 'src/volume/retention-policy.ts',
    find: 'if (period === current && seen.size === 0) continue;',
    replace: '',
    fuzzers: RETENTION,
  },
  {
    name: 'retention-keeps-one-too-few',
    law: 4,
    story: 'a rule keeps one period less than it says',
    file: 'src/volume/retention-policy.ts',
    find: 'if (seen.size > count) break;',
    replace: 'if (seen.size >= count) break;',
    fuzzers: RETENTION,
  },
  {
    name: 'retention-limit-looked-at-behind-the-images',
    law: 6,
    story: 'the bytes that are about to be kept are not counted against the limit',
    file: 'src/volume/retention.ts',
    find: 'undo.held.bytes + bytes > retention.maxBytes',
    replace: 'undo.held.bytes > retention.maxBytes',
    fuzzers: RETENTION,
  },
  {
    name: 'full-undo-device-stops-writers-first',
    law: 6,
    story: 'where the undo device is full, automatic snapshots stay and writes are refused',
    file: 'src/volume/destager.ts',
    find: 'if (this.#closing || !(await this.#retention.dropOldest())) return false;',
    replace: 'if (!this.#closing) return false;',
    fuzzers: RETENTION,
  },
  {
    name: 'automatic-snapshots-forgotten-by-a-checkpoint',
    law: 4,
    story: 'a checkpoint says of an automatic snapshot that somebody named it',
    file: 'src/volume/catalogue-entries.ts',
    find: 'const type = isAutomatic ? RECORD_AUTOMATIC : RECORD_SNAPSHOT;',
    replace:
      'const type = isAutomatic && snapshot.generation < 0 ? RECORD_AUTOMATIC : RECORD_SNAPSHOT;',
    fuzzers: RETENTION,
  },
  {
    name: 'retention-drops-the-newest-first',
    law: 6,
    story: 'for want of space the newest automatic snapshot goes, not the oldest',
    file: 'src/volume/retention.ts',
    find: 'return catalogue.automatic().find(',
    replace: 'return catalogue.automatic().findLast(',
    fuzzers: RETENTION,
  },
];
