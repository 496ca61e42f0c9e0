/**
 * Putting a part of history back: what blocks held at a moment is read and written again, as
 * requests of the volume's own.
 */
import { VarveError } from '../base/errors.ts';
import { BLOCK_BYTES, byteOffset, mebibytes, type Generation } from '../base/units.ts';
import { KIND_ALLOCATE, KIND_TRIM, KIND_ZERO } from '../format/layouts.ts';
import { RANGE_ALLOCATE, RANGE_TRIM, RANGE_ZERO, type RangeKind } from '../../index/found.ts';
import type { Appender, Writer } from './appender.ts';
import type { Core } from './core.ts';
import { differing, type Piece } from './differing.ts';
import type { ZerosBy } from './home-kinds.ts';
import type { Reader } from './reader.ts';

/** Content that is read, and then put, in one go. */
const CHUNK_BYTES = mebibytes(1);
/** Others get a turn after so many pieces or blocks. */
const TURN_PIECES = 256;
const TURN_BLOCKS = 2048;

const KIND_OF_RANGE: Readonly<Record<RangeKind, number>> = {
  [RANGE_TRIM]: KIND_TRIM,
  [RANGE_ZERO]: KIND_ZERO,
  [RANGE_ALLOCATE]: KIND_ALLOCATE,
};

export interface Span {
  /** The moment that comes back, pinned. */
  readonly target: Generation;
  /** Generations up to this one are undone; what is later was put back already. */
  readonly bound: Generation;
}

/** @param done - blocks of data so far */
type Done = (done: number) => void;

/** @throws VarveError CLOSED, and what finding the pieces and `work` throw */
export async function eachPiece(
  core: Core,
  span: Span & { readonly zerosBy: ZerosBy },
  progress: Done,
  work: (piece: Piece) => Promise<void>,
): Promise<void> {
  const dataBlocksMax = chunkBytes(core) / BLOCK_BYTES;
  let done = 0;
  let [pieces, blocks] = [0, 0];
  for await (const piece of differing(core, { ...span, dataBlocksMax })) {
    if (core.closed) throw new VarveError('CLOSED', 'the volume is closed');
    await work(piece);
    if (piece.kind === 'data') {
      done += piece.count;
      blocks += piece.count;
    }
    pieces += 1;
    progress(done);
    if (pieces < TURN_PIECES && blocks < TURN_BLOCKS) continue;
    [pieces, blocks] = [0, 0];
    await core.yieldTurn();
  }
}

/**
 * Puts all of it.
 * @throws VarveError as a read and a write; it can be asked for again
 */
export async function putBack(
  core: Core,
  parts: { readonly reader: Reader; readonly appender: Appender; readonly by: Writer },
  span: Span,
  progress: Done,
): Promise<void> {
  const { reader, appender, by } = parts;
  const { target } = span;
  const chunk = new Uint8Array(chunkBytes(core));
  const seen = { ...span, zerosBy: 'content' } as const;
  await eachPiece(core, seen, progress, async ({ kind, first, count }) => {
    if (kind !== 'data') {
      await appender.putBack({ kind: KIND_OF_RANGE[kind], first, count, by });
      return;
    }
    const body = chunk.subarray(0, count * BLOCK_BYTES);
    await reader.read(byteOffset(first * BLOCK_BYTES), body, target);
    await appender.putBack({ kind: undefined, first, count, body, by });
  });
}

/** Reads all of it, and puts nothing. @throws VarveError as a read */
export async function readAll(
  core: Core,
  reader: Reader,
  span: Span,
  progress: Done,
): Promise<void> {
  const chunk = new Uint8Array(chunkBytes(core));
  const seen = { ...span, zerosBy: 'content' } as const;
  await eachPiece(core, seen, progress, async ({ kind, first, count }) => {
    if (kind !== 'data') return;
    const body = chunk.subarray(0, count * BLOCK_BYTES);
    await reader.read(byteOffset(first * BLOCK_BYTES), body, span.target);
  });
}

/** Of whole blocks, at most what one request holds. */
function chunkBytes(core: Core): number {
  const most = Math.min(CHUNK_BYTES, core.log.geometry.requestBytesMax);
  return Math.max(1, Math.floor(most / BLOCK_BYTES)) * BLOCK_BYTES;
}
