/**
 * The oracle: what a volume holds after each generation, kept the simplest way there is, as a list
 * of contents for each block. Shares no code with the index.
 */
import { BLOCK_BYTES } from '../../src/base/units.ts';

interface Version {
  readonly generation: number;
  /** Undefined: zeros. */
  readonly content: Uint8Array | undefined;
}

const ZEROS = new Uint8Array(BLOCK_BYTES);

export class VolumeModel {
  readonly size: number;
  readonly #blocks: Version[][] = [];
  /** What blocks are that were never written. */
  readonly #base: Uint8Array;
  head = 0;

  /** @param base - what the volume is based on; zeros behind its end */
  constructor(size: number, base: Uint8Array = new Uint8Array(0)) {
    this.size = size;
    this.#base = base;
    for (let i = 0; i < Math.ceil(size / BLOCK_BYTES); i++) this.#blocks.push([]);
  }

  get blocks(): number {
    return this.#blocks.length;
  }

  blockAt(block: number, generation: number): Uint8Array {
    const versions = this.#blocks[block] ?? [];
    for (let i = versions.length - 1; i >= 0; i--) {
      const version = versions[i];
      if (version !== undefined && version.generation <= generation) {
        return version.content ?? ZEROS;
      }
    }
    return this.#baseAt(block);
  }

  #baseAt(block: number): Uint8Array {
    const content = this.#base.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
    if (content.length === BLOCK_BYTES) return content;
    const whole = ZEROS.slice();
    whole.set(content);
    return whole;
  }

  /** Generation of the version that `blockAt` gives; 0: never written. */
  generationAt(block: number, generation: number): number {
    const versions = this.#blocks[block] ?? [];
    const found = versions.findLast((version) => version.generation <= generation);
    return found?.generation ?? 0;
  }

  /** Whether a block was trimmed, or never written and zeros. */
  isHoleAt(block: number, generation: number): boolean {
    const found = this.#blocks[block]?.findLast((version) => version.generation <= generation);
    if (found !== undefined) return found.content === undefined;
    return Buffer.compare(this.#baseAt(block), ZEROS) === 0;
  }

  /** It was zeros all the time, from one generation to another, however often it was made zeros. */
  stayedZeros(block: number, from: number, to: number): boolean {
    const made = this.generationsOf(block).filter((one) => one > from && one <= to);
    return [from, ...made].every((one) => Buffer.compare(this.blockAt(block, one), ZEROS) === 0);
  }

  /** How many blocks a generation changed. */
  changedBy(generation: number): number {
    return this.#blocks.filter((versions) => versions.some((one) => one.generation === generation))
      .length;
  }

  /** Of every version of a block, and 0 for its first zeros. */
  generationsOf(block: number): readonly number[] {
    return [0, ...(this.#blocks[block] ?? []).map(({ generation }) => generation)];
  }

  /** Whether a block's part, from byte `from` in it, was so at some generation of [first, last]. */
  wasBetween(
    block: number,
    from: number,
    part: Uint8Array,
    [first, last]: readonly [number, number],
  ): boolean {
    for (let at = last; ; at = this.generationAt(block, at) - 1) {
      const content = this.blockAt(block, at).subarray(from, from + part.length);
      if (Buffer.compare(content, part) === 0) return true;
      if (this.generationAt(block, at) <= first) return false;
    }
  }

  bytesAt(offset: number, length: number, generation: number): Uint8Array {
    const out = new Uint8Array(length);
    for (let at = offset; at < offset + length;) {
      const block = Math.floor(at / BLOCK_BYTES);
      const into = at - block * BLOCK_BYTES;
      const take = Math.min(BLOCK_BYTES - into, offset + length - at);
      const content = this.blockAt(block, generation);
      out.set(content.subarray(into, into + take), at - offset);
      at += take;
    }
    return out;
  }

  write(offset: number, source: Uint8Array): number {
    const generation = ++this.head;
    for (let at = 0; at < source.length;) {
      const block = Math.floor((offset + at) / BLOCK_BYTES);
      const into = offset + at - block * BLOCK_BYTES;
      const take = Math.min(BLOCK_BYTES - into, source.length - at);
      const content = this.blockAt(block, generation).slice();
      content.set(source.subarray(at, at + take), into);
      this.#push(block, { generation, content });
      at += take;
    }
    return generation;
  }

  /** Exactly the range reads as zeros. */
  zero(offset: number, length: number): number {
    return this.write(offset, new Uint8Array(length));
  }

  /** Whole blocks only; the last block of the volume counts as whole. @returns undefined: nothing */
  trim(offset: number, length: number): number | undefined {
    const first = Math.ceil(offset / BLOCK_BYTES);
    const end =
      offset + length >= this.size ? this.blocks : Math.floor((offset + length) / BLOCK_BYTES);
    if (end <= first) return undefined;
    const generation = ++this.head;
    for (let block = first; block < end; block++) {
      this.#push(block, { generation, content: undefined });
    }
    return generation;
  }

  /** One generation from whole blocks, as the stream carries them. */
  apply(
    changes: readonly { readonly block: number; readonly content: Uint8Array | undefined }[],
  ): void {
    const generation = ++this.head;
    for (const { block, content } of changes) this.#push(block, { generation, content });
  }

  /** From `generation` on the volume is as it was at `moment`; what lies in between is no moment. */
  restore(generation: number, moment: number): void {
    const contents = this.#blocks.map((versions, block) => {
      const found = versions.findLast((version) => version.generation <= moment);
      if (found !== undefined) return found.content;
      const base = this.#baseAt(block);
      return Buffer.compare(base, ZEROS) === 0 ? undefined : base;
    });
    if (generation > this.head) {
      contents.forEach((content, block) => this.#push(block, { generation, content }));
    }
    this.head = generation;
  }

  /** A crash took everything after `generation`. */
  cut(generation: number): void {
    for (const versions of this.#blocks) {
      while ((versions.at(-1)?.generation ?? 0) > generation) versions.pop();
    }
    this.head = generation;
  }

  /** Nobody asks for moments before this one again. */
  forget(horizon: number): void {
    this.#blocks.forEach((versions, block) => {
      const keep = versions.findLastIndex((version) => version.generation <= horizon);
      if (keep > 0) this.#blocks[block] = versions.slice(keep);
    });
  }

  #push(block: number, version: Version): void {
    this.#blocks[block]?.push(version);
  }
}
