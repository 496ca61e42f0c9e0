/**
 * Where a pattern lies in a block, and where it would if the next block, or the one before, went on
 * with it. Pure.
 *
 * A pattern over the edge of two blocks is split after its first k bytes: the first block ends with
 * these, and the second one begins with the rest.
 */
import { assert } from '../base/assert.ts';
import { BLOCK_BYTES } from '../base/units.ts';

export class Pattern {
  readonly bytes: Buffer;

  /** @param bytes - at most a block */
  constructor(bytes: Uint8Array) {
    assert(
      bytes.length >= 1 && bytes.length <= BLOCK_BYTES,
      'a pattern touches two blocks at most',
    );
    this.bytes = Buffer.from(bytes);
  }

  get length(): number {
    return this.bytes.length;
  }

  /** Whether zeros hold it. */
  get isZeros(): boolean {
    return this.bytes.every((byte) => byte === 0);
  }

  /** Where it begins in the block; places may overlap. */
  *inside(block: Buffer): Generator<number> {
    for (let at = block.indexOf(this.bytes); at >= 0; at = block.indexOf(this.bytes, at + 1))
      yield at;
  }

  /** The splits with which the block ends. */
  *atTail(block: Buffer): Generator<number> {
    const { bytes } = this;
    const last = block[block.length - 1];
    for (let split = 1; split < bytes.length; split++) {
      if (bytes[split - 1] !== last) continue;
      const from = block.length - split;
      if (bytes.compare(block, from, block.length, 0, split) === 0) yield split;
    }
  }

  /** The splits with which the block begins. */
  *atHead(block: Buffer): Generator<number> {
    const { bytes } = this;
    for (let split = 1; split < bytes.length; split++) {
      if (bytes[split] !== block[0]) continue;
      if (bytes.compare(block, 0, bytes.length - split, split) === 0) yield split;
    }
  }
}
