/**
 * Blocks that were read from log or final storage and verified. Keyed by LSN, or by block with its
 * generation, so what it holds can't go stale; and verified again when it is handed out. What a round
 * writes again at home is dropped, so that a stale sum never finds the content that it names.
 */
import { LRUCache } from 'lru-cache';
import {
  block as blockOf,
  BLOCK_BYTES,
  type Block,
  type ByteCount,
  type Generation,
  type Lsn,
} from '../base/units.ts';

/** Longer ranges empty the cache of final storage: looking for each block would take longer. */
const DROPPED_ONE_BY_ONE_MAX = 1024;

export class ReadCache {
  readonly #log: LRUCache<Lsn, Uint8Array>;
  readonly #final: LRUCache<Block, { readonly generation: Generation; readonly data: Uint8Array }>;

  /** @param size - bytes; half for the log, half for final storage */
  constructor(size: ByteCount) {
    const maxSize = Math.max(BLOCK_BYTES, Math.floor(size / 2));
    this.#log = new LRUCache({ maxSize, sizeCalculation: () => BLOCK_BYTES });
    this.#final = new LRUCache({ maxSize, sizeCalculation: () => BLOCK_BYTES });
  }

  atLsn(position: Lsn): Uint8Array | undefined {
    return this.#log.get(position);
  }

  keepLsn(position: Lsn, data: Uint8Array): void {
    // Not `slice`: of a Buffer that is a view, and its memory is somebody else's tomorrow.
    this.#log.set(position, new Uint8Array(data));
  }

  /** What it holds there is damaged. */
  dropLsn(position: Lsn): void {
    this.#log.delete(position);
  }

  /** The block as final storage held it with this generation. */
  atHome(block: Block, generation: Generation): Uint8Array | undefined {
    const found = this.#final.get(block);
    return found !== undefined && found.generation === generation ? found.data : undefined;
  }

  keepHome(block: Block, generation: Generation, data: Uint8Array): void {
    this.#final.set(block, { generation, data: new Uint8Array(data) });
  }

  /** A round writes newer versions of these blocks. */
  dropHome(first: Block, count: number): void {
    if (count > DROPPED_ONE_BY_ONE_MAX) this.#final.clear();
    else for (let i = 0; i < count; i++) this.#final.delete(blockOf(first + i));
  }
}
