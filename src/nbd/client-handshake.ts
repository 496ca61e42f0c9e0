/**
 * The client's side of option haggling: what it asks for, and what the server grants.
 *
 * Source: doc/proto.md, sections "Newstyle negotiation" and "Option types".
 */
import { VarveError } from '../base/errors.ts';
import type { ExportListing } from '../device/block-device.ts';
import type { HandshakeStream, SelectedContext } from './handshake.ts';
import { OPTION_BYTES_MAX } from './limits.ts';
import {
  decodeReplyHeader,
  encodeContextQuery,
  encodeInfoQuery,
  encodeOption,
  type OptionReply,
} from './options.ts';
import * as nbd from './protocol.ts';
import { decodeString, isMagic, protocolError, putUint32, uint16, uint32, uint64 } from './wire.ts';

export interface ClientOptions {
  /** Empty: the default export. */
  readonly exportName?: string;
  /** Structured replies; asked for by default, needed for contexts. */
  readonly structured?: boolean;
  readonly metaContexts?: readonly string[];
}

/** What the server said of the export. */
export interface ExportInfo {
  readonly size: number;
  readonly flags: number;
  readonly structured: boolean;
  readonly contexts: readonly SelectedContext[];
  readonly canonicalName: string | undefined;
  readonly description: string | undefined;
  readonly payloadBytesMax: number | undefined;
}

const PAYLOAD_BYTES_DEFAULT = 2 ** 25;
/** Of one option: a server that lists more exports is not listened to. */
const REPLIES_MAX = 100_000;
const REPLY_BYTES_MAX = 64 * 2 ** 20;

/** Reads the greeting and answers it. */
async function greet(stream: HandshakeStream): Promise<void> {
  const greeting = await stream.read(nbd.NBD_GREETING_BYTES);
  const isNewstyle = isMagic(greeting, 0, nbd.NBDMAGIC) && isMagic(greeting, 8, nbd.IHAVEOPT);
  if (!isNewstyle) throw protocolError('the server does not greet in newstyle');
  const offered = uint16(greeting, 16);
  if ((offered & nbd.NBD_FLAG_FIXED_NEWSTYLE) === 0) {
    throw protocolError('the server does not speak fixed newstyle');
  }
  const flags = Buffer.alloc(nbd.NBD_CLIENT_FLAGS_BYTES);
  const known = nbd.NBD_FLAG_C_FIXED_NEWSTYLE | nbd.NBD_FLAG_C_NO_ZEROES;
  putUint32(flags, 0, offered & known);
  await stream.write(flags);
}

/** All replies to one option, the final one last. */
async function ask(
  stream: HandshakeStream,
  option: number,
  data?: Uint8Array,
): Promise<readonly OptionReply[]> {
  await stream.write(encodeOption(option, data));
  const replies: OptionReply[] = [];
  let bytes = 0;
  while (replies.length < REPLIES_MAX && bytes <= REPLY_BYTES_MAX) {
    const header = decodeReplyHeader(await stream.read(nbd.NBD_OPTION_REPLY_BYTES));
    if (header.option !== option) throw protocolError(`a reply to option ${header.option}`);
    if (header.length > OPTION_BYTES_MAX) throw protocolError(`a reply of ${header.length} bytes`);
    const reply = { option, type: header.type, data: await stream.read(header.length) };
    bytes += header.length;
    replies.push(reply);
    if (reply.type === nbd.NBD_REP_ACK || reply.type >= nbd.NBD_REP_FLAG_ERROR) return replies;
  }
  throw protocolError('the replies have no end');
}

/** @throws VarveError when the final reply is an error; its text is the server's */
function granted(replies: readonly OptionReply[]): readonly OptionReply[] {
  const last = replies.at(-1);
  if (last === undefined || last.type === nbd.NBD_REP_ACK) return replies;
  const said = Buffer.from(last.data).toString('utf8');
  const what = `option ${last.option}: error 0x${last.type.toString(16)} ${said}`;
  if (last.type === nbd.NBD_REP_ERR_UNKNOWN) throw new VarveError('VOLUME_UNKNOWN', what);
  if (last.type === nbd.NBD_REP_ERR_SHUTDOWN) throw new VarveError('CLOSED', what);
  throw protocolError(what);
}

