/**
 * Option haggling on the wire: options in, replies out. Pure: arbitrary bytes give a value or a
 * VarveError PROTOCOL.
 *
 * Source: doc/proto.md, sections "Newstyle negotiation", "Option types", "Option reply types".
 */
import { VarveError } from '../base/errors.ts';
import { QUERIES_MAX } from './limits.ts';
import {
  BLOCK_BYTES_MIN,
  BLOCK_BYTES_PREFERRED,
  IHAVEOPT,
  NBD_EXPORT_NAME_ZEROES_BYTES,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  NBD_GREETING_BYTES,
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_DESCRIPTION,
  NBD_INFO_EXPORT,
  NBD_INFO_NAME,
  NBD_OPTION_BYTES,
  NBD_OPTION_REPLY_BYTES,
  NBD_REP_MAGIC,
  NBDMAGIC,
} from './protocol.ts';
import {
  decodeString,
  encodeText,
  isMagic,
  protocolError,
  putMagic,
  putUint16,
  putUint32,
  putUint64,
  uint16,
  uint32,
} from './wire.ts';

export interface OptionHeader {
  readonly option: number;
  readonly length: number;
}

/** @throws VarveError PROTOCOL when the magic is wrong: nothing after it can be understood */
export function decodeOptionHeader(bytes: Uint8Array): OptionHeader {
  if (bytes.length < NBD_OPTION_BYTES) throw protocolError('an option header is cut short');
  if (!isMagic(bytes, 0, IHAVEOPT)) throw protocolError('an option does not begin with IHAVEOPT');
  return { option: uint32(bytes, 8), length: uint32(bytes, 12) };
}

export function encodeOption(option: number, data: Uint8Array = new Uint8Array(0)): Buffer {
  const bytes = Buffer.allocUnsafe(NBD_OPTION_BYTES + data.length);
  putMagic(bytes, 0, IHAVEOPT);
  putUint32(bytes, 8, option);
  putUint32(bytes, 12, data.length);
  bytes.set(data, NBD_OPTION_BYTES);
  return bytes;
}

