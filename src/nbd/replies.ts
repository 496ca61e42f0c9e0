/**
 * Replies of the transmission phase on the wire. Pure.
 *
 * Source: doc/proto.md, sections "Simple reply message", "Structured reply chunk message" and
 * "Structured reply types".
 */
import { assert } from '../base/assert.ts';
import type { StatusRun } from '../device/block-device.ts';
import * as nbd from './protocol.ts';
import { encodeText, putUint16, putUint32, putUint64 } from './wire.ts';

/** What of a request its replies repeat. */
export interface Cookie {
  readonly cookieHigh: number;
  readonly cookieLow: number;
}

export function putSimpleReply(bytes: Uint8Array, at: number, cookie: Cookie, error = 0): void {
  putUint32(bytes, at, nbd.NBD_SIMPLE_REPLY_MAGIC);
  putUint32(bytes, at + 4, error);
  putUint32(bytes, at + 8, cookie.cookieHigh);
  putUint32(bytes, at + 12, cookie.cookieLow);
}

export interface Chunk {
  readonly type: number;
  readonly done: boolean;
  /** Of what follows the header. */
  readonly length: number;
}

export function putChunk(bytes: Uint8Array, at: number, cookie: Cookie, chunk: Chunk): void {
  putUint32(bytes, at, nbd.NBD_STRUCTURED_REPLY_MAGIC);
  putUint16(bytes, at + 4, chunk.done ? nbd.NBD_REPLY_FLAG_DONE : 0);
  putUint16(bytes, at + 6, chunk.type);
  putUint32(bytes, at + 8, cookie.cookieHigh);
  putUint32(bytes, at + 12, cookie.cookieLow);
  putUint32(bytes, at + 16, chunk.length);
}

export interface Extent {
  readonly offset: number;
  readonly length: number;
  readonly done: boolean;
}

/** Before `length` bytes of data: 28 bytes. */
export function putOffsetData(bytes: Uint8Array, at: number, cookie: Cookie, data: Extent): void {
  const { offset, length, done } = data;
  putChunk(bytes, at, cookie, { type: nbd.NBD_REPLY_TYPE_OFFSET_DATA, done, length: length + 8 });
  putUint64(bytes, at + nbd.NBD_CHUNK_BYTES, offset);
}

/** `length` zeros in 32 bytes. */
export function putOffsetHole(bytes: Uint8Array, at: number, cookie: Cookie, hole: Extent): void {
  const { offset, length, done } = hole;
  putChunk(bytes, at, cookie, { type: nbd.NBD_REPLY_TYPE_OFFSET_HOLE, done, length: 12 });
  putUint64(bytes, at + nbd.NBD_CHUNK_BYTES, offset);
  putUint32(bytes, at + nbd.NBD_CHUNK_BYTES + 8, length);
}

/** A reply without content. */
export function encodeNone(cookie: Cookie): Buffer {
  const bytes = Buffer.allocUnsafe(nbd.NBD_CHUNK_BYTES);
  putChunk(bytes, 0, cookie, { type: nbd.NBD_REPLY_TYPE_NONE, done: true, length: 0 });
  return bytes;
}

export interface ErrorChunk {
  readonly error: number;
  readonly message: string;
  readonly messageBytesMax: number;
  readonly done: boolean;
  /** Where it failed, if that is known. */
  readonly offset?: number;
}

export function encodeError(cookie: Cookie, chunk: ErrorChunk): Buffer {
  const { error, offset, done } = chunk;
  const text = encodeText(chunk.message, chunk.messageBytesMax);
  const length = 6 + text.length + (offset === undefined ? 0 : 8);
  const bytes = Buffer.allocUnsafe(nbd.NBD_CHUNK_BYTES + length);
  const type = offset === undefined ? nbd.NBD_REPLY_TYPE_ERROR : nbd.NBD_REPLY_TYPE_ERROR_OFFSET;
  putChunk(bytes, 0, cookie, { type, done, length });
  putUint32(bytes, nbd.NBD_CHUNK_BYTES, error);
  putUint16(bytes, nbd.NBD_CHUNK_BYTES + 4, text.length);
  bytes.set(text, nbd.NBD_CHUNK_BYTES + 6);
  if (offset !== undefined) putUint64(bytes, bytes.length - 8, offset);
  return bytes;
}

export interface StatusAnswer {
  readonly id: number;
  readonly runs: readonly StatusRun[];
  readonly done: boolean;
}

/** Neighbours of one status become one descriptor. */
function mergeRuns(runs: readonly StatusRun[]): { length: number; flags: number }[] {
  const merged: { length: number; flags: number }[] = [];
  for (const { length, flags } of runs) {
    assert(length > 0, 'a status run covers at least one byte');
    const last = merged.at(-1);
    if (last?.flags === flags) last.length += length;
    else merged.push({ length, flags });
  }
  return merged;
}

/** What an answer of `runs` runs takes at most. */
export function statusBytes(runs: number): number {
  return nbd.NBD_CHUNK_BYTES + 4 + 8 * runs;
}

/**
 * The answer of one context to BLOCK_STATUS.
 * @returns the position after it
 */
export function putStatus(
  bytes: Uint8Array,
  start: number,
  cookie: Cookie,
  { id, runs, done }: StatusAnswer,
): number {
  const merged = mergeRuns(runs);
  assert(merged.length > 0, 'a status answer covers at least one byte');
  const length = 4 + 8 * merged.length;
  putChunk(bytes, start, cookie, { type: nbd.NBD_REPLY_TYPE_BLOCK_STATUS, done, length });
  let at = start + nbd.NBD_CHUNK_BYTES;
  putUint32(bytes, at, id);
  at += 4;
  for (const run of merged) {
    assert(run.length < 2 ** 32, 'a status answer stays within the request');
    putUint32(bytes, at, run.length);
    putUint32(bytes, at + 4, run.flags);
    at += 8;
  }
  return at;
}