async function selectContexts(
  stream: HandshakeStream,
  name: string,
  queries: readonly string[],
): Promise<readonly SelectedContext[]> {
  const data = encodeContextQuery({ name, queries });
  const replies = granted(await ask(stream, nbd.NBD_OPT_SET_META_CONTEXT, data));
  const contexts: SelectedContext[] = [];
  for (const reply of replies) {
    if (reply.type !== nbd.NBD_REP_META_CONTEXT || reply.data.length < 4) continue;
    const context = decodeString(reply.data.subarray(4), 'a context name');
    contexts.push({ id: uint32(reply.data, 0), name: context });
  }
  return contexts;
}

/** The INFO replies to GO, by information type. */
function infosOf(replies: readonly OptionReply[]): ReadonlyMap<number, Uint8Array> {
  const infos = new Map<number, Uint8Array>();
  for (const { type, data } of replies) {
    if (type !== nbd.NBD_REP_INFO || data.length < 2) continue;
    infos.set(uint16(data, 0), data.subarray(2));
  }
  return infos;
}

function textOf(data: Uint8Array | undefined, what: string): string | undefined {
  return data === undefined ? undefined : decodeString(data, what);
}

/** Goes into the transmission phase. */
export async function clientHandshake(
  stream: HandshakeStream,
  options: ClientOptions,
): Promise<ExportInfo> {
  const { exportName: name = '', metaContexts = [] } = options;
  await greet(stream);
  let structured = false;
  if (options.structured !== false) {
    const replies = await ask(stream, nbd.NBD_OPT_STRUCTURED_REPLY);
    structured = replies.at(-1)?.type === nbd.NBD_REP_ACK;
  }
  const contexts =
    metaContexts.length === 0 ? [] : await selectContexts(stream, name, metaContexts);
  const wanted = [nbd.NBD_INFO_NAME, nbd.NBD_INFO_DESCRIPTION, nbd.NBD_INFO_BLOCK_SIZE];
  const query = encodeInfoQuery({ name, infos: new Set(wanted) });
  const infos = infosOf(granted(await ask(stream, nbd.NBD_OPT_GO, query)));
  const facts = infos.get(nbd.NBD_INFO_EXPORT);
  if (facts?.length !== 10) throw protocolError('the server does not say what the export is');
  const size = uint64(facts, 0);
  if (size === undefined) throw protocolError('the export is larger than 2^53 bytes');
  const sizes = infos.get(nbd.NBD_INFO_BLOCK_SIZE);
  return {
    size,
    flags: uint16(facts, 8),
    structured,
    contexts,
    canonicalName: textOf(infos.get(nbd.NBD_INFO_NAME), 'the canonical name'),
    description: textOf(infos.get(nbd.NBD_INFO_DESCRIPTION), 'the description'),
    payloadBytesMax: sizes?.length === 12 ? uint32(sizes, 8) : PAYLOAD_BYTES_DEFAULT,
  };
}

/** What the server lists; ends the session. */
export async function clientList(stream: HandshakeStream): Promise<readonly ExportListing[]> {
  await greet(stream);
  const listings: ExportListing[] = [];
  for (const { type, data } of granted(await ask(stream, nbd.NBD_OPT_LIST))) {
    if (type !== nbd.NBD_REP_SERVER || data.length < 4) continue;
    const end = 4 + uint32(data, 0);
    if (end > data.length) throw protocolError('a listed name is longer than its reply');
    const name = decodeString(data.subarray(4, end), 'a listed name');
    listings.push({ name, description: decodeString(data.subarray(end), 'a description') });
  }
  await ask(stream, nbd.NBD_OPT_ABORT);
  return listings;
}
