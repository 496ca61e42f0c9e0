/**
 * The replies of a server, from bytes to finished requests. Data of a read goes straight into
 * its place.
 *
 * Invariants:
 *   - A request is finished once; a read only when each of its bytes came, once, or with an error.
 *   - Bytes that are no reply to anything asked are a VarveError PROTOCOL.
 */
import type { Errno } from '../base/errors.ts';
import { byteCount, byteOffset } from '../base/units.ts';
import type { UnreadableRange } from '../base/unreadable.ts';
import type { Coverage } from './coverage.ts';
import { CONTEXTS_MAX } from './limits.ts';
import * as nbd from './protocol.ts';
import { protocolError, uint16, uint32, uint64 } from './wire.ts';

interface Extent {
  readonly offset: number;
  readonly length: number;
}

export interface ReplyError {
  readonly errno: Errno;
  readonly message: string;
  /** Where, if the server said so. */
  readonly offset: number | undefined;
}

/** A request that waits for its reply. */
export interface Pending {
  readonly offset: number;
  readonly length: number;
  /** Of a read: filled as its data come. */
  readonly target: Buffer | undefined;
  /** Of a read: what of the target came. */
  readonly coverage: Coverage;
  /** The first one. */
  error: ReplyError | undefined;
  /** Of a read that did not come in one piece: what came. */
  came: Extent[] | undefined;
  /** Errors that named their place; undefined once one did not. */
  placed: ReplyError[] | undefined;
  /** Of BLOCK_STATUS: descriptors by context. */
  status: Map<number, { length: number; flags: number }[]> | undefined;
  finish(): void;
}

/**
 * The parts of a read that did not come, when each error of its reply named its place: what came
 * is good then.
 */
export function missingOf(pending: Pending): readonly UnreadableRange[] | undefined {
  const { placed, came = [], offset: from, length } = pending;
  if (placed === undefined || placed.length === 0) return undefined;
  const missing: UnreadableRange[] = [];
  const note = (start: number, end: number): void => {
    if (end <= start) return;
    const error = placed.find(({ offset = -1 }) => offset >= start && offset < end) ?? placed[0];
    const [offset, bytes] = [byteOffset(start), byteCount(end - start)];
    missing.push({ offset, length: bytes, why: error?.message ?? '' });
  };
  const failed = placed.map(({ offset = -1 }) => offset);
  let at = from;
  for (const part of [...came].sort((a, b) => a.offset - b.offset)) {
    note(at, part.offset);
    // What was sent in spite of an error is good up to the error.
    const end = part.offset + part.length;
    at = Math.max(at, Math.min(end, ...failed.filter((one) => one >= part.offset && one < end)));
  }
  note(at, from + length);
  return missing.length === 0 ? undefined : missing;
}

const ERRNOS = new Map<number, Errno>([
  [1, 'EPERM'],
  [5, 'EIO'],
  [12, 'ENOMEM'],
  [22, 'EINVAL'],
  [28, 'ENOSPC'],
  [75, 'EOVERFLOW'],
  [95, 'ENOTSUP'],
  [108, 'ESHUTDOWN'],
]);

/** "The client SHOULD treat an unexpected error value as if it had been NBD_EINVAL." */
function errnoOf(value: number): Errno {
  return ERRNOS.get(value) ?? 'EINVAL';
}

/** Longest payload of a chunk that is no data: an answer of 2^20 descriptors. */
const PAYLOAD_BYTES_MAX = 4 + 8 * 2 ** 20;

/** Chunks of one reply: good ones and bad, for each block of the largest request. */
const CHUNKS_MAX = 16_384;

function needFew(chunks: number): void {
  if (chunks >= CHUNKS_MAX) throw protocolError('a reply in too many chunks');
}

interface ChunkHead {
  readonly pending: Pending;
  readonly cookie: number;
  readonly type: number;
  readonly done: boolean;
  readonly length: number;
}

