/** Every limit of the NBD server; what must hold between them is asserted at load. */
import { assert } from '../base/assert.ts';
import { kibibytes, mebibytes, type ByteCount } from '../base/units.ts';
import { NBD_OFFSET_DATA_BYTES, NBD_REQUEST_BYTES, NBD_STRING_BYTES_MAX } from './protocol.ts';

/** Connections at one time, those that only shake hands included. */
export const CONNECTIONS_MAX = 4096;
/** Requests of one connection whose replies have not left yet; then its socket is not read. */
export const REQUESTS_IN_FLIGHT_MAX = 256;
/** From the first byte to the transmission phase. */
export const HANDSHAKE_MS_MAX = 60_000;
/** How long a client may hold a reservation without moving `STALL_BYTES_MIN` bytes. */
export const STALL_MS_MAX = 30_000;
/** The same while others wait for what it holds; the largest holders go first. */
export const STALL_SHORT_MS_MAX = 1_000;
/** How often it is looked for clients that do not move. */
export const STALL_TICK_MS = 500;
/** What a client has to send or take in that time; less is no progress. */
export const STALL_BYTES_MIN: ByteCount = kibibytes(64);

/** So long a TCP connection is silent before the system asks whether its peer is still there. */
export const KEEP_ALIVE_MS = 60_000;

/** Data of one option that is looked at; a longer one is skipped, and answered with TOO_BIG. */
export const OPTION_BYTES_MAX: ByteCount = kibibytes(16);
/** A longer option ends the session: skipping it would only read what a hostile client sends. */
export const OPTION_SKIP_BYTES_MAX: ByteCount = mebibytes(32);
/** How long a client that shakes hands may leave what it is told unread. */
export const HANDSHAKE_STALL_MS_MAX = 5_000;
/** How long a client whose export is taken from it may take to get its last answers. */
export const REVOKE_GRACE_MS = 2_000;
/** Answers to LIST that are being made and sent at one time: each may name very many exports. */
export const LISTS_MAX = 16;
/** Options in one handshake. */
export const OPTIONS_MAX = 256;
/** Exports that one handshake holds open, so that what INFO told GO also gives. */
export const HANDSHAKE_EXPORTS_MAX = 4;
/** Metadata contexts that one connection may select. */
export const CONTEXTS_MAX = 16;
/** Queries in one option. */
export const QUERIES_MAX = 256;
/** Queries that one handshake has looked up before others have their turn. */
export const QUERIES_A_TURN = 16;

/** Largest payload offered; a device may offer less. */
export const PAYLOAD_BYTES_MAX: ByteCount = mebibytes(32);
/** An over-long write is read and thrown away up to here; beyond, the connection ends. */
export const DISCARD_BYTES_MAX: ByteCount = mebibytes(64);
/** CACHE reads so much at a time, into memory of the budget as everything else. */
export const CACHE_PIECE_BYTES: ByteCount = kibibytes(256);
/** Requests to CACHE that read at one time, of all connections: 28 bytes may ask for very much. */
export const CACHES_MAX = 4;
/** Requests to BLOCK_STATUS that are looked up at one time, of all connections. */
export const STATUSES_MAX = 4;
/** Runs in the answer of one context to BLOCK_STATUS. */
export const STATUS_RUNS_MAX = 2048;
/** Of the message in an error reply. */
export const MESSAGE_BYTES_MAX = 480;
/** Unsent bytes beyond which an error reply carries no message, so that refusals stay small. */
export const MESSAGE_UNSENT_BYTES_MAX = 4096;

/** What stands before the data of a reply. */
export const HEADERS_BYTES_MAX = 64;
/** Small payloads and replies share a slab; the replies to 32 reads of 4 KiB fit one. */
export const SLAB_BYTES: ByteCount = kibibytes(160);
/** Larger ones have a buffer of their own. */
export const SLAB_REGION_BYTES_MAX: ByteCount = kibibytes(32);
/** Slabs and buffers kept for the next request, of all connections together. */
export const SPARE_BYTES_MAX: ByteCount = mebibytes(16);
/** Bytes of one handing-over to the socket; progress of a slow reader is seen in these steps. */
export const BATCH_BYTES_MAX: ByteCount = kibibytes(2176);
/** Replies without data of a connection are gathered here. */
export const ACK_PAGE_BYTES = 1024;
/** What a socket may give in one piece; that much may lie unread in a connection that waits. */
export const READ_BYTES_MAX: ByteCount = kibibytes(64);
/** What may lie unread in all connections together: with many of them, the pieces are smaller. */
export const UNREAD_BYTES_MAX: ByteCount = mebibytes(32);
/** The smallest piece. */
export const READ_BYTES_MIN: ByteCount = kibibytes(4);
/** Waiting connections that are looked at whenever the budget has room again. */
export const WAITERS_SCANNED_MAX = 32;
/** How often the first in the queue may be overtaken, in budgets. */
export const OVERTAKEN_BUDGETS_MAX = 2;
/** The longest path that a Unix socket address holds on Linux, without its ending zero. */
export const UNIX_PATH_BYTES_MAX = 107;

/** So many parts of the budget there are, one of which is kept for first small requests. */
export const KEPT_PART = 8;
/** The longest request that counts as small there, when the budget is large. */
export const FIRST_BYTES_MAX: ByteCount = kibibytes(512);
/** A connection may take at most half of what is free, so a slab has to fit well into that. */
export const BUDGET_BYTES_MIN: ByteCount = kibibytes(512);

assert(OPTION_BYTES_MAX >= 2 * NBD_STRING_BYTES_MAX + 64, 'an option holds a name and a query');
assert(OPTION_BYTES_MAX <= OPTION_SKIP_BYTES_MAX, 'what is looked at could also be skipped');
assert(PAYLOAD_BYTES_MAX <= DISCARD_BYTES_MAX, 'a refused write of legal length is consumed');
assert(SLAB_REGION_BYTES_MAX * 2 <= SLAB_BYTES, 'a slab holds several regions');
assert(BUDGET_BYTES_MIN >= 3 * SLAB_BYTES, 'two connections find a slab each in any budget');
assert(HEADERS_BYTES_MAX >= NBD_OFFSET_DATA_BYTES, 'the longest header has its room');
assert(ACK_PAGE_BYTES % 16 === 0, 'a page holds whole simple replies');
assert(STALL_TICK_MS * 2 <= STALL_SHORT_MS_MAX, 'a stall is seen more than once before its end');
assert(STALL_SHORT_MS_MAX <= STALL_MS_MAX, 'when memory is short, patience is not longer');
assert(UNREAD_BYTES_MAX / CONNECTIONS_MAX >= READ_BYTES_MIN, 'all get a piece of what is unread');
assert(READ_BYTES_MIN > NBD_REQUEST_BYTES, 'a request header fits one piece');
assert(MESSAGE_BYTES_MAX <= NBD_STRING_BYTES_MAX, 'a message is a legal string');
