/**
 * One state as a read-only device: each piece of the disk is read at a moment at which it was what
 * the state has there. So nothing is copied, however large the requests are.
 */
import { assert } from '../base/assert.ts';
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
  type Generation,
} from '../base/units.ts';
import type { BlockDevice, Done, StatusRun } from '../device/block-device.ts';
import { UNTOUCHED } from './coverage.ts';
import { subsetState, winnersOf, type CrashState, type Stretch, type Tear } from './crash-state.ts';

/** Reads the disk as it was right after a request. */
export type ReadMoment = (
  generation: Generation,
  offset: ByteOffset,
  target: Uint8Array,
) => Promise<void>;

const SECTOR_BYTES = 512;
const BLOCK_SECTORS = BLOCK_BYTES / SECTOR_BYTES;

/** Blocks that can be read at one moment; zeros where there is none. */
interface Run {
  readonly blocks: number;
  readonly at: Generation | undefined;
}

interface Torn {
  readonly position: number;
  readonly tear: Tear;
}

export class StateDevice implements BlockDevice {
  readonly size: ByteCount;
  readonly requestBytesMax = mebibytes(32);
  readonly readOnly = true;
  readonly #stretch: Stretch;
  readonly #end: number;
  readonly #read: ReadMoment;
  readonly #winners: ReadonlyMap<number, number>;
  readonly #torn: Torn | undefined;

  constructor(
    stretch: Stretch,
    state: CrashState,
    { size, read }: { readonly size: ByteCount; readonly read: ReadMoment },
  ) {
    this.size = size;
    this.#stretch = stretch;
    this.#read = read;
    this.#end = state.epoch.first;
    const { tear, present, epoch } = state;
    const newest = present.at(-1);
    this.#torn =
      tear === undefined || newest === undefined ? undefined : { tear, position: newest };
    const whole = this.#torn === undefined ? state : subsetState(epoch, present.slice(0, -1));
    this.#winners = winnersOf(stretch, whole);
  }

  async read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    const end = offset + target.length;
    if (end > this.size) throw new VarveError('REQUEST_BAD', `${target.length} bytes at ${offset}`);
    for (let at: number = offset; at < end;) {
      const block = blockOf(Math.floor(at / BLOCK_BYTES));
      const cut = this.#cutIn(block);
      const run = cut === undefined ? this.#runFrom(block, end) : { blocks: 1, at: undefined };
      const next = Math.min(end, (block + run.blocks) * BLOCK_BYTES);
      const part = target.subarray(at - offset, next - offset);
      if (cut !== undefined) await this.#readTorn(block, cut, part, at - block * BLOCK_BYTES);
      else if (run.at === undefined) part.fill(0);
      else await this.#read(run.at, byteOffset(at), part);
      at = next;
    }
  }

  write(): Done {
    throw new VarveError('READ_ONLY', 'a state of the past');
  }

  trim(): Done {
    throw new VarveError('READ_ONLY', 'a state of the past');
  }

  zero(): Done {
    throw new VarveError('READ_ONLY', 'a state of the past');
  }

  flush(): Done {
    return undefined;
  }

  cache(): Done {
    return undefined;
  }

  contexts(): Promise<readonly string[]> {
    return Promise.resolve([]);
  }

  status(context: string): Promise<readonly StatusRun[]> {
    return Promise.reject(new VarveError('REQUEST_BAD', `no context "${context}" is offered`));
  }

  async close(): Promise<void> {
    // The moments are somebody else's.
  }

  /** From this block on, as far as one moment has it, or up to `end`. */
  #runFrom(block: Block, end: number): Run {
    const first = this.#piece(block);
    let blocks = first.blocks;
    while ((block + blocks) * BLOCK_BYTES < end) {
      if (this.#cutIn(blockOf(block + blocks)) !== undefined) break;
      const next = this.#piece(blockOf(block + blocks));
      if (next.at !== first.at) break;
      blocks += next.blocks;
    }
    return { blocks, at: first.at };
  }

  /** A piece, from this block on; of a piece that the torn request covers, one block. */
  #piece(block: Block): Run {
    const { coverage } = this.#stretch;
    const { piece, count } = coverage.find(block);
    if (piece === UNTOUCHED) return { blocks: count, at: this.#stretch.from };
    const isTorn = this.#torn !== undefined && this.#sectorOf(block) !== undefined;
    const position = isTorn && this.#isWithin(block) ? this.#torn.position : this.#winner(piece);
    return { blocks: isTorn ? 1 : count, at: this.#momentOf(position, piece) };
  }

  #winner(piece: number): number {
    return this.#winners.get(piece) ?? this.#stretch.coverage.newestBefore(piece, this.#end);
  }

  /** When the disk had this version there; few moments in all, so the last one where it lasts. */
  #momentOf(position: number, piece: number): Generation | undefined {
    const { requests, coverage, from } = this.#stretch;
    if (position === UNTOUCHED) return from;
    const request = requests[position];
    assert(request !== undefined, 'a request of the stretch');
    const { start } = coverage.pieceAt(piece);
    const part = request.parts.find((one) => start >= one.start && start < one.start + one.count);
    if (part?.crcs === undefined) return undefined;
    const isLast = coverage.nextAfter(piece, position) === undefined;
    return isLast ? requests.at(-1)?.generation : request.generation;
  }

  /** Where in the torn request the block's first sector is; undefined: it is not of it. */
  #sectorOf(block: Block): number | undefined {
    if (this.#torn === undefined) return undefined;
    let sector = 0;
    for (const { start, count } of this.#stretch.requests[this.#torn.position]?.parts ?? []) {
      if (block >= start && block < start + count) return sector + (block - start) * BLOCK_SECTORS;
      sector += count * BLOCK_SECTORS;
    }
    return undefined;
  }

  #isWithin(block: Block): boolean {
    const sector = this.#sectorOf(block);
    if (sector === undefined || this.#torn === undefined) return false;
    const { from, to } = this.#torn.tear;
    return sector >= from && sector + BLOCK_SECTORS <= to;
  }

  /** Of a block that the tear goes through: which of its sectors are new. */
  #cutIn(block: Block): Tear | undefined {
    const sector = this.#sectorOf(block);
    if (sector === undefined || this.#torn === undefined) return undefined;
    const from = Math.max(0, this.#torn.tear.from - sector);
    const to = Math.min(BLOCK_SECTORS, this.#torn.tear.to - sector);
    return to <= 0 || from >= BLOCK_SECTORS || (from === 0 && to === BLOCK_SECTORS)
      ? undefined
      : { from, to };
  }

  async #readTorn(block: Block, { from, to }: Tear, part: Uint8Array, at: number): Promise<void> {
    const { piece } = this.#stretch.coverage.find(block);
    const old = await this.#wholeBlock(block, this.#momentOf(this.#winner(piece), piece));
    const torn = this.#torn?.position ?? UNTOUCHED;
    const fresh = await this.#wholeBlock(block, this.#momentOf(torn, piece));
    const [start, end] = [from * SECTOR_BYTES, to * SECTOR_BYTES];
    old.set(fresh.subarray(start, end), start);
    part.set(old.subarray(at, at + part.length));
  }

  async #wholeBlock(block: Block, at: Generation | undefined): Promise<Uint8Array> {
    const content = new Uint8Array(BLOCK_BYTES);
    if (at === undefined) return content;
    const offset = byteOffset(block * BLOCK_BYTES);
    const length = byteCount(Math.min(BLOCK_BYTES, this.size - offset));
    await this.#read(at, offset, content.subarray(0, length));
    return content;
  }
}
