/**
 * Option haggling, from the greeting to the transmission phase. It knows a stream of bytes and
 * the directory of exports, and no socket.
 *
 * Invariants:
 *   - Whatever an option holds, its data was consumed before its reply: the session stays usable.
 *   - Only what no reply can tell ends the session: a wrong magic, unknown client flags, an
 *     EXPORT_NAME that can't be served, options without end.
 *   - When it ends without a transmission phase, it has closed every export that it opened.
 *   - Whatever one option asks for, others have their turn meanwhile: nobody had to say who he is.
 *
 * Source: doc/proto.md, sections "Newstyle negotiation" to "Termination of the session during
 * option haggling", and "Option types".
 */
import { VarveError, isVarveError } from '../base/errors.ts';
import type { BlockDevice, ExportDirectory, OpenExport } from '../device/block-device.ts';
import { exportFacts, HandshakeExports } from './exports.ts';
import {
  CONTEXTS_MAX,
  MESSAGE_BYTES_MAX,
  OPTION_BYTES_MAX,
  OPTION_SKIP_BYTES_MAX,
  OPTIONS_MAX,
  QUERIES_A_TURN,
} from './limits.ts';
import {
  decodeContextQuery,
  decodeInfoQuery,
  decodeOptionHeader,
  encodeContext,
  encodeExportName,
  encodeGreeting,
  encodeInfo,
  encodeReply,
  encodeServer,
  TooManyQueries,
  type InfoQuery,
} from './options.ts';
import * as nbd from './protocol.ts';
import type { Turns } from './turns.ts';
import { decodeString, encodeText, protocolError, uint32 } from './wire.ts';

export interface HandshakeStream {
  /** Exactly `count` bytes; fails with a VarveError when the stream ends before. */
  read(count: number): Promise<Uint8Array>;
  /** Consumes `count` bytes without keeping them. */
  skip(count: number): Promise<void>;
  /** Settles when the bytes have left. */
  write(bytes: Uint8Array): Promise<void>;
}

export interface HandshakeContext {
  readonly exports: ExportDirectory;
  /** The largest payload that the budget of the server allows. */
  readonly payloadBytesMax: number;
  /** Few answers to LIST at a time: each holds a list of all exports. */
  readonly lists: Turns;
  /** Settles when other connections have had their turn. */
  readonly letOthersRun: () => Promise<void>;
  /** The server is being shut down. */
  closing(): boolean;
  /** The export that was chosen is taken from the client, which may not have its reply yet. */
  readonly revoke: (why: string) => void;
}

export interface SelectedContext {
  readonly id: number;
  readonly name: string;
}

/** A context as the device is asked for it; see `OpenExport.fixContext`. */
export interface FixedContext extends SelectedContext {
  readonly fixed: string;
}

/** What the two sides agreed on. */
export interface Session {
  readonly opened: OpenExport;
  readonly structured: boolean;
  readonly contexts: readonly FixedContext[];
}

/** Bytes of a LIST answer that are gathered before they are sent. */
const LIST_PIECE_BYTES = 32768;

type Outcome =
  | { readonly kind: 'next' }
  | { readonly kind: 'ended' }
  | { readonly kind: 'session'; readonly session: Session };

const NEXT: Outcome = { kind: 'next' };
const ENDED: Outcome = { kind: 'ended' };

const NO_DATA = new Set([nbd.NBD_OPT_LIST, nbd.NBD_OPT_STARTTLS, nbd.NBD_OPT_STRUCTURED_REPLY]);

/** @returns undefined when the client ended the session in good order */
export async function shakeHands(
  stream: HandshakeStream,
  context: HandshakeContext,
): Promise<Session | undefined> {
  const handshake = new Handshake(stream, context);
  let session: Session | undefined;
  try {
    session = await handshake.run();
    return session;
  } finally {
    await handshake.close(session);
  }
}

class Handshake {
  readonly #stream: HandshakeStream;
  readonly #context: HandshakeContext;
  readonly #exports: HandshakeExports;
  #fixed = false;
  #noZeroes = false;
  #structured = false;
  /** What SET_META_CONTEXT selected last, and for which export name. */
  #selected: { name: string; contexts: readonly FixedContext[] } | undefined;
  #replies: Buffer[] = [];
  /** Queries for contexts so far. */
  #asked = 0;

  constructor(stream: HandshakeStream, context: HandshakeContext) {
    this.#stream = stream;
    this.#context = context;
    this.#exports = new HandshakeExports(context.exports);
  }

  async close(session: Session | undefined): Promise<void> {
    await this.#exports.close(session?.opened);
  }

