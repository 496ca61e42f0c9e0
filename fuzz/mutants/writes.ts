/** Bugs of the write path: order, edges, atomic requests, room. */
import type { Mutant } from './mutant.ts';

const LIVES = ['volume-short-lives', 'volume-power-cuts', 'volume-lives'];

export const WRITE_MUTANTS: readonly Mutant[] = [
  {
    name: 'index-in-completion-order',
    law: 2,
    story: 'the index learns of a write when the device has it, not when it was given its number',
    file: 'src/volume/appender.ts',
    find: `      const position = stream.putData(block, body, i * BLOCK_BYTES, crc, left === 0, fua);
      core.index.putBlock(block, generation, position, stream.lastChecksum);`,
    replace: `      const position = stream.putData(block, body, i * BLOCK_BYTES, crc, left === 0, fua);
      const sum = stream.lastChecksum;
      if (!fua) core.index.putBlock(block, generation, position, sum);
      else {
        void core.log.writer.waitWritten(stream.nextLsn).then(() => {
          core.index.putBlock(block, generation, position, sum);
        });
      }`,
    fuzzers: LIVES,
  },
  {
    name: 'partial-write-not-read-again',
    law: 2,
    story: 'a partial block is merged with what it held before another write changed it',
    file: 'src/volume/appender.ts',
    find: "while (this.#isStale(merged) || this.#roomFor(parts) !== 'yes') {",
    replace: "while (this.#roomFor(parts) !== 'yes') {",
    fuzzers: LIVES,
  },
  {
    name: 'trim-forgets-its-last-block',
    law: 2,
    story: 'a trim ends one block too early',
    file: 'src/volume/appender.ts',
    find: 'Math.floor((offset + length) / BLOCK_BYTES);\n    if (end <= first) return undefined;',
    replace:
      'Math.floor((offset + length - 1) / BLOCK_BYTES);\n    if (end <= first) return undefined;',
    fuzzers: LIVES,
  },
  {
    name: 'trim-takes-partial-blocks',
    law: 2,
    story: 'a trim clears the block in which it begins, also what lies before it',
    file: 'src/volume/appender.ts',
    find: 'const first = Math.ceil(offset / BLOCK_BYTES);\n    const volumeEnd',
    replace: 'const first = Math.floor(offset / BLOCK_BYTES);\n    const volumeEnd',
    fuzzers: LIVES,
  },
  {
    name: 'zero-forgets-its-tail',
    law: 2,
    story: 'a zero leaves the part of the block in which it ends',
    file: 'src/volume/appender.ts',
    find: 'if (end > last * BLOCK_BYTES) edge(last, 0, end - last * BLOCK_BYTES);',
    replace: '',
    fuzzers: LIVES,
  },
  {
    name: 'long-write-in-two-requests',
    law: 1,
    story: 'a long write becomes two generations, and a crash may keep the first alone',
    file: 'src/volume/live-device.ts',
    find: 'return this.#appender.write(offset, source, fua, this);',
    replace: `const half = 65_536 - (offset % 4096);
    if (source.length <= half) return this.#appender.write(offset, source, fua, this);
    const rest = source.slice(half);
    const first = this.#appender.write(offset, source.slice(0, half), fua, this);
    return Promise.resolve(first).then(() =>
      this.#appender.write((offset + half) satisfies number as ByteOffset, rest, fua, this),
    );`,
    fuzzers: LIVES,
  },
  {
    name: 'room-forgets-the-payload',
    law: 6,
    story: 'a write is accepted when there is room for one block of it',
    file: 'src/volume/appender.ts',
    find: 'const payloads = parts.body.length / BLOCK_BYTES + parts.edges.length;',
    replace: 'const payloads = Math.min(1, parts.body.length) + parts.edges.length;',
    fuzzers: LIVES,
  },
  {
    name: 'room-forgets-the-headers',
    law: 6,
    story: 'room is counted for payloads, and not for the header blocks between them',
    file: 'log/stream.ts',
    find: 'const blocks = payloads + headers;',
    replace: 'const blocks = payloads;',
    fuzzers: LIVES,
  },
  {
    name: 'ring-overwritten-before-durable',
    law: 1,
    story: 'the ring takes what fits its size, not what fits behind the durable position',
    file: 'log/stream.ts',
    find: "return bytes <= this.#ring.room(this.#options.durable().lsn) ? 'yes' : 'ring';",
    replace: "return bytes <= this.#ring.size ? 'yes' : 'ring';",
    fuzzers: LIVES,
  },
  {
    name: 'ring-holds-one-block-more',
    law: 5,
    story: 'the block before the tail of the ring counts as held, though it was overwritten',
    file: 'log/ring.ts',
    find: 'return position >= this.tail && position < this.#head;',
    replace: 'return position >= this.tail - BLOCK_BYTES && position < this.#head;',
    fuzzers: LIVES,
  },
  {
    name: 'no-new-lineage',
    law: 1,
    story: 'a writable opening goes on with the lineage before it, and gives numbers out again',
    file: 'src/volume/appender.ts',
    find: 'if (!this.#lineageStarted) this.#startLineage();',
    replace: '',
    fuzzers: LIVES,
  },
  {
    name: 'flush-boundary-missed',
    law: 3,
    story: 'the timeline is not told of a flush, so `flush-1` names an older one',
    file: 'src/volume/appender.ts',
    find: '    core.timeline.addFlush(core.head);\n',
    replace: '',
    fuzzers: LIVES,
  },
];
