/**
 * One request of the transmission phase: its header on the wire, and what can be said of it
 * without asking the device. Pure.
 *
 * Source: doc/proto.md, sections "Request message", "Command flags", "Request types" and
 * "Error values".
 */
import type { Errno } from '../base/errors.ts';
import * as nbd from './protocol.ts';
import type { Store } from './memory.ts';
import { putUint16, putUint32, putUint64, uint16, uint32, uint64 } from './wire.ts';

export class Request {
  readonly type: number;
  readonly flags: number;
  /** The client's cookie, opaque, in two halves. */
  readonly cookieHigh: number;
  readonly cookieLow: number;
  /** Undefined: beyond what a number holds, so beyond every device. */
  readonly offset: number | undefined;
  readonly length: number;
  /** Its payload or its reply, from `start` on. */
  store: Store | undefined = undefined;
  start = 0;
  /** Where a reply ends whose length only the device knows. */
  end = 0;
  /** Why it is refused; a write's payload is consumed before the client hears of it. */
  refusal: Errno | undefined = undefined;

  constructor(bytes: Uint8Array, at: number) {
    this.flags = uint16(bytes, at + 4);
    this.type = uint16(bytes, at + 6);
    this.cookieHigh = uint32(bytes, at + 8);
    this.cookieLow = uint32(bytes, at + 12);
    this.offset = uint64(bytes, at + 16);
    this.length = uint32(bytes, at + 24);
  }
}

/** @returns undefined when the magic is wrong: nothing after it can be understood */
export function decodeRequest(bytes: Uint8Array, at: number): Request | undefined {
  return uint32(bytes, at) === nbd.NBD_REQUEST_MAGIC ? new Request(bytes, at) : undefined;
}

export interface RequestFields {
  readonly type: number;
  readonly flags?: number;
  readonly cookie: number;
  readonly offset?: number;
  readonly length?: number;
}

export function encodeRequest(fields: RequestFields): Buffer {
  const bytes = Buffer.allocUnsafe(nbd.NBD_REQUEST_BYTES);
  putUint32(bytes, 0, nbd.NBD_REQUEST_MAGIC);
  putUint16(bytes, 4, fields.flags ?? 0);
  putUint16(bytes, 6, fields.type);
  putUint64(bytes, 8, fields.cookie);
  putUint64(bytes, 16, fields.offset ?? 0);
  putUint32(bytes, 24, fields.length ?? 0);
  return bytes;
}

/** What a request is measured by. */
export interface RequestBounds {
  readonly size: number;
  readonly readOnly: boolean;
  readonly payloadBytesMax: number;
  readonly structured: boolean;
  /** How many metadata contexts were selected. */
  readonly contexts: number;
}

/** FUA is valid with every command. */
const FLAGS_OF: Readonly<Record<number, number>> = {
  [nbd.NBD_CMD_READ]: nbd.NBD_CMD_FLAG_FUA | nbd.NBD_CMD_FLAG_DF,
  [nbd.NBD_CMD_WRITE]: nbd.NBD_CMD_FLAG_FUA,
  [nbd.NBD_CMD_FLUSH]: nbd.NBD_CMD_FLAG_FUA,
  [nbd.NBD_CMD_TRIM]: nbd.NBD_CMD_FLAG_FUA,
  [nbd.NBD_CMD_CACHE]: nbd.NBD_CMD_FLAG_FUA,
  [nbd.NBD_CMD_WRITE_ZEROES]:
    nbd.NBD_CMD_FLAG_FUA | nbd.NBD_CMD_FLAG_NO_HOLE | nbd.NBD_CMD_FLAG_FAST_ZERO,
  [nbd.NBD_CMD_BLOCK_STATUS]: nbd.NBD_CMD_FLAG_FUA | nbd.NBD_CMD_FLAG_REQ_ONE,
};

function changes(type: number): boolean {
  return (
    type === nbd.NBD_CMD_WRITE || type === nbd.NBD_CMD_TRIM || type === nbd.NBD_CMD_WRITE_ZEROES
  );
}

/** Reserving space may take as long as writing would, so that is never promised to be fast. */
function isSlowZero(flags: number): boolean {
  const both = nbd.NBD_CMD_FLAG_FAST_ZERO | nbd.NBD_CMD_FLAG_NO_HOLE;
  return (flags & both) === both;
}

/**
 * Requests of no bytes, at the end of the device too, are legal and do nothing; BLOCK_STATUS of no
 * bytes is not, since every descriptor of its answer has a length.
 *
 * @returns the error that the client is to get; undefined when the device may be asked
 */
export function refusalOf(request: Request, bounds: RequestBounds): Errno | undefined {
  const { type, flags, offset, length } = request;
  const flagsKnown = FLAGS_OF[type];
  if (flagsKnown === undefined || (flags & ~flagsKnown) !== 0) return 'EINVAL';
  if ((flags & nbd.NBD_CMD_FLAG_DF) !== 0 && !bounds.structured) return 'EINVAL';
  if (bounds.readOnly && changes(type)) return 'EPERM';
  if (type === nbd.NBD_CMD_FLUSH) return offset === 0 && length === 0 ? undefined : 'EINVAL';
  if (offset === undefined || offset > bounds.size || length > bounds.size - offset) {
    return type === nbd.NBD_CMD_WRITE || type === nbd.NBD_CMD_WRITE_ZEROES ? 'ENOSPC' : 'EINVAL';
  }
  if (type === nbd.NBD_CMD_READ || type === nbd.NBD_CMD_WRITE) {
    return length > bounds.payloadBytesMax ? 'EOVERFLOW' : undefined;
  }
  if (type === nbd.NBD_CMD_BLOCK_STATUS) {
    return bounds.contexts === 0 || length === 0 ? 'EINVAL' : undefined;
  }
  if (type === nbd.NBD_CMD_WRITE_ZEROES && isSlowZero(flags)) return 'ENOTSUP';
  return undefined;
}

/** For people: what a refusal means. */
export function refusalText(request: Request, bounds: RequestBounds): string {
  const { offset, length, type, flags } = request;
  const at = offset === undefined ? 'beyond 2^53' : String(offset);
  return (
    `command ${type}, flags ${flags}, offset ${at}, length ${length} on a device of ` +
    `${bounds.size} bytes with payloads up to ${bounds.payloadBytesMax}`
  );
}