  async run(): Promise<Session | undefined> {
    await this.#stream.write(encodeGreeting());
    const flags = uint32(await this.#stream.read(nbd.NBD_CLIENT_FLAGS_BYTES), 0);
    const known = nbd.NBD_FLAG_C_FIXED_NEWSTYLE | nbd.NBD_FLAG_C_NO_ZEROES;
    if ((flags & ~known) !== 0) throw protocolError(`client flags 0x${flags.toString(16)}`);
    this.#fixed = (flags & nbd.NBD_FLAG_C_FIXED_NEWSTYLE) !== 0;
    this.#noZeroes = (flags & nbd.NBD_FLAG_C_NO_ZEROES) !== 0;
    for (let count = 0; count < OPTIONS_MAX; count += 1) {
      const outcome = await this.#option();
      if (outcome.kind === 'ended') return undefined;
      if (outcome.kind === 'session') return outcome.session;
    }
    throw protocolError(`more than ${OPTIONS_MAX} options`);
  }

  async #option(): Promise<Outcome> {
    const { option, length } = decodeOptionHeader(await this.#stream.read(nbd.NBD_OPTION_BYTES));
    if (length > OPTION_SKIP_BYTES_MAX) throw protocolError(`an option of ${length} bytes`);
    if (!this.#fixed && option !== nbd.NBD_OPT_EXPORT_NAME) {
      throw protocolError(`option ${option} without fixed newstyle`);
    }
    if (length > OPTION_BYTES_MAX) {
      await this.#stream.skip(length);
      if (option === nbd.NBD_OPT_EXPORT_NAME) throw protocolError('an export name too long');
      this.#reply(option, nbd.NBD_REP_ERR_TOO_BIG, `${length} bytes of option data`);
      return await this.#answered();
    }
    const data = await this.#stream.read(length);
    if (option === nbd.NBD_OPT_EXPORT_NAME) return await this.#exportName(data);
    return await this.#fixedOption(option, data);
  }

  /** Whatever goes wrong here has an error reply. */
  async #fixedOption(option: number, data: Uint8Array): Promise<Outcome> {
    if (option === nbd.NBD_OPT_ABORT) {
      this.#reply(option, nbd.NBD_REP_ACK);
      await this.#answered();
      return ENDED;
    }
    if (this.#context.closing()) {
      this.#reply(option, nbd.NBD_REP_ERR_SHUTDOWN, 'the server is closing');
      return await this.#answered();
    }
    if (NO_DATA.has(option) && data.length > 0) {
      this.#reply(option, nbd.NBD_REP_ERR_INVALID, `option ${option} takes no data`);
      return await this.#answered();
    }
    let outcome = NEXT;
    try {
      outcome = await this.#dispatch(option, data);
    } catch (error) {
      if (!isVarveError(error)) throw error;
      this.#reply(option, replyTypeOf(error), `${error.message}; ${error.next}`);
    }
    if (outcome.kind !== 'session') await this.#exports.letGo();
    await this.#answered();
    return outcome;
  }

  async #dispatch(option: number, data: Uint8Array): Promise<Outcome> {
    switch (option) {
      case nbd.NBD_OPT_LIST:
        await this.#context.lists.run(() => this.#list());
        return NEXT;
      case nbd.NBD_OPT_STARTTLS:
        this.#reply(option, nbd.NBD_REP_ERR_POLICY, 'TLS is not configured here');
        return NEXT;
      case nbd.NBD_OPT_INFO:
        await this.#info(option, decodeInfoQuery(data));
        return NEXT;
      case nbd.NBD_OPT_GO: {
        const query = decodeInfoQuery(data);
        const opened = await this.#info(option, query);
        return { kind: 'session', session: this.#session(query.name, opened) };
      }
      case nbd.NBD_OPT_STRUCTURED_REPLY:
        this.#structured = true;
        this.#reply(option, nbd.NBD_REP_ACK);
        return NEXT;
      case nbd.NBD_OPT_LIST_META_CONTEXT:
        await this.#listContexts(data);
        return NEXT;
      case nbd.NBD_OPT_SET_META_CONTEXT:
        await this.#setContexts(data);
        return NEXT;
      default:
        this.#reply(option, nbd.NBD_REP_ERR_UNSUP, `option ${option} is not known here`);
        return NEXT;
    }
  }

  /** It can't answer with an error: any failure ends the session. */
  async #exportName(data: Uint8Array): Promise<Outcome> {
    const name = decodeString(data, 'the export name');
    if (this.#context.closing()) throw new VarveError('CLOSED', 'no new sessions');
    const opened = await this.#exports.open(name);
    const session = this.#session(name, opened);
    await this.#stream.write(encodeExportName(this.#facts(opened), this.#noZeroes));
    return { kind: 'session', session };
  }

