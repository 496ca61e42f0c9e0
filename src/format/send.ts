/**
 * Headers, records, seals and tokens of a stream: bytes in, values out.
 *
 * Invariant: what is taken was encoded as such: one form for each value, and numbers that a volume
 * can reach.
 */
import { createHash } from 'node:crypto';
import { crc32c } from '../base/crc32c.ts';
import { VarveError } from '../base/errors.ts';
import { NIL_UUID, type Uuid } from '../base/identity.ts';
import {
  block as blockOf,
  BLOCK_BYTES,
  byteCount,
  generation as generationOf,
  micros,
  type Block,
  type ByteCount,
  type Checksum,
  type Generation,
  type Micros,
} from '../base/units.ts';
import { COUNT_END, GENERATION_END, LABEL_BYTES_MAX } from './layouts.ts';
import {
  decode,
  encode,
  numberOf,
  textOf,
  viewOf,
  type RecordLayout,
  type Values,
} from './record.ts';
import {
  SEND_MAGIC,
  SEND_SINCE,
  SEND_VERSION,
  SEND_WHOLE,
  sendHeader,
  sendToken,
  TOKEN_MAGIC,
} from './send-layouts.ts';

/** A moment of the sending volume. */
export interface SentMoment {
  readonly lineage: Uuid;
  readonly generation: Generation;
}

/** What a stream, with all its continuations, is about. */
export interface StreamIdentity {
  readonly volume: Uuid;
  readonly size: ByteCount;
  /** Undefined: the whole disk is sent. */
  readonly from: SentMoment | undefined;
  readonly to: SentMoment;
}

/** A place in a stream, behind a seal: where a continuation begins. */
export interface StreamPlace {
  /** Number of the next record. */
  readonly records: number;
  readonly nextBlock: Block;
  /** Of all before, in hexadecimal digits. */
  readonly digest: string;
}

export interface StreamHeader {
  readonly identity: StreamIdentity;
  /** Where it goes on; undefined: from the beginning. */
  readonly place: StreamPlace | undefined;
  readonly toWallUs: Micros;
  /** Payload of data records that follows, at most. */
  readonly dataBytes: ByteCount;
  /** Of a snapshot of what is sent; empty: there is none. */
  readonly label: string;
}

export interface StreamToken {
  readonly volume: Uuid;
  readonly from: SentMoment | undefined;
  readonly to: SentMoment;
  readonly place: StreamPlace;
}

const NO_DIGEST = '0'.repeat(64);
const HEAD_BYTES = 12;

function momentValues({ from, to }: Pick<StreamIdentity, 'from' | 'to'>): Values {
  return {
    version: SEND_VERSION,
    kind: from === undefined ? SEND_WHOLE : SEND_SINCE,
    from_lineage: from?.lineage ?? NIL_UUID,
    from_generation: from?.generation ?? 0,
    to_lineage: to.lineage,
    to_generation: to.generation,
  };
}

function placeValues(place: StreamPlace | undefined): Values {
  return {
    records: place?.records ?? 0,
    next_block: place?.nextBlock ?? 0,
    digest: place?.digest ?? NO_DIGEST,
  };
}

function sealed(layout: RecordLayout, values: Values): Uint8Array {
  const bytes = new Uint8Array(layout.size);
  encode(layout, { ...values, checksum: 0 }, bytes);
  viewOf(bytes).setUint32(8, crc32c(bytes.subarray(HEAD_BYTES)), true);
  return bytes;
}

/** @throws VarveError STREAM_BAD, VERSION_UNKNOWN */
function opened(layout: RecordLayout, magic: string, bytes: Uint8Array): Values {
  const values = bytes.length === layout.size ? decode(layout, bytes) : undefined;
  const text = Buffer.from(bytes.subarray(0, magic.length)).toString('latin1');
  if (text !== magic) throw new VarveError('STREAM_BAD', `no ${layout.name} begins it`);
  if (viewOf(bytes).getUint32(8, true) !== crc32c(bytes.subarray(HEAD_BYTES))) {
    throw new VarveError('STREAM_BAD', `the ${layout.name} is damaged`);
  }
  const version = viewOf(bytes).getUint16(HEAD_BYTES, true);
  if (version !== SEND_VERSION) {
    const both = `got version ${version}, this build knows ${SEND_VERSION}`;
    throw new VarveError('VERSION_UNKNOWN', `of a stream: ${both}`);
  }
  if (values === undefined)
    throw new VarveError('STREAM_BAD', `the ${layout.name} is not in order`);
  return values;
}

function need(holds: boolean, what: string): void {
  if (!holds) throw new VarveError('STREAM_BAD', what);
}

