/**
 * Sending: what a disk holds at one moment, or what changed in it since another, as a stream.
 *
 * Invariants:
 *   - Both moments are open from the first question to the last byte, so neither leaves.
 *   - Only what changed is read; what is read is bounded in memory, whoever takes the stream slowly.
 */
import { VarveError } from '../base/errors.ts';
import {
  block as blockOf,
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  mebibytes,
  type Block,
  type ByteCount,
  type ByteOffset,
} from '../base/units.ts';
import {
  STATE_HOLE,
  STATE_ZERO,
  type BlockDevice,
  type OpenExport,
} from '../device/block-device.ts';
import { isZero } from '../device/zeros.ts';
import { SEND_BLOCKS_MAX } from '../format/send-layouts.ts';
import { StreamEncoder, type StretchKind } from '../format/send-stream.ts';
import {
  decodeToken,
  type SentMoment,
  type StreamHeader,
  type StreamToken,
} from '../format/send.ts';
import { PAGE_MAX, type SentPoint } from '../volume/past-report.ts';
import type { Progress } from '../volume/report.ts';
import type { Past } from './past.ts';

const ALLOCATION = 'base:allocation';
const STATUS_BYTES: ByteCount = mebibytes(1024);
const STATUS_RUNS_MAX = 1024;
/** Data records being read ahead of the one that is sent. */
const READS_AHEAD = 4;
/** A receiver goes on from the last seal: what may have to be sent twice. */
const SEAL_BYTES: ByteCount = mebibytes(1);
const SEAL_RECORDS = 1024;

export interface SendQuery {
  /** The moment that is sent: what stands behind the `@`; undefined: the token's, or now. */
  readonly to: string | undefined;
  /** The moment since; undefined: the token's, or the whole disk is sent. */
  readonly from: string | undefined;
  /** Of a receiver that stopped. */
  readonly token: string | undefined;
  /** Payload between two seals, for tests. */
  readonly sealBytes?: number;
}

/** A stream that is going to be sent. */
export interface Sending {
  readonly header: StreamHeader;
  readonly from: SentPoint | undefined;
  readonly to: SentPoint;
  readonly dataBytes: ByteCount;
  readonly zeroBytes: ByteCount;
  /** @throws VarveError MOMENT_GONE, BLOCK_CORRUPT, DEVICE_IO; what `progress` throws */
  bytes(progress: Progress): AsyncGenerator<Uint8Array, void>;
}

interface Stretch {
  readonly kind: StretchKind;
  readonly offset: ByteOffset;
  readonly length: ByteCount;
}

interface Source {
  readonly past: Past;
  readonly from: SentPoint | undefined;
  readonly to: SentPoint;
  readonly device: BlockDevice;
  readonly firstBlock: Block;
}

function needSame(asked: SentPoint | undefined, wanted: SentMoment | undefined, end: string): void {
  if (asked?.generation === wanted?.generation && asked?.lineage === wanted?.lineage) return;
  const text = (one: SentMoment | undefined): string =>
    one === undefined ? 'a whole disk' : `gen=${one.generation} (lineage ${one.lineage})`;
  const both = `got ${text(asked)}, the receiver has begun ${end} ${text(wanted)}`;
  throw new VarveError('STREAM_MISFIT', both);
}

/** The two moments; those of a token have to be what they were when it was made. */
async function pointsOf(
  past: Past,
  { to: toText, from: fromText }: SendQuery,
  token: StreamToken | undefined,
): Promise<{ readonly from: SentPoint | undefined; readonly to: SentPoint }> {
  const text = (moment: SentMoment | undefined): string | undefined =>
    moment === undefined ? undefined : `gen=${moment.generation}`;
  const to = await past.sent(toText ?? text(token?.to));
  const since = fromText ?? text(token?.from);
  const from = since === undefined ? undefined : await past.sent(since);
  if (token !== undefined) {
    if (token.volume !== to.volume) {
      const both = `the token is of volume ${token.volume}, this is ${to.volume}`;
      throw new VarveError('STREAM_MISFIT', both);
    }
    needSame(to, token.to, 'to');
    needSame(from, token.from, 'from');
  }
  if (from !== undefined && from.generation > to.generation) {
    throw new VarveError('HISTORY_EMPTY', `from gen=${from.generation} to gen=${to.generation}`);
  }
  return { from, to };
}

