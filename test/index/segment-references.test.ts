/** Which segment holds an LSN, and when a segment may be recycled. */
import { expect, it } from 'vitest';
import { SegmentReferences } from '../../index/segment-references.ts';
import { lsn, segmentSequence } from '../../src/base/units.ts';

function threeSegments(): SegmentReferences {
  const segments = new SegmentReferences();
  segments.open(segmentSequence(4), lsn(0));
  segments.open(segmentSequence(5), lsn(8192));
  segments.open(segmentSequence(7), lsn(40_960));
  return segments;
}

it('finds the segment of an LSN at its edges', () => {
  const segments = threeSegments();
  expect(segments.segmentOf(lsn(0))).toBe(4);
  expect(segments.segmentOf(lsn(4096))).toBe(4);
  expect(segments.segmentOf(lsn(8192))).toBe(5);
  expect(segments.segmentOf(lsn(36_864))).toBe(5);
  expect(segments.segmentOf(lsn(2 ** 50))).toBe(7);
});

it('does not hand an LSN of a recycled segment to its neighbour', () => {
  const segments = threeSegments();
  segments.drop(segmentSequence(5));
  expect(() => segments.segmentOf(lsn(8192))).toThrow('an LSN lies in an open segment');
  expect(segments.segmentOf(lsn(4096))).toBe(4);
  segments.drop(segmentSequence(4));
  expect(() => segments.segmentOf(lsn(0))).toThrow('an LSN lies in an open segment');
});

it('is not recycled under a live version or a reader', () => {
  const segments = threeSegments();
  segments.versionAdded(lsn(4096));
  segments.acquire(segmentSequence(4));
  expect(() => segments.drop(segmentSequence(4))).toThrow('live versions');
  segments.versionDropped(lsn(4096));
  expect(() => segments.drop(segmentSequence(4))).toThrow('readers');
  expect(segments.readers(segmentSequence(4))).toBe(1);
  segments.release(segmentSequence(4));
  segments.drop(segmentSequence(4));
  expect(segments.has(segmentSequence(4))).toBe(false);
  expect(() => segments.release(segmentSequence(4))).toThrow('the segment is open');
});

it('notices a miscount', () => {
  const segments = threeSegments();
  segments.versionAdded(lsn(8192));
  segments.check(new Map([[segmentSequence(5), 1]]));
  expect(() => segments.check(new Map([[segmentSequence(5), 2]]))).toThrow('counts its live');
  expect(() => segments.versionDropped(lsn(0))).toThrow('was counted there');
});