export class ReplyReader {
  readonly #pending: Map<number, Pending>;
  readonly #head = Buffer.alloc(nbd.NBD_CHUNK_BYTES);
  /** What is being filled, and what is done with it when it is full. */
  #into: Buffer = this.#head.subarray(0, nbd.NBD_SIMPLE_REPLY_BYTES);
  #filled = 0;
  #then: () => void = () => {
    this.#decodeHead();
  };

  /** @param pending - by cookie; what is finished is taken out */
  constructor(pending: Map<number, Pending>) {
    this.#pending = pending;
  }

  /** @throws VarveError PROTOCOL */
  data(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.length) {
      const count = Math.min(this.#into.length - this.#filled, bytes.length - at);
      this.#into.set(bytes.subarray(at, at + count), this.#filled);
      this.#filled += count;
      at += count;
      if (this.#filled === this.#into.length) this.#then();
    }
  }

  #expect(into: Buffer, then: () => void): void {
    this.#into = into;
    this.#filled = 0;
    this.#then = then;
    if (into.length === 0) then();
  }

  #expectHead(): void {
    this.#expect(this.#head.subarray(0, nbd.NBD_SIMPLE_REPLY_BYTES), () => {
      this.#decodeHead();
    });
  }

  #find(): { cookie: number; pending: Pending } {
    const cookie = uint64(this.#head, 8);
    const pending = cookie === undefined ? undefined : this.#pending.get(cookie);
    if (cookie === undefined || pending === undefined) throw protocolError('an unknown cookie');
    return { cookie, pending };
  }

  #decodeHead(): void {
    const magic = uint32(this.#head, 0);
    if (magic === nbd.NBD_SIMPLE_REPLY_MAGIC) this.#simple();
    else if (magic === nbd.NBD_STRUCTURED_REPLY_MAGIC) {
      this.#expect(this.#head.subarray(nbd.NBD_SIMPLE_REPLY_BYTES), () => {
        this.#chunk();
      });
    } else throw protocolError(`a reply begins with 0x${magic.toString(16)}`);
  }

  #simple(): void {
    const { cookie, pending } = this.#find();
    const error = uint32(this.#head, 4);
    if (error !== 0) {
      this.#failed(pending, { errno: errnoOf(error), message: '', offset: undefined });
    } else if (pending.target !== undefined) {
      this.#expect(pending.target, () => {
        this.#cover(pending, 0, pending.length);
        this.#finish(cookie, pending);
      });
      return;
    }
    this.#finish(cookie, pending);
  }

  #finish(cookie: number, pending: Pending): void {
    const isShort = pending.target !== undefined && pending.coverage.bytes !== pending.length;
    if (isShort && pending.error === undefined) throw protocolError('a read without all its data');
    this.#pending.delete(cookie);
    pending.finish();
    this.#expectHead();
  }

  #chunk(): void {
    const { cookie, pending } = this.#find();
    const done = (uint16(this.#head, 4) & nbd.NBD_REPLY_FLAG_DONE) !== 0;
    const type = uint16(this.#head, 6);
    const length = uint32(this.#head, 16);
    const head = { cookie, pending, type, done, length };
    if (type === nbd.NBD_REPLY_TYPE_OFFSET_DATA) this.#offsetData(head);
    else if (length > PAYLOAD_BYTES_MAX) throw protocolError(`a chunk of ${length} bytes`);
    else {
      const payload = Buffer.alloc(length);
      this.#expect(payload, () => {
        this.#payload(head, payload);
        this.#chunkDone(head);
      });
    }
  }

  #chunkDone({ cookie, pending, done }: ChunkHead): void {
    if (done) this.#finish(cookie, pending);
    else this.#expectHead();
  }

  #offsetData(head: ChunkHead): void {
    const { pending, length } = head;
    const at = Buffer.alloc(8);
    if (length < 9) throw protocolError('a data chunk without data');
    this.#expect(at, () => {
      const place = this.#place(pending, uint64(at, 0), length - 8);
      this.#expect(place, () => {
        this.#came(pending, uint64(at, 0), place.length);
        this.#chunkDone(head);
      });
    });
  }

  /** The part of a read's target that a content chunk is about. */
  #place(pending: Pending, offset: number | undefined, length: number): Buffer {
    const { target } = pending;
    const start = (offset ?? -1) - pending.offset;
    if (target === undefined || start < 0 || start + length > target.length) {
      throw protocolError('content that was not asked for');
    }
    if (length === 0) throw protocolError('content of no length');
    this.#cover(pending, start, start + length);
    return target.subarray(start, start + length);
  }

  /** "MUST NOT overlap": else bytes that never came would be counted for by those that came twice. */
  #cover(pending: Pending, start: number, end: number): void {
    if (end > start && !pending.coverage.add(start, end)) {
      throw protocolError('content that came before, or in too many parts');
    }
  }

  #payload({ pending, type }: ChunkHead, payload: Buffer): void {
    if ((type & nbd.NBD_REPLY_TYPE_FLAG_ERROR) !== 0) {
      this.#error(pending, type, payload);
      return;
    }
    switch (type) {
      case nbd.NBD_REPLY_TYPE_NONE:
        if (payload.length > 0) throw protocolError('an empty chunk that is not empty');
        return;
      case nbd.NBD_REPLY_TYPE_OFFSET_HOLE: {
        if (payload.length !== 12) throw protocolError('a hole chunk of a wrong length');
        const place = this.#place(pending, uint64(payload, 0), uint32(payload, 8));
        place.fill(0);
        this.#came(pending, uint64(payload, 0), place.length);
        return;
      }
      case nbd.NBD_REPLY_TYPE_BLOCK_STATUS: {
        if (pending.status === undefined || payload.length < 12 || payload.length % 8 !== 4) {
          throw protocolError('a status chunk that was not asked for, or of a wrong length');
        }
        const runs: { length: number; flags: number }[] = [];
        for (let at = 4; at < payload.length; at += 8) {
          runs.push({ length: uint32(payload, at), flags: uint32(payload, at + 4) });
        }
        const context = uint32(payload, 0);
        if (pending.status.has(context) || pending.status.size === CONTEXTS_MAX) {
          throw protocolError('status of a context twice, or of too many');
        }
        pending.status.set(context, runs);
        return;
      }
      default:
        throw protocolError(`a chunk of type ${type}`);
    }
  }

  #error(pending: Pending, type: number, payload: Buffer): void {
    if (payload.length < 6) throw protocolError('an error chunk of a wrong length');
    const end = 6 + uint16(payload, 4);
    if (end > payload.length) throw protocolError('an error message longer than its chunk');
    if (end - 6 > nbd.NBD_STRING_BYTES_MAX) throw protocolError('an error message without end');
    const hasOffset = type === nbd.NBD_REPLY_TYPE_ERROR_OFFSET && payload.length >= end + 8;
    this.#failed(pending, {
      errno: errnoOf(uint32(payload, 0)),
      message: payload.toString('utf8', 6, end),
      offset: hasOffset ? uint64(payload, end) : undefined,
    });
  }

  #failed(pending: Pending, error: ReplyError): void {
    if (pending.error === undefined) pending.placed = [];
    pending.error ??= error;
    if (error.offset === undefined) pending.placed = undefined;
    else {
      needFew(pending.placed?.length ?? 0);
      pending.placed?.push(error);
    }
  }

  #came(pending: Pending, offset: number | undefined, length: number): void {
    if (length === pending.length) return;
    pending.came ??= [];
    needFew(pending.came.length);
    pending.came.push({ offset: offset ?? 0, length });
  }
}
