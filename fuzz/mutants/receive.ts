/** Bugs of sending and receiving: what is shown, kept, put back, and believed of a stream. */
import type { Mutant } from './mutant.ts';

const RECEIVE = ['volume-receive'];
const STREAM = ['format-send-streams'];

export const RECEIVE_MUTANTS: readonly Mutant[] = [
  {
    name: 'receive-shows-what-is-not-whole',
    law: 1,
    story: 'while a stream is received, clients read the newest version of each block',
    file: 'src/volume/live-device.ts',
    find: '    return receiving.base;',
    replace: '    return LATEST;',
    fuzzers: RECEIVE,
  },
  {
    name: 'receive-goes-on-a-block-too-far',
    law: 1,
    story: 'the place that is kept counts one block that is still to come',
    file: 'src/volume/catalogue-entries.ts',
    find: 'const place = { records, nextBlock, digest: label };',
    replace: 'const place = { records, nextBlock: blockOf(nextBlock + 1), digest: label };',
    fuzzers: RECEIVE,
  },
  {
    name: 'receive-given-up-leaves-zeros',
    law: 1,
    story: 'giving up a receive puts back data, and not what was zeros',
    file: 'src/volume/put-back.ts',
    find: 'await appender.putBack({ kind: KIND_OF_RANGE[kind], first, count, by });',
    replace: '',
    fuzzers: RECEIVE,
  },
  {
    name: 'moments-inside-a-receive-open',
    law: 3,
    story: 'generations between two moments that were received open as if they were one',
    file: 'src/volume/catalogue.ts',
    find: 'return inside?.base ?? generation;',
    replace: 'return inside === undefined ? generation : generation;',
    fuzzers: RECEIVE,
  },
  {
    name: 'received-is-forgotten-by-a-checkpoint',
    law: 4,
    story: 'a checkpoint leaves out what was received, and recycling takes the records',
    file: 'src/volume/catalogue.ts',
    find: 'for (const received of this.#received) entries.push(receivedEntry(received));',
    replace: 'for (const received of this.#received) void receivedEntry(received);',
    fuzzers: RECEIVE,
  },
  {
    name: 'receive-goes-on-from-what-is-being-deleted',
    law: 4,
    story: 'a receive takes a snapshot, whose deletion is under way, for one that keeps its base',
    file: 'src/volume/moments.ts',
    find: 'return this.#changes.run(() => this.#ensureSnapshotAt(generation, label));',
    replace: 'return this.#ensureSnapshotAt(generation, label);',
    fuzzers: RECEIVE,
  },
  {
    name: 'stream-records-not-counted',
    law: 5,
    story: 'a record of a stream that is repeated or left out is applied before its seal tells',
    file: 'src/format/send-stream.ts',
    find: 'if (number !== course.number) {',
    replace: 'if (number < 0) {',
    fuzzers: STREAM,
  },
  {
    name: 'stream-seal-not-compared',
    law: 5,
    story: 'the digest in a seal is worked out and not compared',
    file: 'src/format/send-stream.ts',
    find: "      textOf(values, 'digest') === place.digest &&\n",
    replace: '',
    fuzzers: STREAM,
  },
];
