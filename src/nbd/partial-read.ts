/**
 * The answer to a read that is good but for some ranges: content for what is good, and an error
 * with its offset for each bad range.
 *
 * The headers of the chunks lie in the reply's own store: the header of a good range in the bytes
 * before it, an error in the bad bytes that nobody sends. So the answer takes no more memory than
 * a good one, however many ranges there are.
 *
 * Source: doc/proto.md, section "NBD_CMD_READ", structured replies.
 */
import { assert } from '../base/assert.ts';
import type { UnreadableError } from '../base/unreadable.ts';
import { MESSAGE_BYTES_MAX, MESSAGE_UNSENT_BYTES_MAX } from './limits.ts';
import type { Store } from './memory.ts';
import type { Outbox } from './outbox.ts';
import * as nbd from './protocol.ts';
import { encodeError, putOffsetData, putOffsetHole } from './replies.ts';
import type { Request } from './request.ts';
import { isZero } from './zeros.ts';

/** So many errors of one answer say in words what is wrong. */
const MESSAGES_MAX = 16;
/** Zeros of this length and more are sent as a hole. */
const HOLE_BYTES_MIN = 4096;

interface Part {
  readonly offset: number;
  readonly length: number;
  /** Of a bad part: what is wrong. */
  readonly why: string | undefined;
}

/** Good and bad parts of the request, in order. */
function partsOf({ offset: from = 0, length }: Request, error: UnreadableError): readonly Part[] {
  const parts: Part[] = [];
  let at = from;
  for (const { offset, length: bad, why } of error.ranges) {
    assert(offset >= at && offset + bad <= from + length, 'bad ranges ascend inside the request');
    if (offset > at) parts.push({ offset: at, length: offset - at, why: undefined });
    parts.push({ offset, length: bad, why });
    at = offset + bad;
  }
  if (at < from + length) parts.push({ offset: at, length: from + length - at, why: undefined });
  return parts;
}

/**
 * Sends the answer; the store's pin of the request goes with it.
 * @param headerBytes - what lies before the data in the store
 */
export function sendPartial(
  outbox: Outbox,
  request: Request,
  headerBytes: number,
  error: UnreadableError,
): void {
  const { store, offset: from = 0, start, flags } = request;
  assert(store !== undefined, 'a read has its store');
  let parts = partsOf(request, error);
  // With DF there is one content chunk at most: it would have to hold the bad ranges as well.
  const isWhole = (flags & nbd.NBD_CMD_FLAG_DF) !== 0;
  if (isWhole && parts.filter(({ why }) => why === undefined).length > 1) {
    parts = parts.filter(({ why }) => why !== undefined);
  }
  let messages = outbox.unsentBytes > MESSAGE_UNSENT_BYTES_MAX ? 0 : MESSAGES_MAX;
  parts.forEach(({ offset, length, why }, i) => {
    const at = start + headerBytes + offset - from;
    const done = i === parts.length - 1;
    if (why === undefined) {
      sendContent(outbox, request, store, { offset, length, at, done });
      return;
    }
    const chunk = encodeError(request, {
      error: nbd.NBD_ERRORS[error.errno],
      message: why,
      messageBytesMax: messages > 0 ? MESSAGE_BYTES_MAX : 0,
      done,
      offset,
    });
    messages -= 1;
    // The next header takes the last bytes of the bad range.
    if (chunk.length + nbd.NBD_OFFSET_DATA_BYTES > length) outbox.bytes(chunk, done ? 1 : 0);
    else {
      store.bytes.set(chunk, at);
      sendStored(outbox, store, at, at + chunk.length, done);
    }
  });
  store.release();
}

interface Content {
  readonly offset: number;
  readonly length: number;
  /** Where its first byte lies in the store. */
  readonly at: number;
  readonly done: boolean;
}

function sendContent(
  outbox: Outbox,
  request: Request,
  store: Store,
  { offset, length, at, done }: Content,
): void {
  const header = at - nbd.NBD_OFFSET_DATA_BYTES;
  if (length >= HOLE_BYTES_MIN && isZero(store.bytes, at, at + length)) {
    putOffsetHole(store.bytes, header, request, { offset, length, done });
    sendStored(outbox, store, header, header + nbd.NBD_OFFSET_HOLE_BYTES, done);
  } else {
    putOffsetData(store.bytes, header, request, { offset, length, done });
    sendStored(outbox, store, header, at + length, done);
  }
}

function sendStored(outbox: Outbox, store: Store, from: number, to: number, done: boolean): void {
  store.pins += 1;
  outbox.stored(store, from, to, done ? 1 : 0);
}
