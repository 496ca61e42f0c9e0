/**
 * Reads of many moments of one history: few of them open at a time, and what was read kept in
 * bounded memory, because the states of a power cut are alike in nearly all blocks.
 *
 * Invariant: a device that is being read is not closed; what fails is remembered, because whoever
 * reads through several layers may have taken it for something else.
 */
import { LRUCache } from 'lru-cache';
import { isVarveError, type VarveError } from '../base/errors.ts';
import {
  byteOffset,
  kibibytes,
  mebibytes,
  type ByteOffset,
  type Generation,
} from '../base/units.ts';
import type { BlockDevice } from '../device/block-device.ts';
import type { PinnedHistory } from './operations.ts';

const CHUNK_BYTES = kibibytes(64);
const CACHE_BYTES = mebibytes(128);
/** Each may be a connection. */
const OPEN_MAX = 16;

interface OpenMoment {
  readonly device: Promise<BlockDevice>;
  readers: number;
}

export class MomentReader {
  readonly #history: PinnedHistory;
  readonly #open = new Map<Generation, OpenMoment>();
  readonly #chunks = new LRUCache<string, Uint8Array>({
    maxSize: CACHE_BYTES,
    sizeCalculation: (chunk) => Math.max(1, chunk.length),
  });
  readonly #loading = new Map<string, Promise<Uint8Array>>();
  #failure: VarveError | undefined;

  constructor(history: PinnedHistory) {
    this.#history = history;
  }

  /** The first read that failed: what was judged since may have been judged wrongly. */
  get failure(): VarveError | undefined {
    return this.#failure;
  }

  readonly read = async (
    generation: Generation,
    offset: ByteOffset,
    target: Uint8Array,
  ): Promise<void> => {
    for (let done = 0; done < target.length;) {
      const at = offset + done;
      const first = Math.floor(at / CHUNK_BYTES) * CHUNK_BYTES;
      const chunk = await this.#chunk(generation, first);
      const part = chunk.subarray(at - first, at - first + target.length - done);
      target.set(part, done);
      done += part.length;
    }
  };

  async close(): Promise<void> {
    const all = [...this.#open.values()];
    this.#open.clear();
    for (const { device } of all) await device.then(close, () => undefined);
  }

  async #chunk(generation: Generation, first: number): Promise<Uint8Array> {
    const key = `${generation}:${first}`;
    const known = this.#chunks.get(key);
    if (known !== undefined) return known;
    const loading = this.#loading.get(key) ?? this.#load(generation, first, key);
    this.#loading.set(key, loading);
    return await loading;
  }

  async #load(generation: Generation, first: number, key: string): Promise<Uint8Array> {
    const chunk = new Uint8Array(Math.min(CHUNK_BYTES, this.#history.size - first));
    const moment = this.#moment(generation);
    moment.readers += 1;
    try {
      await (await moment.device).read(byteOffset(first), chunk);
      this.#chunks.set(key, chunk);
      return chunk;
    } catch (error) {
      if (isVarveError(error)) this.#failure ??= error;
      throw error;
    } finally {
      moment.readers -= 1;
      this.#loading.delete(key);
    }
  }

  #moment(generation: Generation): OpenMoment {
    const known = this.#open.get(generation);
    // Used last, closed last.
    this.#open.delete(generation);
    const moment = known ?? { device: this.#history.open(generation), readers: 0 };
    this.#open.set(generation, moment);
    for (const [other, { device, readers }] of this.#open) {
      if (this.#open.size <= OPEN_MAX) break;
      if (readers > 0 || other === generation) continue;
      this.#open.delete(other);
      void device.then(close, () => undefined);
    }
    return moment;
  }
}

async function close(device: BlockDevice): Promise<void> {
  await device.close();
}