  #session(name: string, opened: OpenExport): Session {
    opened.onRevoke?.(this.#context.revoke);
    const contexts = this.#selected?.name === name ? this.#selected.contexts : [];
    return { opened, structured: this.#structured, contexts };
  }

  #facts(opened: OpenExport): ReturnType<typeof exportFacts> {
    const budgetBytesMax = this.#context.payloadBytesMax;
    return exportFacts(opened, { structured: this.#structured, budgetBytesMax });
  }

  async #info(option: number, { name, infos }: InfoQuery): Promise<OpenExport> {
    const opened = await this.#exports.open(name);
    const facts = this.#facts(opened);
    for (const info of new Set([nbd.NBD_INFO_EXPORT, ...infos])) {
      const data = encodeInfo(info, facts);
      if (data !== undefined) this.#replies.push(encodeReply(option, nbd.NBD_REP_INFO, data));
    }
    this.#reply(option, nbd.NBD_REP_ACK);
    return opened;
  }

  async #list(): Promise<void> {
    let gathered = 0;
    for (const { name, description } of await this.#context.exports.list()) {
      const data = encodeServer(name, description);
      this.#replies.push(encodeReply(nbd.NBD_OPT_LIST, nbd.NBD_REP_SERVER, data));
      gathered += data.length + nbd.NBD_OPTION_REPLY_BYTES;
      if (gathered < LIST_PIECE_BYTES) continue;
      gathered = 0;
      await this.#answered();
    }
    this.#reply(nbd.NBD_OPT_LIST, nbd.NBD_REP_ACK);
    await this.#answered();
  }

  async #listContexts(data: Uint8Array): Promise<void> {
    const option = nbd.NBD_OPT_LIST_META_CONTEXT;
    const { name, queries } = decodeContextQuery(data);
    if (!this.#structured) throw protocolError('structured replies come before contexts');
    const { device } = await this.#exports.open(name);
    const found = new Set<string>();
    for (const query of queries.length === 0 ? [undefined] : new Set(queries)) {
      for (const context of await this.#contextsOf(device, query)) found.add(context);
    }
    for (const context of found) {
      const reply = encodeReply(option, nbd.NBD_REP_META_CONTEXT, encodeContext(0, context));
      this.#replies.push(reply);
    }
    this.#reply(option, nbd.NBD_REP_ACK);
  }

  async #setContexts(data: Uint8Array): Promise<void> {
    const option = nbd.NBD_OPT_SET_META_CONTEXT;
    // A failure too replaces what was selected before.
    this.#selected = undefined;
    const { name, queries } = decodeContextQuery(data);
    if (!this.#structured) throw protocolError('structured replies come before contexts');
    const { device, fixContext } = await this.#exports.open(name);
    const contexts: FixedContext[] = [];
    for (const query of new Set(queries)) {
      // A wildcard lists contexts; only a full name selects one.
      if (!(await this.#contextsOf(device, query)).includes(query)) continue;
      const fixed = fixContext?.(query) ?? query;
      contexts.push({ id: contexts.length + 1, name: query, fixed });
    }
    if (contexts.length > CONTEXTS_MAX) {
      this.#reply(option, nbd.NBD_REP_ERR_TOO_BIG, `at most ${CONTEXTS_MAX} contexts`);
      return;
    }
    for (const context of contexts) {
      const reply = encodeContext(context.id, context.name);
      this.#replies.push(encodeReply(option, nbd.NBD_REP_META_CONTEXT, reply));
    }
    this.#selected = { name, contexts };
    this.#reply(option, nbd.NBD_REP_ACK);
  }

  async #contextsOf(device: BlockDevice, query: string | undefined): Promise<readonly string[]> {
    this.#asked += 1;
    if (this.#asked % QUERIES_A_TURN === 0) await this.#context.letOthersRun();
    return await device.contexts(query);
  }

  #reply(option: number, type: number, message?: string): void {
    const data = message === undefined ? undefined : encodeText(message, MESSAGE_BYTES_MAX);
    this.#replies.push(encodeReply(option, type, data));
  }

  async #answered(): Promise<Outcome> {
    const replies = this.#replies;
    this.#replies = [];
    if (replies.length > 0) await this.#stream.write(Buffer.concat(replies));
    return NEXT;
  }
}

/** The errors of opening an export and of decoding an option, as reply types. */
function replyTypeOf(error: VarveError): number {
  if (error instanceof TooManyQueries) return nbd.NBD_REP_ERR_TOO_BIG;
  if (error.code === 'PROTOCOL') return nbd.NBD_REP_ERR_INVALID;
  if (error.code === 'CLOSED') return nbd.NBD_REP_ERR_SHUTDOWN;
  if (error.code === 'PERMISSION') return nbd.NBD_REP_ERR_POLICY;
  return nbd.NBD_REP_ERR_UNKNOWN;
}
