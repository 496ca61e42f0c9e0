/** The fuzzer of the index finds bugs: each planted here must be found. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { blocksProperty } from '../../fuzz/index/blocks.fuzz.ts';
import { BlockIndex, FOUND_ZERO, type Found } from '../../index/block-index.ts';
import type { BlockVersions } from '../../index/block-versions.ts';
import {
  blockCount,
  generation,
  type Block,
  type BlockCount,
  type Generation,
} from '../../src/base/units.ts';

/** Looks one generation into the future. */
class Early extends BlockIndex {
  override find(block: Block, at: Generation): Found {
    return super.find(block, generation(at + 1));
  }
}

/** A range lacks its last block. */
class Short extends BlockIndex {
  override putRange(start: Block, count: BlockCount, at: Generation, kind: 1 | 2 | 3): void {
    super.putRange(start, blockCount(Math.max(count - 1, 1)), at, kind);
  }
}

/** Forgets one generation too many. */
class Forgetful extends BlockIndex {
  override dropSome(settled: Generation, versionsMax: number): boolean {
    return super.dropSome(generation(settled + 1), versionsMax);
  }
}

/** Of a block's versions it forgets the one that is replaced by a trim. */
class Blind extends BlockIndex {
  override versionsOf(where: Block, at: Generation, versionsMax: number): BlockVersions {
    const { versions, next } = super.versionsOf(where, at, versionsMax);
    const trims = versions.findIndex(({ found }) => found === FOUND_ZERO);
    return { versions: versions.filter((_, i) => trims < 0 || i !== trims + 1), next };
  }
}

describe('a planted bug is found', () => {
  it.each([Early, Short, Forgetful, Blind])('%o', (Broken) => {
    const property = blocksProperty((options) => new Broken(options));
    const { failed } = fc.check(property, { seed: 1, numRuns: 200, endOnFailure: true });
    expect(failed).toBe(true);
  });
});
