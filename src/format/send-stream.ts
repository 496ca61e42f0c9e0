/**
 * A stream of `varve send`, put together and taken apart: bytes in, values out.
 *
 * Invariants:
 *   - A record is given out only when it is whole, bound to this stream, next in number, and behind
 *     the blocks of the one before: so nothing that was lost, repeated, reordered or taken from
 *     another stream passes.
 *   - A seal is given out only when its digest is that of all that came before, and its counts are.
 *   - At most one record is kept in memory.
 */
import { createHash, type Hash } from 'node:crypto';
import { assert } from '../base/assert.ts';
import { crc32c } from '../base/crc32c.ts';
import { VarveError } from '../base/errors.ts';
import { block as blockOf, BLOCK_BYTES, type Block, type Checksum } from '../base/units.ts';
import { decode, encode, numberOf, textOf, viewOf } from './record.ts';
import {
  SEND_ALLOCATED,
  SEND_BLOCKS_MAX,
  SEND_DATA,
  SEND_END,
  SEND_HOLE,
  SEND_RECORD_MAGIC,
  SEND_SEAL,
  sendHeader,
  sendRecord,
  sendSeal,
} from './send-layouts.ts';
import {
  beginningOf,
  decodeStreamHeader,
  encodeStreamHeader,
  streamSeed,
  type StreamHeader,
  type StreamPlace,
} from './send.ts';

/** What a stretch of blocks holds. */
export type StretchKind = 'data' | 'hole' | 'allocated';

export type StreamPart =
  | { readonly kind: 'header'; readonly header: StreamHeader }
  | { readonly kind: 'data'; readonly block: Block; readonly bytes: Uint8Array }
  | { readonly kind: 'hole' | 'allocated'; readonly block: Block; readonly count: number }
  /** All before is whole; `end`: and there is no more. */
  | { readonly kind: 'seal' | 'end'; readonly place: StreamPlace };

const KIND_OF = { data: SEND_DATA, hole: SEND_HOLE, allocated: SEND_ALLOCATED } as const;

/** What both ends count alike. */
class Course {
  readonly seed: Checksum;
  number: number;
  nextBlock: number;
  #digest: string;
  #hash: Hash;
  readonly counts = { data: 0, hole: 0, allocated: 0 };

  constructor({ identity, place }: StreamHeader) {
    const at = place ?? beginningOf(identity);
    this.seed = streamSeed(identity);
    this.number = at.records;
    this.nextBlock = at.nextBlock;
    this.#digest = at.digest;
    this.#hash = begin(at.digest);
  }

  add(kind: StretchKind, block: number, count: number): void {
    this.counts[kind] += count;
    this.nextBlock = block + count;
    this.number += 1;
  }

  digest(record: Uint8Array): void {
    this.#hash.update(record);
  }

  /** The digest of all before, and the place behind the seal that says so. */
  seal(): StreamPlace {
    this.#digest = this.#hash.digest('hex');
    this.#hash = begin(this.#digest);
    this.number += 1;
    return { records: this.number, nextBlock: blockOf(this.nextBlock), digest: this.#digest };
  }
}

function begin(digest: string): Hash {
  return createHash('sha256').update(Buffer.from(digest, 'hex'));
}

function sumOf(seed: Checksum, record: Uint8Array): Checksum {
  return crc32c(record.subarray(8), seed);
}

/** Makes the bytes of a stream, or of its continuation. */
export class StreamEncoder {
  readonly header: Uint8Array;
  readonly #course: Course;

  constructor(header: StreamHeader) {
    this.header = encodeStreamHeader(header);
    this.#course = new Course(header);
  }

  /** @param bytes - whole blocks, at most SEND_BLOCKS_MAX */
  data(block: Block, bytes: Uint8Array): Uint8Array {
    return this.#stretch('data', block, bytes.length / BLOCK_BYTES, bytes);
  }

  zeros(kind: 'hole' | 'allocated', block: Block, count: number): Uint8Array {
    return this.#stretch(kind, block, count, undefined);
  }

  seal(kind: 'seal' | 'end'): Uint8Array {
    const { number, nextBlock, counts } = this.#course;
    const { digest } = this.#course.seal();
    const seal = new Uint8Array(sendSeal.size);
    const { data: data_blocks, hole: hole_blocks, allocated: allocated_blocks } = counts;
    encode(sendSeal, { digest, data_blocks, hole_blocks, allocated_blocks }, seal);
    const [code, at] = [kind === 'end' ? SEND_END : SEND_SEAL, blockOf(nextBlock)];
    return this.#record({ kind: code, number, block: at, count: 0 }, seal);
  }

  #stretch(
    kind: StretchKind,
    block: Block,
    count: number,
    bytes: Uint8Array | undefined,
  ): Uint8Array {
    const course = this.#course;
    assert(block >= course.nextBlock && count > 0, 'blocks are sent in order, each once');
    const fields = { kind: KIND_OF[kind], number: course.number, block, count };
    const record = this.#record(fields, bytes);
    course.digest(record);
    course.add(kind, block, count);
    return record;
  }

