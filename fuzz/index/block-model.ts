/**
 * The naive index: every version and range as it came, each question answered by looking at all of
 * them. It knows nothing of hashes, links, clones or chunks.
 */
import type { RangeKind } from '../../index/found.ts';

export interface ModelPoint {
  readonly block: number;
  readonly generation: number;
  readonly lsn: number;
  readonly checksum: number;
}

export interface ModelRange {
  readonly start: number;
  readonly count: number;
  readonly generation: number;
  readonly kind: RangeKind;
}

export class BlockModel {
  points: ModelPoint[] = [];
  ranges: ModelRange[] = [];

  pointAt(block: number, at: number): ModelPoint | undefined {
    return this.points.findLast((point) => point.block === block && point.generation <= at);
  }

  rangeAt(block: number, at: number): ModelRange | undefined {
    return this.ranges.findLast(({ start, count, generation }) => {
      return block >= start && block < start + count && generation <= at;
    });
  }

  /** What a read finds, as text: 'none', 'data LSN checksum generation', 'zero kind generation'. */
  find(block: number, at: number): string {
    const point = this.pointAt(block, at);
    const range = this.rangeAt(block, at);
    if (range !== undefined && range.generation > (point?.generation ?? -1)) {
      return `zero ${range.kind} ${range.generation}`;
    }
    if (point === undefined) return 'none';
    return `data ${point.lsn} ${point.checksum} ${point.generation}`;
  }

  isChanged(block: number, since: number, at: number): boolean {
    return (
      (this.pointAt(block, at)?.generation ?? -1) > since ||
      (this.rangeAt(block, at)?.generation ?? -1) > since
    );
  }

  /** Every version of a block up to `at`, newest first, as text; with the size of its request. */
  versionsOf(block: number, at: number): string[] {
    const versions = [
      ...this.points
        .filter((point) => point.block === block)
        .map(({ generation }) => ({ generation, what: 'data' })),
      ...this.ranges
        .filter(({ start, count }) => block >= start && block < start + count)
        .map(({ generation, kind }) => ({ generation, what: `zero ${kind}` })),
    ];
    return versions
      .filter(({ generation }) => generation <= at)
      .toSorted((left, right) => right.generation - left.generation)
      .map(({ generation, what }) => `${what} ${generation} ${this.#sizeOf(generation)}`);
  }

  #sizeOf(generation: number): number {
    const ranges = this.ranges.filter((range) => range.generation === generation);
    const points = this.points.filter((point) => point.generation === generation);
    return points.length + ranges.reduce((sum, { count }) => sum + count, 0);
  }

  newestUpTo(target: number): ModelPoint[] {
    const newest = this.points.filter((point) => {
      return this.find(point.block, target).endsWith(` ${point.checksum} ${point.generation}`);
    });
    return newest.toSorted((left, right) => left.block - right.block);
  }

  drop(settled: number): void {
    this.points = this.points.filter(({ generation }) => generation > settled);
    this.ranges = this.ranges.filter(({ generation }) => generation > settled);
  }
}
