/**
 * Requests under way, beside what the stream says of them (laws 1 and 2): each generation must be
 * exactly one request in flight, applied to the state before it; an answered request has its
 * generation, a refused one has none.
 */
import { BLOCK_BYTES } from '../../src/base/units.ts';
import type { LogStream } from '../../log/stream.ts';
import type { VolumeModel } from '../../test/model/volume-model.ts';
import { law } from './law.ts';

export interface Request {
  readonly kind: 'write' | 'trim' | 'zero';
  readonly offset: number;
  readonly length: number;
  /** What a write carries. */
  readonly bytes: Uint8Array | undefined;
  readonly fua: boolean;
  /** What the stream gave it. */
  generation: number | undefined;
}

interface Change {
  readonly block: number;
  /** Undefined: zeros. */
  readonly content: Uint8Array | undefined;
}

/** So few bytes may be the same by chance. */
const BYTES_ALIKE_MAX = 4;

function isAlike(left: Request, right: Request): boolean {
  if (isBlank(left) && isBlank(right)) return true;
  return isShort(left) && isShort(right);
}

function isShort({ length }: Request): boolean {
  return length <= BYTES_ALIKE_MAX;
}

/** A short write of zeros, too: where zeros are it does what one of the whole block does. */
function isBlank(request: Request): boolean {
  const { bytes } = request;
  return bytes === undefined || (isShort(request) && bytes.every((byte) => byte === 0));
}

const ZEROS = new Uint8Array(BLOCK_BYTES);

/** Blocks that a request touches: the first, and the one after the last. */
export function blocksOf({ kind, offset, length }: Request, size: number): [number, number] {
  if (kind !== 'trim') {
    return [Math.floor(offset / BLOCK_BYTES), Math.ceil((offset + length) / BLOCK_BYTES)];
  }
  const end = offset + length;
  const last = end >= size ? Math.ceil(size / BLOCK_BYTES) : Math.floor(end / BLOCK_BYTES);
  return [Math.ceil(offset / BLOCK_BYTES), last];
}

export class Requests {
  readonly #model: VolumeModel;
  readonly #pending = new Set<Request>();

  constructor(model: VolumeModel) {
    this.#model = model;
  }

  get count(): number {
    return this.#pending.size;
  }

  begin(request: Request): void {
    this.#pending.add(request);
  }

  /** The request was answered: from here on it takes no generation. */
  end(request: Request): void {
    this.#pending.delete(request);
    if (request.generation !== undefined) return;
    const twin = this.#twinOf(request, (other) => other.generation !== undefined);
    if (twin === undefined) return;
    request.generation = twin.generation;
    twin.generation = undefined;
  }

  /** The request was refused: what the stream says may be about another one that does the same. */
  refuse(request: Request): void {
    this.#pending.delete(request);
    if (request.generation === undefined) return;
    const twin = this.#twinOf(request, (other) => other.generation === undefined);
    if (twin === undefined) return;
    twin.generation = request.generation;
    request.generation = undefined;
  }

  /** Two that do the same can't be told apart in the stream. */
  #twinOf(request: Request, fits: (other: Request) => boolean): Request | undefined {
    const [first, end] = blocksOf(request, this.#model.size);
    return [...this.#pending].find((other) => {
      if (!fits(other) || !isAlike(request, other)) return false;
      const [otherFirst, otherEnd] = blocksOf(other, this.#model.size);
      return first === otherFirst && end === otherEnd;
    });
  }

  /** The machine is gone: nobody will be answered. */
  clear(): void {
    this.#pending.clear();
  }

  /** Whether the request changes anything: a trim inside one block does not. */
  isEmpty(request: Request): boolean {
    const [first, end] = blocksOf(request, this.#model.size);
    return end <= first || request.length === 0;
  }

  /**
   * Follows the stream of one opening of the volume.
   * @param onPut - told where each payload lies
   */
  listen(
    stream: LogStream,
    isAlive: () => boolean,
    onPut: (lsn: number, block: number, generation: number) => void,
  ): void {
    const putData = stream.putData.bind(stream);
    const putRange = stream.putRange.bind(stream);
    const beginRequest = stream.beginRequest.bind(stream);
    let changes: Change[] = [];
    let generation = 0;
    stream.beginRequest = () => {
      changes = [];
      const begun = beginRequest();
      generation = begun;
      if (isAlive()) {
        law(2, generation === this.#model.head + 1, 'a generation follows the one before it');
      }
      return begun;
    };
    stream.putData = (block, source, at, crc, last, fua) => {
      const lsn = putData(block, source, at, crc, last, fua);
      if (isAlive()) {
        changes.push({ block, content: source.slice(at, at + BLOCK_BYTES) });
        onPut(lsn, block, generation);
        if (last) this.#take(changes, fua);
      }
      return lsn;
    };
    stream.putRange = (kind, block, count, last, fua) => {
      putRange(kind, block, count, last, fua);
      if (!isAlive()) return;
      for (let i = 0; i < count; i++) changes.push({ block: block + i, content: undefined });
      if (last) this.#take(changes, fua);
    };
  }

  /** @param fua - of two that do the same, the one that asked for it */
  #take(changes: readonly Change[], fua: boolean): void {
    const sorted = [...changes].sort((a, b) => a.block - b.block);
    const generation = this.#model.head + 1;
    const likely = [...this.#pending].filter((request) => request.fua === fua);
    for (const request of [...likely, ...this.#pending]) {
      if (request.generation !== undefined || !this.#fits(request, sorted)) continue;
      request.generation = generation;
      this.#model.apply(sorted);
      return;
    }
    // The one that this is may have been taken before for another that did the same there.
    for (const request of this.#pending) {
      if (request.generation === undefined || !this.#fits(request, sorted)) continue;
      const twin = this.#twinOf(request, (other) => other.generation === undefined);
      if (twin === undefined) continue;
      twin.generation = request.generation;
      request.generation = generation;
      this.#model.apply(sorted);
      return;
    }
    const blocks = sorted.map(({ block }) => block).join(', ');
    law(2, false, `generation ${generation} (blocks ${blocks}) is no request in flight, whole`);
  }

  /** Whether the request, applied to the newest state, changes exactly this. */
  #fits(request: Request, changes: readonly Change[]): boolean {
    const [first, end] = blocksOf(request, this.#model.size);
    if (changes.length !== end - first || changes[0]?.block !== first) return false;
    return changes.every(({ block, content }, i) => {
      if (block !== first + i) return false;
      return Buffer.compare(content ?? ZEROS, this.#after(request, block)) === 0;
    });
  }

  #after({ kind, offset, length, bytes }: Request, block: number): Uint8Array {
    if (kind === 'trim') return ZEROS;
    const at = block * BLOCK_BYTES;
    const from = Math.max(offset, at);
    const to = Math.min(offset + length, at + BLOCK_BYTES);
    const content = this.#model.blockAt(block, this.#model.head).slice();
    if (bytes === undefined) {
      // The volume's last block may be a partial one: to its end is to the block's end.
      content.fill(0, from - at, to === this.#model.size ? BLOCK_BYTES : to - at);
    } else content.set(bytes.subarray(from - offset, to - offset), from - at);
    return content;
  }
}