  #record(
    fields: { kind: number; number: number; block: Block; count: number },
    payload: Uint8Array = new Uint8Array(0),
  ): Uint8Array {
    const record = new Uint8Array(sendRecord.size + payload.length);
    encode(sendRecord, { ...fields, magic: SEND_RECORD_MAGIC, checksum: 0 }, record);
    record.set(payload, sendRecord.size);
    viewOf(record).setUint32(4, sumOf(this.#course.seed, record), true);
    return record;
  }
}

/** Bytes as they come, given out in pieces of the length that is asked for. */
class Incoming {
  #chunks: Uint8Array[] = [];
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(chunk: Uint8Array): void {
    if (chunk.length > 0) this.#chunks.push(chunk);
    this.#length += chunk.length;
  }

  /** @returns undefined while there are not so many; they stay where they are */
  peek(length: number): Uint8Array | undefined {
    if (this.#length < length) return undefined;
    const [first] = this.#chunks;
    if (first === undefined || first.length < length) this.#chunks = [Buffer.concat(this.#chunks)];
    return this.#chunks[0]?.subarray(0, length);
  }

  drop(length: number): void {
    const first = this.#chunks[0];
    assert(first !== undefined && first.length >= length, 'what is dropped was looked at');
    if (first.length === length) this.#chunks.shift();
    else this.#chunks[0] = first.subarray(length);
    this.#length -= length;
  }
}

interface RecordHead {
  readonly kind: number;
  readonly block: number;
  readonly count: number;
  readonly payloadBytes: number;
}

/** Takes a stream apart as it comes. */
export class StreamDecoder {
  readonly #incoming = new Incoming();
  #course: Course | undefined;
  #blocks = 0;
  #ended = false;

  /** Whether the end record was seen. */
  get ended(): boolean {
    return this.#ended;
  }

  /**
   * @param chunk - kept until it is used up; what data parts hold is part of it
   * @returns what is complete now, in order
   * @throws VarveError STREAM_BAD, VERSION_UNKNOWN; then nothing more may be pushed
   */
  *push(chunk: Uint8Array): Generator<StreamPart, void> {
    this.#incoming.push(chunk);
    for (;;) {
      const part = this.#next();
      if (part === undefined) return;
      yield part;
    }
  }

  #next(): StreamPart | undefined {
    if (this.#course === undefined) return this.#header();
    if (this.#ended) {
      if (this.#incoming.length > 0) throw bad('there is something behind its end');
      return undefined;
    }
    const start = this.#incoming.peek(sendRecord.size);
    if (start === undefined) return undefined;
    const head = this.#head(this.#course, start);
    const record = this.#incoming.peek(sendRecord.size + head.payloadBytes);
    if (record === undefined) return undefined;
    if (viewOf(record).getUint32(4, true) !== sumOf(this.#course.seed, record)) {
      throw bad(`record ${this.#course.number} is damaged, or of another stream`);
    }
    this.#incoming.drop(record.length);
    return this.#part(this.#course, head, record);
  }

  #header(): StreamPart | undefined {
    const bytes = this.#incoming.peek(sendHeader.size);
    if (bytes === undefined) return undefined;
    const header = decodeStreamHeader(bytes);
    this.#incoming.drop(bytes.length);
    this.#course = new Course(header);
    this.#blocks = Math.ceil(header.identity.size / BLOCK_BYTES);
    return { kind: 'header', header };
  }

  /** Looked at before its checksum is, so that a damaged one does not ask for memory. */
  #head(course: Course, bytes: Uint8Array): RecordHead {
    const values = decode(sendRecord, bytes);
    const magic = Buffer.from(bytes.subarray(0, 4)).toString('latin1');
    if (values === undefined || magic !== SEND_RECORD_MAGIC) {
      throw bad(`where record ${course.number} should be, there is none`);
    }
    const number = numberOf(values, 'number');
    if (number !== course.number) {
      throw bad(`got record ${number}, expected ${course.number}`);
    }
    const kind = numberOf(values, 'kind');
    const block = numberOf(values, 'block');
    const count = numberOf(values, 'count');
    const isSeal = kind === SEND_SEAL || kind === SEND_END;
    const countMax = kind === SEND_DATA ? SEND_BLOCKS_MAX : this.#blocks;
    const inOrder = isSeal
      ? block === course.nextBlock && count === 0
      : block >= course.nextBlock && count >= 1 && count <= countMax;
    const isKnown = isSeal || kind === SEND_DATA || kind === SEND_HOLE || kind === SEND_ALLOCATED;
    if (!isKnown || !inOrder || block + count > this.#blocks) {
      throw bad(`record ${number} is of kind ${kind}, for ${count} blocks from ${block} on`);
    }
    const payloadBytes = kind === SEND_DATA ? count * BLOCK_BYTES : isSeal ? sendSeal.size : 0;
    return { kind, block, count, payloadBytes };
  }

  #part(course: Course, { kind, block, count }: RecordHead, record: Uint8Array): StreamPart {
    if (kind === SEND_SEAL || kind === SEND_END) {
      const place = this.#sealed(course, record.subarray(sendRecord.size));
      this.#ended = kind === SEND_END;
      return { kind: this.#ended ? 'end' : 'seal', place };
    }
    course.digest(record);
    if (kind === SEND_DATA) {
      course.add('data', block, count);
      return { kind: 'data', block: blockOf(block), bytes: record.subarray(sendRecord.size) };
    }
    const zeros = kind === SEND_HOLE ? 'hole' : 'allocated';
    course.add(zeros, block, count);
    return { kind: zeros, block: blockOf(block), count };
  }

  #sealed(course: Course, payload: Uint8Array): StreamPlace {
    const values = decode(sendSeal, payload);
    const { number, counts } = course;
    if (values === undefined) throw bad(`the seal in record ${number} is not in order`);
    const place = course.seal();
    const { data, hole, allocated } = counts;
    const isWhole =
      textOf(values, 'digest') === place.digest &&
      numberOf(values, 'data_blocks') === data &&
      numberOf(values, 'hole_blocks') === hole &&
      numberOf(values, 'allocated_blocks') === allocated;
    if (!isWhole) throw bad(`the seal in record ${number} is not of what came before it`);
    return place;
  }
}

function bad(why: string): VarveError {
  return new VarveError('STREAM_BAD', why);
}