function momentsOf(values: Values): Pick<StreamIdentity, 'from' | 'to'> {
  const moment = (end: 'from' | 'to'): SentMoment => {
    const generation = numberOf(values, `${end}_generation`);
    need(generation < GENERATION_END, 'no volume has such a generation');
    return {
      lineage: textOf(values, `${end}_lineage`),
      generation: generationOf(generation),
    };
  };
  const [from, to, kind] = [moment('from'), moment('to'), numberOf(values, 'kind')];
  if (kind === SEND_SINCE) {
    need(from.generation <= to.generation, 'the moments are not in order');
    return { from, to };
  }
  need(kind === SEND_WHOLE, `a stream of the unknown kind ${kind}`);
  need(from.lineage === NIL_UUID && from.generation === 0, 'a whole disk is since no moment');
  return { from: undefined, to };
}

function placeOf(values: Values): StreamPlace {
  const records = numberOf(values, 'records');
  const nextBlock = numberOf(values, 'next_block');
  need(records < COUNT_END && nextBlock < COUNT_END / BLOCK_BYTES, 'no stream gets so far');
  return { records, nextBlock: blockOf(nextBlock), digest: textOf(values, 'digest') };
}

export function encodeStreamHeader(header: StreamHeader): Uint8Array {
  const { identity, place, toWallUs, dataBytes, label } = header;
  return sealed(sendHeader, {
    ...momentValues(identity),
    ...placeValues(place),
    magic: SEND_MAGIC,
    resumed: place === undefined ? 0 : 1,
    volume: identity.volume,
    size_bytes: identity.size,
    to_wall_us: toWallUs,
    data_bytes: dataBytes,
    label,
  });
}

/**
 * @param bytes - exactly a header
 * @throws VarveError STREAM_BAD; VERSION_UNKNOWN, with both numbers
 */
export function decodeStreamHeader(bytes: Uint8Array): StreamHeader {
  const values = opened(sendHeader, SEND_MAGIC, bytes);
  const size = numberOf(values, 'size_bytes');
  need(size > 0 && size < COUNT_END, `no disk has ${size} bytes`);
  const volume = textOf(values, 'volume');
  const [resumed, place] = [numberOf(values, 'resumed'), placeOf(values)];
  const isNew = place.records === 0 && place.nextBlock === 0 && place.digest === NO_DIGEST;
  need(
    resumed === 1 || (resumed === 0 && isNew),
    'a stream begins at its beginning, or is resumed',
  );
  need(place.nextBlock <= Math.ceil(size / BLOCK_BYTES), 'it goes on beyond the disk');
  const header: StreamHeader = {
    identity: { volume, size: byteCount(size), ...momentsOf(values) },
    place: resumed === 1 ? place : undefined,
    toWallUs: micros(numberOf(values, 'to_wall_us')),
    dataBytes: byteCount(numberOf(values, 'data_bytes')),
    label: textOf(values, 'label'),
  };
  // Text of bytes that are no UTF-8 is another one, and may be longer.
  need(Buffer.byteLength(header.label) <= LABEL_BYTES_MAX, 'its label is no text');
  need(
    Buffer.compare(encodeStreamHeader(header), bytes) === 0,
    'the header is not in its one form',
  );
  return header;
}

function identityBytes(identity: StreamIdentity): Uint8Array {
  const [toWallUs, dataBytes] = [micros(0), byteCount(0)];
  return encodeStreamHeader({ identity, place: undefined, toWallUs, dataBytes, label: '' });
}

/** With what the checksum of each record begins. */
export function streamSeed(identity: StreamIdentity): Checksum {
  return crc32c(identityBytes(identity));
}

/** Before any record. */
export function beginningOf(identity: StreamIdentity): StreamPlace {
  const digest = createHash('sha256').update(identityBytes(identity)).digest('hex');
  return { records: 0, nextBlock: blockOf(0), digest };
}

/** As text without spaces. */
export function encodeToken({ volume, from, to, place }: StreamToken): string {
  const all = { ...momentValues({ from, to }), ...placeValues(place), magic: TOKEN_MAGIC, volume };
  return Buffer.from(sealed(sendToken, all)).toString('base64url');
}

/** @throws VarveError STREAM_BAD; VERSION_UNKNOWN, with both numbers */
export function decodeToken(text: string): StreamToken {
  const bytes = Buffer.from(text, 'base64url');
  need(bytes.length === sendToken.size, 'the token is not one of `varve receive --resume-token`');
  const values = opened(sendToken, TOKEN_MAGIC, bytes);
  return { volume: textOf(values, 'volume'), ...momentsOf(values), place: placeOf(values) };
}
