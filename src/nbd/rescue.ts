/**
 * A read that met a bad block: read again block by block, so that the client gets what is good,
 * and an error with its offset for what is not.
 *
 * Source: doc/proto.md, section "NBD_CMD_READ", structured replies.
 */
import { assert } from '../base/assert.ts';
import { isVarveError, type VarveError } from '../base/errors.ts';
import { BLOCK_BYTES, byteOffset } from '../base/units.ts';
import type { BlockDevice } from '../device/block-device.ts';
import { MESSAGE_BYTES_MAX } from './limits.ts';
import type { Outbox } from './outbox.ts';
import { NBD_CMD_FLAG_DF, NBD_CMD_READ, NBD_ERRORS } from './protocol.ts';
import { encodeError, encodeNone, putOffsetData } from './replies.ts';
import type { Request } from './request.ts';

/** After so many bad blocks the rest is not looked at. */
const BAD_BLOCKS_MAX = 16;
const HEADER_BYTES = 28;

interface Bad {
  readonly offset: number;
  readonly error: VarveError;
}

interface Good {
  readonly offset: number;
  length: number;
}

/** Errors that may concern one block of many; others would only be met again. */
export function mayRescue(request: Request, error: VarveError): boolean {
  return (
    request.type === NBD_CMD_READ &&
    request.store !== undefined &&
    (error.code === 'BLOCK_CORRUPT' || error.code === 'DEVICE_IO')
  );
}

class Rescued {
  readonly #request: Request;
  readonly #dataStart: number;
  readonly good: Good[] = [];
  readonly bad: Bad[] = [];

  constructor(request: Request, dataStart: number) {
    this.#request = request;
    this.#dataStart = dataStart;
  }

  addGood(offset: number, length: number): void {
    const last = this.good.at(-1);
    if (last !== undefined && last.offset + last.length === offset) last.length += length;
    else this.good.push({ offset, length });
  }

  /** With DF there is no content chunk: it would have to hold the bad blocks as well. */
  send(outbox: Outbox): void {
    const request = this.#request;
    const { store, offset: from = 0, flags } = request;
    assert(store !== undefined, 'a rescued read has its store');
    for (const { offset, length } of (flags & NBD_CMD_FLAG_DF) === 0 ? this.good : []) {
      const header = Buffer.allocUnsafe(HEADER_BYTES);
      putOffsetData(header, 0, request, { offset, length, done: false });
      outbox.bytes(header, 0);
      const start = this.#dataStart + offset - from;
      store.pins += 1;
      outbox.stored(store, start, start + length, 0);
    }
    for (const { offset, error } of this.bad) {
      const chunk = {
        error: NBD_ERRORS[error.errno],
        message: error.message,
        messageBytesMax: MESSAGE_BYTES_MAX,
        done: false,
        offset,
      };
      outbox.bytes(encodeError(request, chunk), 0);
    }
    outbox.bytes(encodeNone(request), 1);
  }
}

export async function rescueRead(
  device: BlockDevice,
  request: Request,
  headerBytes: number,
): Promise<Rescued> {
  const { store, offset: from = 0, length, start } = request;
  assert(store !== undefined, 'a rescued read has its store');
  const dataStart = start + headerBytes;
  const rescued = new Rescued(request, dataStart);
  let offset = from;
  while (offset < from + length && rescued.bad.length < BAD_BLOCKS_MAX) {
    const end = Math.min((Math.floor(offset / BLOCK_BYTES) + 1) * BLOCK_BYTES, from + length);
    const at = dataStart + offset - from;
    try {
      await device.read(byteOffset(offset), store.bytes.subarray(at, at + end - offset));
      rescued.addGood(offset, end - offset);
    } catch (error) {
      if (!isVarveError(error)) throw error;
      rescued.bad.push({ offset, error });
    }
    offset = end;
  }
  return rescued;
}