/**
 * Runs `work` with a stream whose moments are open meanwhile.
 * @throws VarveError MOMENT_*; STREAM_MISFIT, STREAM_BAD, VERSION_UNKNOWN for a token; HISTORY_EMPTY
 */
export async function withSending<T>(
  past: Past,
  query: SendQuery,
  work: (sending: Sending) => Promise<T>,
): Promise<T> {
  const token = query.token === undefined ? undefined : decodeToken(query.token);
  const { from, to } = await pointsOf(past, query, token);
  const opened: OpenExport[] = [];
  try {
    if (from !== undefined) opened.push(await past.open(from.generation));
    const { device } = await past.open(to.generation).then((open) => {
      opened.push(open);
      return open;
    });
    const firstBlock = token?.place.nextBlock ?? blockOf(0);
    const source: Source = { past, from, to, device, firstBlock };
    const totals = { data: 0, hole: 0, allocated: 0 };
    for await (const { kind, length } of stretchesOf(source)) totals[kind] += length;
    const header: StreamHeader = {
      identity: {
        volume: to.volume,
        size: to.size,
        from: from && momentOf(from),
        to: momentOf(to),
      },
      place: token?.place,
      toWallUs: to.wallUs,
      dataBytes: byteCount(totals.data),
      label: to.label ?? '',
    };
    return await work({
      header,
      from,
      to,
      dataBytes: header.dataBytes,
      zeroBytes: byteCount(totals.hole + totals.allocated),
      bytes: (progress) => bytesOf(source, header, { ...query, progress }),
    });
  } finally {
    for (const { device } of opened) await device.close();
  }
}

function momentOf({ lineage, generation }: SentPoint): SentMoment {
  return { lineage, generation };
}

/** What is to be sent, in order. Holes of a whole disk are not. */
async function* stretchesOf(source: Source): AsyncGenerator<Stretch, void> {
  const { past, from, to, device, firstBlock } = source;
  const first = firstBlock * BLOCK_BYTES;
  if (from === undefined) {
    for await (const stretch of heldIn(device, first, device.size)) {
      if (stretch.kind !== 'hole') yield stretch;
    }
    return;
  }
  const moments = { from: from.generation, to: to.generation };
  let offset: ByteOffset | undefined = first < device.size ? byteOffset(first) : undefined;
  while (offset !== undefined) {
    const page = await past.changed({ ...moments, offset, rangesMax: PAGE_MAX });
    for (const { offset: at, length, became } of page.ranges) {
      if (became === 'data') yield { kind: 'data', offset: at, length };
      else yield* heldIn(device, at, at + length);
    }
    offset = page.next;
  }
}

/** What a part of the disk holds. */
async function* heldIn(
  device: BlockDevice,
  from: number,
  end: number,
): AsyncGenerator<Stretch, void> {
  for (let at = from; at < end;) {
    const asked = byteCount(Math.min(STATUS_BYTES, end - at));
    for (const run of await device.status(ALLOCATION, byteOffset(at), asked, STATUS_RUNS_MAX)) {
      const length = byteCount(Math.min(run.length, end - at));
      if (length <= 0) break;
      yield { kind: kindOf(run.flags), offset: byteOffset(at), length };
      at += length;
    }
  }
}

function kindOf(flags: number): StretchKind {
  if ((flags & STATE_ZERO) === 0) return 'data';
  return (flags & STATE_HOLE) === 0 ? 'allocated' : 'hole';
}

