/**
 * Any bytes at all, for every decoder of the protocol, on the server's side and on the client's:
 * a value, or a VarveError. What was decoded is encoded and decoded again, and is the same.
 */
import fc from 'fast-check';
import { deepStrictEqual } from 'node:assert';
import { assert } from '../../src/base/assert.ts';
import { isVarveError } from '../../src/base/errors.ts';
import { Coverage } from '../../src/nbd/coverage.ts';
import { ReplyReader, type Pending } from '../../src/nbd/client-replies.ts';
import { QUERIES_MAX } from '../../src/nbd/limits.ts';
import {
  decodeContextQuery,
  decodeInfoQuery,
  decodeOptionHeader,
  decodeReplyHeader,
  encodeContextQuery,
  encodeInfoQuery,
  encodeOption,
} from '../../src/nbd/options.ts';
import * as nbd from '../../src/nbd/protocol.ts';
import { encodeError, encodeNone, putOffsetData, putOffsetHole } from '../../src/nbd/replies.ts';
import { decodeRequest, refusalOf } from '../../src/nbd/request.ts';
import { decodeString, encodeText } from '../../src/nbd/wire.ts';
import type { Fuzzer } from '../options.ts';

/** Undefined for bytes that are no message; anything but a VarveError is a failure. */
function decoded<T>(decode: () => T): T | undefined {
  try {
    return decode();
  } catch (error) {
    if (!isVarveError(error, 'PROTOCOL')) throw error;
    return undefined;
  }
}

/** Bytes that look like lengths and names more often than chance would have it. */
const field = fc.oneof(
  fc.nat(8).map((value) => [0, 0, 0, value]),
  fc.constantFrom([255, 255, 255, 255], [0, 0, 16, 0], [0, 1], [0]),
  fc.string({ maxLength: 12 }).map((text) => [...Buffer.from(text)]),
  fc.string({ maxLength: 12 }).map((text) => [0, 0, 0, text.length, ...Buffer.from(text)]),
  fc.array(fc.nat(255), { maxLength: 12 }),
);
const data = fc.array(field, { maxLength: 12 }).map((parts) => Uint8Array.from(parts.flat()));

function checkOptions(bytes: Uint8Array): void {
  const header = decoded(() => decodeOptionHeader(bytes));
  if (header !== undefined) {
    const again = encodeOption(header.option).subarray(0, 12);
    assert(again.equals(bytes.subarray(0, 12)), 'an option header is written as it was read');
  }
  decoded(() => decodeReplyHeader(bytes));
  const info = decoded(() => decodeInfoQuery(bytes));
  if (info !== undefined) deepStrictEqual(decodeInfoQuery(encodeInfoQuery(info)), info);
  const contexts = decoded(() => decodeContextQuery(bytes));
  if (contexts !== undefined) {
    assert(contexts.queries.length <= QUERIES_MAX, 'queries are bounded');
    deepStrictEqual(decodeContextQuery(encodeContextQuery(contexts)), contexts);
  }
  const text = decoded(() => decodeString(bytes, 'a string'));
  if (text !== undefined) assert(encodeText(text).equals(bytes), 'a string is canonical');
}

const bounds = {
  size: 2 ** 30,
  readOnly: false,
  payloadBytesMax: 2 ** 25,
  structured: true,
  contexts: 1,
};

const PAYLOADS = new Set([nbd.NBD_CMD_READ, nbd.NBD_CMD_WRITE]);

function checkRequest(bytes: Uint8Array): void {
  const whole = Buffer.alloc(nbd.NBD_REQUEST_BYTES);
  whole.set(bytes.subarray(0, whole.length));
  assert(decodeRequest(whole, 0) === undefined || bytes.length > 3, 'a magic is four bytes');
  whole.writeUInt32BE(nbd.NBD_REQUEST_MAGIC);
  // Commands that exist, more often than not.
  if ((whole[6] ?? 0) % 2 === 0) whole.writeUInt16BE((whole[7] ?? 0) % 9, 6);
  const request = decodeRequest(whole, 0);
  assert(request !== undefined, 'a request with its magic is one');
  if (refusalOf(request, bounds) !== undefined) return;
  const { offset, length, type } = request;
  assert(offset !== undefined && offset + length <= bounds.size, 'it lies in the device');
  if (PAYLOADS.has(type)) assert(length <= bounds.payloadBytesMax, 'its payload is bounded');
}

/** Replies of a server that means harm: the client's reads stay where they belong. */
function checkReplies(bytes: Uint8Array, pieces: number): void {
  const cookie = { cookieHigh: 0, cookieLow: 1 };
  const target = Buffer.alloc(32);
  const pendings = new Map<number, Pending>();
  let finished = 0;
  for (const key of [0, 1, 2]) {
    pendings.set(key, {
      offset: 100,
      length: key === 1 ? 16 : 0,
      target: key === 1 ? target.subarray(8, 24) : undefined,
      coverage: new Coverage(),
      error: undefined,
      came: undefined,
      placed: undefined,
      status: key === 2 ? new Map() : undefined,
      finish: () => {
        finished += 1;
      },
    });
  }
  const chunk = Buffer.alloc(64);
  putOffsetData(chunk, 0, cookie, { offset: 100, length: 4, done: false });
  putOffsetHole(chunk, 32, cookie, { offset: 104, length: 4, done: false });
  const parts = [
    chunk.subarray(0, 32),
    chunk.subarray(32),
    encodeError(cookie, { error: 5, message: 'x', messageBytesMax: 9, done: false, offset: 100 }),
    bytes,
    encodeNone(cookie),
  ];
  const stream = Buffer.concat(parts.slice(pieces % 4));
  const reader = new ReplyReader(pendings);
  for (let at = 0; at < stream.length; at += 1 + pieces) {
    const isGood = decoded(() => {
      reader.data(stream.subarray(at, at + 1 + pieces));
      return true;
    });
    if (isGood === undefined) break;
  }
  assert(finished + pendings.size === 3, 'a request is finished once');
  const around = Buffer.concat([target.subarray(0, 8), target.subarray(24)]);
  assert(
    around.every((byte) => byte === 0),
    'a read fills its own bytes only',
  );
}

export const fuzzer: Fuzzer = {
  name: 'nbd-codecs',
  main({ seed, runs, onStep }) {
    fc.assert(
      fc.property(data, fc.nat(40), (bytes, pieces) => {
        onStep?.();
        checkOptions(bytes);
        checkOptions(Buffer.concat([Buffer.from('IHAVEOPT'), bytes]));
        checkRequest(bytes);
        checkReplies(bytes, pieces);
      }),
      { seed, numRuns: runs * 10 },
    );
  },
};
