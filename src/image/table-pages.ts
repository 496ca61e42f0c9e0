/** Tables of an image, read by the page and kept in bounded memory. */
import { LRUCache } from 'lru-cache';
import { byteOffset } from '../base/units.ts';
import type { LowerDevice } from '../device/lower-device.ts';

/** Divides into whole tables of any size that there is, and is divided into whole entries. */
const PAGE_BYTES = 32 * 1024;
const PAGES_MAX = 64;

export interface TablePage {
  readonly from: number;
  readonly end: number;
  readonly view: DataView;
}

export class TablePages {
  readonly #device: LowerDevice;
  readonly #pages = new LRUCache<number, Promise<TablePage>>({ max: PAGES_MAX });

  constructor(device: LowerDevice) {
    this.#device = device;
  }

  /** @param at - inside the file */
  page(at: number): Promise<TablePage> {
    const number = Math.floor(at / PAGE_BYTES);
    const known = this.#pages.get(number);
    if (known !== undefined) return known;
    const reading = this.#read(number * PAGE_BYTES);
    this.#pages.set(number, reading);
    reading.catch(() => this.#pages.delete(number));
    return reading;
  }

  async #read(from: number): Promise<TablePage> {
    const bytes = new Uint8Array(Math.min(PAGE_BYTES, this.#device.size - from));
    await this.#device.read(byteOffset(from), bytes);
    return { from, end: from + bytes.length, view: new DataView(bytes.buffer) };
  }
}