/** Stretches, data in pieces of at most one record. */
async function* piecesOf(stretches: AsyncGenerator<Stretch, void>): AsyncGenerator<Stretch, void> {
  const max = SEND_BLOCKS_MAX * BLOCK_BYTES;
  for await (const stretch of stretches) {
    if (stretch.kind !== 'data') {
      yield stretch;
      continue;
    }
    for (let done = 0; done < stretch.length; done += max) {
      const length = byteCount(Math.min(max, stretch.length - done));
      yield { kind: 'data', offset: byteOffset(stretch.offset + done), length };
    }
  }
}

/** The results of `work`, in the order of the items; some are worked on ahead. */
async function* ahead<T, U>(
  items: AsyncGenerator<T, void>,
  work: (item: T) => Promise<U>,
): AsyncGenerator<U, void> {
  const queue: Promise<U>[] = [];
  try {
    for await (const item of items) {
      const running = work(item);
      // Heard of when its turn comes.
      running.catch(() => undefined);
      queue.push(running);
      const first = queue.length < READS_AHEAD ? undefined : queue.shift();
      if (first !== undefined) yield await first;
    }
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) yield await next;
  } finally {
    await Promise.allSettled(queue);
  }
}

interface Piece {
  readonly stretch: Stretch;
  /** Of data: whole blocks, zeros behind the end of the disk. */
  readonly bytes: Uint8Array | undefined;
}

async function* bytesOf(
  source: Source,
  header: StreamHeader,
  { progress, sealBytes = SEAL_BYTES }: { progress: Progress; sealBytes?: number },
): AsyncGenerator<Uint8Array, void> {
  const encoder = new StreamEncoder(header);
  yield encoder.header;
  const read = async (stretch: Stretch): Promise<Piece> => {
    if (stretch.kind !== 'data') return { stretch, bytes: undefined };
    const blocks = Math.ceil(stretch.length / BLOCK_BYTES);
    const bytes = new Uint8Array(blocks * BLOCK_BYTES);
    await source.device.read(stretch.offset, bytes.subarray(0, stretch.length));
    return { stretch, bytes };
  };
  const since = { bytes: 0, records: 0 };
  let done = 0;
  progress(0, header.dataBytes);
  for await (const { stretch, bytes } of ahead(piecesOf(stretchesOf(source)), read)) {
    for (const record of recordsOf(encoder, stretch, bytes)) {
      yield record;
      since.bytes += record.length;
      since.records += 1;
    }
    if (bytes !== undefined) done += stretch.length;
    progress(done, header.dataBytes);
    if (since.bytes < sealBytes && since.records < SEAL_RECORDS) continue;
    yield encoder.seal('seal');
    since.bytes = 0;
    since.records = 0;
  }
  yield encoder.seal('end');
}

/** Data that is zeros is sent as such; it stays allocated. */
function* recordsOf(
  encoder: StreamEncoder,
  { kind, offset, length }: Stretch,
  bytes: Uint8Array | undefined,
): Generator<Uint8Array, void> {
  const first = offset / BLOCK_BYTES;
  const count = Math.ceil(length / BLOCK_BYTES);
  if (bytes === undefined || kind !== 'data') {
    yield encoder.zeros(kind === 'hole' ? 'hole' : 'allocated', blockOf(first), count);
    return;
  }
  const zeroAt = (at: number): boolean =>
    isZero(bytes.subarray(at * BLOCK_BYTES, (at + 1) * BLOCK_BYTES));
  for (let from = 0; from < count;) {
    const zero = zeroAt(from);
    let to = from + 1;
    while (to < count && zeroAt(to) === zero) to++;
    const block = blockOf(first + from);
    if (zero) yield encoder.zeros('allocated', block, to - from);
    else yield encoder.data(block, bytes.subarray(from * BLOCK_BYTES, to * BLOCK_BYTES));
    from = to;
  }
}
