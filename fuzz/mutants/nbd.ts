/** Bugs of the protocol: replies, flags, bounds. */
import type { Mutant } from './mutant.ts';

const SESSIONS = ['nbd-requests', 'nbd-sessions'];
const CODECS = ['nbd-codecs', 'nbd-requests'];

export const NBD_MUTANTS: readonly Mutant[] = [
  {
    name: 'reply-cookie-swapped',
    law: 'protocol',
    story: 'the halves of a cookie change places in a structured reply',
    file: 'src/nbd/replies.ts',
    find: `  putUint32(bytes, at + 8, cookie.cookieHigh);
  putUint32(bytes, at + 12, cookie.cookieLow);
  putUint32(bytes, at + 16, chunk.length);`,
    replace: `  putUint32(bytes, at + 8, cookie.cookieLow);
  putUint32(bytes, at + 12, cookie.cookieHigh);
  putUint32(bytes, at + 16, chunk.length);`,
    fuzzers: SESSIONS,
  },
  {
    name: 'chunk-offset-from-zero',
    law: 'protocol',
    story: 'a chunk of data says where it lies in the reply, not on the device',
    file: 'src/nbd/executor.ts',
    find: 'const extent = { offset, length, done: true };',
    replace: 'const extent = { offset: offset % 4096, length, done: true };',
    fuzzers: SESSIONS,
  },
  {
    name: 'hole-that-holds-data',
    law: 5,
    story: 'a reply whose end is zeros is sent as a hole',
    file: 'src/nbd/executor.ts',
    find: 'isZero(store.bytes, end - length, end)',
    replace: 'isZero(store.bytes, end - HOLE_BYTES_MIN, end)',
    fuzzers: SESSIONS,
  },
  {
    name: 'fua-flag-dropped',
    law: 1,
    story: 'FUA is taken from the wrong bit of the flags',
    file: 'src/nbd/executor.ts',
    find: 'const fua = (flags & nbd.NBD_CMD_FLAG_FUA) === 0 ? 0 : 1;',
    replace: 'const fua = (flags & nbd.NBD_CMD_FLAG_NO_HOLE) === 0 ? 0 : 1;',
    fuzzers: SESSIONS,
  },
  {
    name: 'trim-sent-as-zero',
    law: 'protocol',
    story: 'a trim is handed on as a zero, which clears partial blocks as well',
    file: 'src/nbd/executor.ts',
    find: 'return this.#device.trim(offset, byteCount(length), WRITE[fua]);',
    replace: 'return this.#device.zero(offset, byteCount(length), ZERO[fua]);',
    fuzzers: SESSIONS,
  },
  {
    name: 'no-hole-forgotten',
    law: 'protocol',
    story: 'zeroes that must stay allocated are punched',
    file: 'src/nbd/executor.ts',
    find: 'const options = noHole ? ZERO[fua === 0 ? 2 : 3] : ZERO[fua];',
    replace: 'const options = noHole && fua === 1 ? ZERO[3] : ZERO[fua];',
    fuzzers: SESSIONS,
  },
  {
    name: 'request-length-not-checked',
    law: 6,
    story: 'a request that begins on the device may end behind it',
    file: 'src/nbd/request.ts',
    find: 'if (offset === undefined || offset > bounds.size || length > bounds.size - offset) {',
    replace: 'if (offset === undefined || offset > bounds.size) {',
    fuzzers: CODECS,
  },
  {
    name: 'refused-payload-taken-for-requests',
    law: 'protocol',
    story: 'the payload of a refused write is not read away, and is taken for the next request',
    file: 'src/nbd/transmission.ts',
    find: '      this.#discarding = request;\n      this.#discardLeft = length;\n    } else this.#executor.refuse(request, refusal);',
    replace:
      '      this.#discardLeft = length;\n    }\n    this.#executor.refuse(request, refusal);',
    fuzzers: SESSIONS,
  },
  {
    name: 'failed-write-answered-as-done',
    law: 5,
    story: 'an error of the device is answered as success',
    file: 'src/nbd/executor.ts',
    find: 'const error = nbd.NBD_ERRORS[errno];\n    if (!this.#structured) {',
    replace:
      'const error = this.#structured ? nbd.NBD_ERRORS[errno] : 0;\n    if (!this.#structured) {',
    fuzzers: SESSIONS,
  },
  {
    name: 'write-budget-never-given-back',
    law: 6,
    story: 'the bytes of a write stay reserved after its answer',
    file: 'src/nbd/executor.ts',
    find: '    store?.release();\n    this.outbox.ack(request, 0);',
    replace: '    this.outbox.ack(request, 0);',
    fuzzers: ['nbd-sessions', 'nbd-requests'],
  },
  {
    name: 'bad-block-answered-as-good',
    law: 5,
    story: 'of several bad ranges of a read only the first is told of, and the others are sent',
    file: 'src/nbd/partial-read.ts',
    find: 'parts.push({ offset, length: bad, why });',
    replace: `const isFirst = parts.every((part) => part.why === undefined);
    parts.push({ offset, length: bad, why: isFirst ? why : undefined });`,
    fuzzers: SESSIONS,
  },
  {
    name: 'flush-not-asked-for',
    law: 1,
    story: 'a flush is answered without the device',
    file: 'src/nbd/executor.ts',
    find: 'if (type === nbd.NBD_CMD_FLUSH) return this.#device.flush();\n    if (length === 0) return undefined;',
    replace: 'if (length === 0) return undefined;',
    fuzzers: SESSIONS,
  },
  {
    name: 'dead-client-not-abandoned',
    law: 1,
    story: 'what a client asked for that is gone is applied later, over what others wrote since',
    file: 'src/nbd/transmission.ts',
    find: '    if (!this.#hasParted) this.#executor.abandon();\n    this.#executor.drop();',
    replace: '    this.#executor.drop();',
    fuzzers: ['nbd-sim'],
  },
  {
    name: 'farewell-without-its-requests',
    law: 'protocol',
    story:
      'what was asked before a farewell is dropped when the client does not stay for the answers',
    file: 'src/nbd/transmission.ts',
    find: '    if (!this.#hasParted) this.#executor.abandon();\n    this.#executor.drop();',
    replace: '    this.#executor.abandon();\n    this.#executor.drop();',
    fuzzers: ['nbd-requests'],
  },
];
