/**
 * What scrubs write again of final storage and its sums, and what of that is not durable.
 *
 * Invariant: what was written and not synced is in doubt until it was written again and synced, however
 * right it reads: after a failed sync the page cache may have what the device lacks (law 7).
 */
import { isVarveError } from '../base/errors.ts';
import type { Block } from '../base/units.ts';
import type { Sum } from '../format/sums.ts';
import type { FinalStorage } from './final-storage.ts';
import { pageOf } from './sums-page.ts';

/** With more in doubt nothing else is repaired: the device as a whole is to blame. */
const DOUBTFUL_MAX = 65_536;

export class Repairs {
  readonly #final: FinalStorage;
  readonly #blocks = new Set<Block>();
  /** Of the sums. */
  readonly #pages = new Set<number>();

  constructor(final: FinalStorage) {
    this.#final = final;
  }

  isDoubtful(block: Block): boolean {
    return this.#blocks.has(block);
  }

  isDoubtfulPage(page: number): boolean {
    return this.#pages.has(page);
  }

  /** @returns false when a device refuses it: what was there is in doubt then */
  async writeHome(block: Block, content: Uint8Array): Promise<boolean> {
    return await attempt(this.#blocks, block, async () => {
      await this.#final.write(block, [content]);
      await this.#final.syncFinal('repair');
    });
  }

  /** @returns as `writeHome` */
  async writeSum(block: Block, sum: Sum): Promise<boolean> {
    const { sidecar } = this.#final;
    return await attempt(this.#pages, pageOf(block), async () => {
      await sidecar.write([{ block, sum }]);
      await sidecar.sync('repair');
    });
  }

  /** @returns as `writeHome`. @see Sidecar.mendPage */
  async writePage(number: number, given: ReadonlyMap<number, readonly Sum[]>): Promise<boolean> {
    const { sidecar } = this.#final;
    return await attempt(this.#pages, number, async () => {
      await sidecar.mendPage(number, given);
      await sidecar.sync('repair');
    });
  }
}

async function attempt<T>(doubtful: Set<T>, one: T, work: () => Promise<void>): Promise<boolean> {
  if (doubtful.size >= DOUBTFUL_MAX && !doubtful.has(one)) return false;
  doubtful.add(one);
  try {
    await work();
  } catch (error) {
    if (isVarveError(error, 'DEVICE_IO') || isVarveError(error, 'DISK_FULL')) return false;
    throw error;
  }
  doubtful.delete(one);
  return true;
}
