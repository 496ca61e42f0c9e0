/**
 * A device that takes writes and forgets them: they stay in memory, over a device that is only
 * read. For whoever tries something out on a disk that must not change.
 *
 * Invariants:
 *   - A block is in memory, or zeroed, or as it is below; memory wins over zeroed, and that over
 *     what is below. Zeroed ranges are ascending and do not touch.
 *   - What is held is bounded: a write beyond it is refused, and nothing of it applied.
 */
import { bisect } from '../base/bisect.ts';
import { VarveError } from '../base/errors.ts';
import {
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  type ByteCount,
  type ByteOffset,
} from '../base/units.ts';
import type { BlockDevice, Done, StatusRun } from './block-device.ts';

/** Ranges that are zeroed apart from each other. */
const RANGES_MAX = 65_536;

interface Range {
  readonly start: number;
  readonly end: number;
}

type Source = 'memory' | 'zero' | 'below';

export class ScratchDevice implements BlockDevice {
  readonly size: ByteCount;
  readonly requestBytesMax: ByteCount;
  readonly readOnly = false;
  readonly #below: BlockDevice;
  readonly #blocksMax: number;
  readonly #blocks = new Map<number, Uint8Array>();
  #zeroed: Range[] = [];
  #wasFull = false;

  /** @param bytesMax - what may be written, in whole blocks of 4096 bytes */
  constructor(below: BlockDevice, { bytesMax }: { readonly bytesMax: ByteCount }) {
    this.#below = below;
    this.size = below.size;
    this.requestBytesMax = below.requestBytesMax;
    this.#blocksMax = Math.floor(bytesMax / BLOCK_BYTES);
  }

  /** What is held of writes. */
  get heldBytes(): ByteCount {
    return byteCount(this.#blocks.size * BLOCK_BYTES);
  }

  /** Whether a write was refused for want of room. */
  get wasFull(): boolean {
    return this.#wasFull;
  }

  async read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    this.#needInside(offset, target.length);
    const end = offset + target.length;
    for (let at: number = offset; at < end;) {
      const source = this.#sourceOf(Math.floor(at / BLOCK_BYTES));
      let next = at;
      do next = (Math.floor(next / BLOCK_BYTES) + 1) * BLOCK_BYTES;
      while (next < end && source !== 'memory' && this.#sourceOf(next / BLOCK_BYTES) === source);
      const part = target.subarray(at - offset, Math.min(next, end) - offset);
      await this.#fill(source, at, part);
      at = next;
    }
  }

  async write(offset: ByteOffset, source: Uint8Array): Promise<void> {
    this.#needInside(offset, source.length);
    const end = offset + source.length;
    const first = Math.floor(offset / BLOCK_BYTES);
    const last = Math.ceil(end / BLOCK_BYTES);
    const edges = new Map<number, Uint8Array>();
    for (const block of new Set([first, last - 1])) {
      const isWhole = block * BLOCK_BYTES >= offset && (block + 1) * BLOCK_BYTES <= end;
      if (!isWhole && last > first) edges.set(block, await this.#whole(block));
    }
    // From here on nothing waits: the request is applied whole.
    this.#needRoom(first, last);
    for (let block = first; block < last; block++) {
      const from = Math.max(offset, block * BLOCK_BYTES);
      const to = Math.min(end, (block + 1) * BLOCK_BYTES);
      const held = this.#held(block, edges.get(block));
      held.set(source.subarray(from - offset, to - offset), from - block * BLOCK_BYTES);
    }
  }

  async trim(offset: ByteOffset, length: ByteCount): Promise<void> {
    this.#needInside(offset, length);
    const end = offset + length;
    const start = Math.ceil(offset / BLOCK_BYTES);
    const stop = end === this.size ? Math.ceil(end / BLOCK_BYTES) : Math.floor(end / BLOCK_BYTES);
    if (stop > start) this.#zero({ start, end: stop });
  }

  async zero(offset: ByteOffset, length: ByteCount): Promise<void> {
    this.#needInside(offset, length);
    const end = offset + length;
    const start = Math.ceil(offset / BLOCK_BYTES);
    const stop = end === this.size ? Math.ceil(end / BLOCK_BYTES) : Math.floor(end / BLOCK_BYTES);
    if (stop <= start) {
      await this.write(offset, new Uint8Array(length));
      return;
    }
    const [head, tail] = [start * BLOCK_BYTES - offset, end - stop * BLOCK_BYTES];
    if (head > 0) await this.write(offset, new Uint8Array(head));
    if (tail > 0) await this.write(byteOffset(stop * BLOCK_BYTES), new Uint8Array(tail));
    this.#zero({ start, end: stop });
  }

  flush(): Done {
    return undefined;
  }

  cache(offset: ByteOffset, scratch: Uint8Array): Done {
    this.#needInside(offset, scratch.length);
    return undefined;
  }

  contexts(): Promise<readonly string[]> {
    return Promise.resolve([]);
  }

  status(context: string): Promise<readonly StatusRun[]> {
    return Promise.reject(new VarveError('REQUEST_BAD', `no context "${context}" is offered`));
  }

  /** Several connections may come and go: what is held stays as long as the device is known. */
  async close(): Promise<void> {
    // The device below is its maker's.
  }

  #sourceOf(block: number): Source {
    if (this.#blocks.has(block)) return 'memory';
    const range = this.#zeroed[this.#rangeAfter(block) - 1];
    return range !== undefined && block < range.end ? 'zero' : 'below';
  }

  async #fill(source: Source, at: number, part: Uint8Array): Promise<void> {
    if (source === 'below') {
      await this.#below.read(byteOffset(at), part);
      // What was written meanwhile may be here or not, as on any disk.
      return;
    }
    const block = Math.floor(at / BLOCK_BYTES);
    const held = source === 'zero' ? undefined : this.#blocks.get(block);
    if (held === undefined) part.fill(0);
    else part.set(held.subarray(at - block * BLOCK_BYTES, at - block * BLOCK_BYTES + part.length));
  }

  /** A copy of a block as it is now. */
  async #whole(block: number): Promise<Uint8Array> {
    const content = new Uint8Array(BLOCK_BYTES);
    const at = block * BLOCK_BYTES;
    const length = Math.min(BLOCK_BYTES, this.size - at);
    await this.#fill(this.#sourceOf(block), at, content.subarray(0, length));
    return content;
  }

