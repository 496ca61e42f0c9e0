/** Bugs of destaging: what goes home, what it was checked against, what is let go. */
import type { Mutant } from './mutant.ts';

const LIVES = ['volume-short-lives', 'volume-power-cuts', 'volume-lives'];
const DAMAGE = ['volume-damage', 'volume-lives'];
const PINNED = ['volume-pinned-lives', 'volume-lives'];

export const ROUND_MUTANTS: readonly Mutant[] = [
  {
    name: 'before-images-not-kept',
    law: 4,
    story: 'a round passes snapshots, and keeps nothing of what it replaces',
    file: 'src/volume/destager.ts',
    find: 'if (oldest !== undefined && oldest.generation < target) {',
    replace: 'if (oldest !== undefined && oldest.generation > target) {',
    fuzzers: PINNED,
  },
  {
    name: 'older-image-hidden-by-zeros',
    law: 4,
    story:
      'zeros of which nobody knows since when they were there hide the data of an older snapshot',
    file: 'log/found-image.ts',
    find: '    .filter(({ image }) => image.until === until)\n',
    replace: '    .filter(({ image }) => image.until >= until)\n',
    fuzzers: [...PINNED, 'volume-past'],
  },
  {
    name: 'image-counts-before-its-round',
    law: 4,
    story: 'what a crash left of a round that never came is read in place of what is at home',
    file: 'log/undo-log.ts',
    find: 'images.every(({ until }) => until <= horizon)',
    replace: 'images.every(({ until }) => until <= horizon || until > 0)',
    more: [
      {
        find: 'const { volume, cacheBytes, horizon } = options;',
        replace:
          'const { volume, cacheBytes } = options;\n' +
          '    const horizon = (): Generation => generationOf(Number.MAX_SAFE_INTEGER);',
      },
    ],
    fuzzers: PINNED,
  },
  {
    name: 'undo-slots-not-recorded',
    law: 4,
    story:
      'the superblock does not say how far the undo device is used: images are not found again',
    file: 'src/volume/destager.ts',
    find: '{ horizon, undoSlots: core.undo.slotsUsed }',
    replace: '{ horizon }',
    fuzzers: PINNED,
  },
  {
    name: 'joined-slot-not-recorded',
    law: 4,
    story: 'what was joined lies in a slot that no opening looks at, and its sources are freed',
    file: 'src/volume/undo.ts',
    find: '        await record();\n',
    replace: '',
    fuzzers: PINNED,
  },
  {
    name: 'joined-segment-marked-before-it-is-durable',
    law: 4,
    story: 'the mark that what was joined is whole comes before the sync of its content',
    file: 'log/undo-log.ts',
    find: '    await this.sync();\n    await onDurable();',
    replace: '    await onDurable();',
    fuzzers: PINNED,
  },
  {
    name: 'unfinished-join-counts',
    law: 4,
    story: 'what a crash left of a join counts beside what was to be joined',
    file: 'log/undo-survey.ts',
    find: 'else if (sources.every((source) => there.has(source))) voided.add(sequence);',
    replace: 'else if (sources.every((source) => there.has(source))) continue;',
    fuzzers: PINNED,
  },
  {
    name: 'freed-segment-read-from-the-cache',
    law: 3,
    story: 'a slow read of a freed segment stands for what is in its slot now',
    file: 'log/undo-images.ts',
    find: 'if (segments.get(segment.sequence) === segment) this.#headers.set(key, images);',
    replace: 'this.#headers.set(key, images);',
    fuzzers: ['volume-past', 'volume-lives'],
  },
  {
    name: 'version-between-two-snapshots-not-kept',
    law: 4,
    story: 'a round keeps what is at home, and not what it passes over between two snapshots',
    file: 'src/volume/keep-images.ts',
    find: 'if (until !== undefined && undo.isNeeded(from, until)) {',
    replace: 'if (until !== undefined && undo.isNeeded(from, until) && from <= settled) {',
    fuzzers: PINNED,
  },
  {
    name: 'zeros-kept-without-a-look',
    law: 4,
    story: 'a before-image is zeros because the sums say so, though home has data',
    file: 'src/volume/keep-images.ts',
    find: 'if (!isUnreadable(error)) throw error;\n      // One by one:',
    replace:
      'if (isUnreadable(error)) return images.map((image) => ({ image, source: undefined }));\n      // One by one:',
    fuzzers: ['volume-stale-sums', 'volume-lives'],
  },
  {
    name: 'last-pin-of-a-pair-forgets-its-bytes',
    law: 4,
    story: 'what a deleted snapshot shared with its neighbours is not counted any more, and freed',
    file: 'index/held-counts.ts',
    find: 'const kept = met === undefined ? pair : this.#together(pair, met);',
    replace: 'const kept = met ?? pair;',
    fuzzers: PINNED,
  },
  {
    name: 'open-moment-not-ended',
    law: 3,
    story: 'a moment that a round left behind stays open, and reads newer data in its place',
    file: 'src/volume/moment-device.ts',
    find: '    this.#ended = true;\n',
    replace: '',
    fuzzers: ['volume-readers', 'volume-lives'],
  },
  {
    name: 'moment-not-checked-after-its-read',
    law: 3,
    story: 'a read of a moment that a round overtook meanwhile is answered all the same',
    file: 'src/volume/moment-device.ts',
    find: 'return done === undefined ? undefined : this.#checked(done);',
    replace: 'return done;',
    fuzzers: ['volume-readers', 'volume-lives'],
  },
  {
    name: 'ranges-settled-after-blocks',
    law: 2,
    story: 'a round punches its trims when it has written its blocks: newer data is lost',
    file: 'src/volume/settle.ts',
    find: '  await settleRanges(core, target, attempt);\n  for (let from = 0',
    replace: '  for (let from = 0',
    more: [
      {
        find: "  await core.final.syncFinal('final');",
        replace:
          '  await settleRanges(core, target, attempt);\n' +
          "  await core.final.syncFinal('final');",
      },
    ],
    fuzzers: LIVES,
  },
  {
    name: 'checksum-made-anew-at-destage',
    law: 5,
    story: 'a round stamps what it read from the log, instead of checking it first',
    file: 'src/volume/settle.ts',
    find: 'if (got === newest.checksums[i]) good[i - from] = 1;',
    replace:
      'newest.checksums[i] = got;\n        if (got === newest.checksums[i]) good[i - from] = 1;',
    fuzzers: DAMAGE,
  },
  {
    name: 'segment-let-go-before-the-read',
    law: 3,
    story: 'a reader lets its segments go when it knows where to read, and its slot is recycled',
    file: 'src/volume/reader.ts',
    find: 'const runs = this.#plan(first, buffer, at);',
    replace:
      'const runs = this.#plan(first, buffer, at);\n    for (const run of runs) this.#release(run);',
    more: [
      {
        find: '      for (const run of runs) this.#release(run);\n    }\n  }',
        replace: '    }\n  }',
      },
    ],
    fuzzers: ['volume-readers', 'volume-power-cuts', 'volume-lives'],
  },
  {
    name: 'readers-never-let-go',
    law: 6,
    story: 'a read of the log keeps its segment for ever, and the log fills up',
    file: 'src/volume/reader.ts',
    find: '      for (const run of runs) this.#release(run);\n',
    replace: '',
    fuzzers: LIVES,
  },
  {
    name: 'segment-recycled-under-a-reader',
    law: 3,
    story: 'recycling looks at live versions, and not at readers',
    file: 'src/volume/destager.ts',
    find: 'if (references.readers(segment.sequence) > 0 || references.live(segment.sequence) > 0) break;',
    replace: 'if (references.live(segment.sequence) > 0) break;',
    fuzzers: LIVES,
  },
  {
    name: 'stale-sums-after-a-punch',
    law: 5,
    story: 'pages of checksums in the cache outlive the trim that cleared them',
    file: 'src/volume/sidecar.ts',
    find: 'if (number >= from && number < to) this.#pages.delete(number);',
    replace: 'if (number > wholeFrom && number < wholeTo) this.#pages.delete(number);',
    fuzzers: ['volume-damage', ...LIVES],
  },
  {
    name: 'sums-read-beside-a-change-kept',
    law: 5,
    story: 'a page of checksums that was read while a round wrote it goes into the cache',
    file: 'src/volume/sidecar.ts',
    find: 'if (version === this.#version) this.#pages.set(number, page);',
    replace: 'this.#pages.set(number, page);',
    fuzzers: ['volume-readers', 'volume-lives'],
  },
  {
    name: 'foreign-image-not-noticed',
    law: 5,
    story: 'final storage is not compared with its checksums at opening: an older copy passes',
    file: 'src/volume/volume.ts',
    find: 'await compareWitnesses({ final: home, index, witnesses, horizon });',
    replace: '',
    fuzzers: DAMAGE,
  },
  {
    name: 'segment-of-a-pending-record-recycled',
    law: 4,
    story: 'a segment goes though a record in it is not durable yet, so no checkpoint has it',
    file: 'src/volume/round-target.ts',
    find: 'lastGeneration <= upTo && endLsn <= core.recordedLsn;',
    replace: 'lastGeneration <= upTo;',
    fuzzers: ['volume-pending-records', 'volume-lives'],
  },
];