export function encodeGreeting(): Buffer {
  const bytes = Buffer.allocUnsafe(NBD_GREETING_BYTES);
  putMagic(bytes, 0, NBDMAGIC);
  putMagic(bytes, 8, IHAVEOPT);
  putUint16(bytes, 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
  return bytes;
}

/** Reads fields one after the other; the first that is not there is an error. */
class Fields {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  #advance(count: number, what: string): number {
    const at = this.#at;
    if (count > this.#bytes.length - at) throw protocolError(`${what} is longer than the option`);
    this.#at += count;
    return at;
  }

  uint16(what: string): number {
    return uint16(this.#bytes, this.#advance(2, what));
  }

  uint32(what: string): number {
    return uint32(this.#bytes, this.#advance(4, what));
  }

  string(what: string): string {
    const length = this.uint32(`the length of ${what}`);
    const at = this.#advance(length, what);
    return decodeString(this.#bytes.subarray(at, at + length), what);
  }

  end(): void {
    const left = this.#bytes.length - this.#at;
    if (left !== 0) throw protocolError(`${left} bytes follow the option's last field`);
  }
}

export interface InfoQuery {
  readonly name: string;
  readonly infos: ReadonlySet<number>;
}

/** The data of INFO and GO. */
export function decodeInfoQuery(data: Uint8Array): InfoQuery {
  const fields = new Fields(data);
  const name = fields.string('the export name');
  const count = fields.uint16('the number of information requests');
  const infos = new Set<number>();
  for (let i = 0; i < count; i += 1) infos.add(fields.uint16('an information request'));
  fields.end();
  return { name, infos };
}

export function encodeInfoQuery({ name, infos }: InfoQuery): Buffer {
  const text = encodeText(name);
  const bytes = Buffer.alloc(6 + text.length + 2 * infos.size);
  putUint32(bytes, 0, text.length);
  bytes.set(text, 4);
  let at = 4 + text.length;
  putUint16(bytes, at, infos.size);
  for (const info of infos) putUint16(bytes, (at += 2), info);
  return bytes;
}

export interface ContextQuery {
  readonly name: string;
  readonly queries: readonly string[];
}

/** More queries than are looked at; the option itself is well-formed. */
export class TooManyQueries extends VarveError {}

/** The data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function decodeContextQuery(data: Uint8Array): ContextQuery {
  const fields = new Fields(data);
  const name = fields.string('the export name');
  const count = fields.uint32('the number of queries');
  if (count > QUERIES_MAX && count <= data.length / 4) {
    throw new TooManyQueries('PROTOCOL', `${count} queries, at most ${QUERIES_MAX} go`);
  }
  const queries: string[] = [];
  for (let i = 0; i < count; i += 1) queries.push(fields.string('a query'));
  fields.end();
  for (const query of queries) {
    if (query.indexOf(':') < 1) throw protocolError('a query begins with a namespace and a colon');
  }
  return { name, queries };
}

export function encodeContextQuery({ name, queries }: ContextQuery): Buffer {
  const parts = [encodeCounted(name), Buffer.alloc(4), ...queries.map(encodeCounted)];
  putUint32(parts[1] ?? Buffer.alloc(4), 0, queries.length);
  return Buffer.concat(parts);
}

function encodeCounted(text: string): Buffer {
  const bytes = encodeText(text);
  const counted = Buffer.alloc(4 + bytes.length);
  putUint32(counted, 0, bytes.length);
  counted.set(bytes, 4);
  return counted;
}

export interface OptionReply {
  readonly option: number;
  readonly type: number;
  readonly data: Uint8Array;
}

export function encodeReply(option: number, type: number, data?: Uint8Array): Buffer {
  const length = data?.length ?? 0;
  const bytes = Buffer.allocUnsafe(NBD_OPTION_REPLY_BYTES + length);
  putMagic(bytes, 0, NBD_REP_MAGIC);
  putUint32(bytes, 8, option);
  putUint32(bytes, 12, type);
  putUint32(bytes, 16, length);
  if (data !== undefined) bytes.set(data, NBD_OPTION_REPLY_BYTES);
  return bytes;
}

export interface OptionReplyHeader {
  readonly option: number;
  readonly type: number;
  readonly length: number;
}

export function decodeReplyHeader(bytes: Uint8Array): OptionReplyHeader {
  if (bytes.length < NBD_OPTION_REPLY_BYTES || !isMagic(bytes, 0, NBD_REP_MAGIC)) {
    throw protocolError('an option reply does not begin with its magic');
  }
  return { option: uint32(bytes, 8), type: uint32(bytes, 12), length: uint32(bytes, 16) };
}

/** The data of NBD_REP_SERVER. */
export function encodeServer(name: string, description: string): Buffer {
  return Buffer.concat([encodeCounted(name), encodeText(description)]);
}

/** What a client is told about an export. */
export interface ExportFacts {
  readonly size: number;
  readonly flags: number;
  readonly canonicalName: string;
  readonly description: string;
  readonly payloadBytesMax: number;
}

function encodeInfoText(info: number, text: string): Buffer {
  const bytes = encodeText(text);
  const data = Buffer.alloc(2 + bytes.length);
  putUint16(data, 0, info);
  data.set(bytes, 2);
  return data;
}

/** The data of one NBD_REP_INFO; undefined for a request that is not known. */
export function encodeInfo(info: number, facts: ExportFacts): Buffer | undefined {
  switch (info) {
    case NBD_INFO_EXPORT: {
      const data = Buffer.alloc(12);
      putUint16(data, 0, NBD_INFO_EXPORT);
      putUint64(data, 2, facts.size);
      putUint16(data, 10, facts.flags);
      return data;
    }
    case NBD_INFO_NAME:
      return encodeInfoText(info, facts.canonicalName);
    case NBD_INFO_DESCRIPTION:
      return encodeInfoText(info, facts.description);
    case NBD_INFO_BLOCK_SIZE: {
      const data = Buffer.alloc(14);
      putUint16(data, 0, NBD_INFO_BLOCK_SIZE);
      putUint32(data, 2, BLOCK_BYTES_MIN);
      putUint32(data, 6, BLOCK_BYTES_PREFERRED);
      putUint32(data, 10, facts.payloadBytesMax);
      return data;
    }
    default:
      return undefined;
  }
}

/** The answer to EXPORT_NAME, which has no header. */
export function encodeExportName(facts: ExportFacts, noZeroes: boolean): Buffer {
  const bytes = Buffer.alloc(10 + (noZeroes ? 0 : NBD_EXPORT_NAME_ZEROES_BYTES));
  putUint64(bytes, 0, facts.size);
  putUint16(bytes, 8, facts.flags);
  return bytes;
}

/** The data of NBD_REP_META_CONTEXT. */
export function encodeContext(id: number, name: string): Buffer {
  const text = encodeText(name);
  const data = Buffer.alloc(4 + text.length);
  putUint32(data, 0, id);
  data.set(text, 4);
  return data;
}