  /** The block in memory; what it held before, when that was read under an older write, does not count. */
  #held(block: number, before: Uint8Array | undefined): Uint8Array {
    const known = this.#blocks.get(block);
    if (known !== undefined) return known;
    const isBelow = this.#sourceOf(block) === 'below';
    const content = isBelow && before !== undefined ? before : new Uint8Array(BLOCK_BYTES);
    this.#blocks.set(block, content);
    return content;
  }

  #needRoom(first: number, last: number): void {
    let more = 0;
    for (let block = first; block < last; block++) if (!this.#blocks.has(block)) more += 1;
    if (this.#blocks.size + more > this.#blocksMax) {
      this.#wasFull = true;
      throw new VarveError(
        'DISK_FULL',
        `a disposable disk holds ${this.#blocksMax} written blocks`,
      );
    }
  }

  #needInside(offset: number, length: number): void {
    if (offset >= 0 && length >= 0 && offset + length <= this.size) return;
    throw new VarveError('REQUEST_BAD', `${length} bytes from ${offset} on`);
  }

  #zero({ start, end }: Range): void {
    let first = this.#rangeAfter(start);
    if (first > 0 && (this.#zeroed[first - 1]?.end ?? 0) >= start) first -= 1;
    let behind = first;
    while ((this.#zeroed[behind]?.start ?? Infinity) <= end) behind += 1;
    const touched = this.#zeroed.slice(first, behind);
    if (touched.length === 0 && this.#zeroed.length >= RANGES_MAX) {
      this.#wasFull = true;
      throw new VarveError('DISK_FULL', `a disposable disk holds ${RANGES_MAX} zeroed ranges`);
    }
    const merged = {
      start: Math.min(start, touched[0]?.start ?? start),
      end: Math.max(end, touched.at(-1)?.end ?? end),
    };
    this.#zeroed.splice(first, behind - first, merged);
    if (end - start < this.#blocks.size) {
      for (let block = start; block < end; block++) this.#blocks.delete(block);
      return;
    }
    for (const block of this.#blocks.keys()) {
      if (block >= start && block < end) this.#blocks.delete(block);
    }
  }

  /** The first range that begins after the block. */
  #rangeAfter(block: number): number {
    return bisect(this.#zeroed.length, (at) => (this.#zeroed[at]?.start ?? 0) <= block);
  }
}
