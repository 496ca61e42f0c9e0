/** Times to generations, as people ask for them. */
import { describe, expect, it } from 'vitest';
import { Timeline } from '../../index/timeline.ts';
import { byteCount, generation, micros, type Generation } from '../../src/base/units.ts';

const SECOND = 1_000_000;

/**
 * One request at this second of elapsed time, the wall clock being 1000 s ahead: every fifth is a
 * trim of two blocks, the others are writes of 4096 bytes.
 */
function write(timeline: Timeline, at: number, second: number, wallSecond = second + 1000): void {
  timeline.add({
    generation: generation(at),
    wallUs: micros(wallSecond * SECOND),
    elapsedUs: micros(second * SECOND),
    payloadBytes: byteCount((at - Math.floor(at / 5)) * 4096),
    requests: at,
    trims: Math.floor(at / 5),
    trimmedBytes: byteCount(Math.floor(at / 5) * 8192),
  });
}

function atElapsed(timeline: Timeline, second: number): Generation | undefined {
  return timeline.newestAtElapsed(micros(second * SECOND));
}

function atWall(timeline: Timeline, second: number): Generation[] {
  return timeline.newestAtWall(micros(second * SECOND));
}

describe('ago', () => {
  it('finds the newest generation at an elapsed time, and none before the window', () => {
    const timeline = new Timeline();
    write(timeline, 100, 10);
    write(timeline, 101, 20);
    write(timeline, 105, 30);
    expect(atElapsed(timeline, 9)).toBeUndefined();
    expect(atElapsed(timeline, 10)).toBe(100);
    expect(atElapsed(timeline, 29.9)).toBe(101);
    expect(atElapsed(timeline, 30)).toBe(105);
    expect(atElapsed(timeline, 999)).toBe(105);
  });

  it('keeps one point for many writes within ten milliseconds', () => {
    const timeline = new Timeline();
    write(timeline, 0, 0);
    for (let at = 1; at <= 10_000; at++) write(timeline, at, 1 + at / 1_000_000);
    expect(timeline.last?.generation).toBe(10_000);
    expect(atElapsed(timeline, 0.5)).toBe(0);
    expect(atElapsed(timeline, 2)).toBe(10_000);
    expect(timeline.bytes).toBeLessThan(2000);
    timeline.check();
  });
});

describe('a time of day', () => {
  it('finds the one generation that was the newest then', () => {
    const timeline = new Timeline();
    write(timeline, 1, 10);
    write(timeline, 2, 20);
    expect(atWall(timeline, 1009)).toEqual([]);
    expect(atWall(timeline, 1010)).toEqual([1]);
    expect(atWall(timeline, 1019)).toEqual([1]);
    expect(atWall(timeline, 5000)).toEqual([2]);
  });

  it('names both generations when the clock was set back over it', () => {
    const timeline = new Timeline();
    write(timeline, 1, 0, 1000);
    write(timeline, 2, 50, 1050);
    write(timeline, 3, 100, 1100);
    write(timeline, 4, 110, 1040);
    write(timeline, 5, 130, 1060);
    expect(atWall(timeline, 1010)).toEqual([1]);
    expect(atWall(timeline, 1045)).toEqual([1, 4]);
    expect(atWall(timeline, 1055)).toEqual([2, 4]);
    expect(atWall(timeline, 1100)).toEqual([3, 5]);
    expect(atWall(timeline, 1101)).toEqual([5]);
    timeline.check();
    timeline.drop(generation(4));
    expect(atWall(timeline, 1010)).toEqual([]);
    expect(atWall(timeline, 1045)).toEqual([4]);
    timeline.check();
  });

  it('takes a jitter of the clock below ten milliseconds for no setting back', () => {
    const timeline = new Timeline();
    write(timeline, 1, 0, 1000);
    write(timeline, 2, 1, 999.995);
    write(timeline, 3, 2, 1002);
    expect(atWall(timeline, 1000)).toEqual([2]);
    expect(atWall(timeline, 999.999)).toEqual([]);
  });

  it('tells when a generation was written', () => {
    const timeline = new Timeline();
    write(timeline, 10, 1);
    write(timeline, 20, 2);
    expect(timeline.wallAt(generation(10))).toBe(1001 * SECOND);
    expect(timeline.wallAt(generation(11))).toBe(1002 * SECOND);
    expect(timeline.elapsedAt(generation(20))).toBe(2 * SECOND);
    expect(timeline.wallAt(generation(99))).toBe(1002 * SECOND);
  });
});

describe('flushes', () => {
  it('counts from the last one, and takes flushes of one moment for one', () => {
    const timeline = new Timeline();
    for (const at of [3, 5, 5, 9]) timeline.addFlush(generation(at));
    expect(timeline.flushFromEnd(1, generation(100))).toBe(9);
    expect(timeline.flushFromEnd(1, generation(8))).toBe(5);
    expect(timeline.flushFromEnd(2, generation(100))).toBe(5);
    expect(timeline.flushFromEnd(3, generation(100))).toBe(3);
    expect(timeline.flushFromEnd(4, generation(100))).toBeUndefined();
  });

  it('forgets those before the horizon, and keeps one at it', () => {
    const timeline = new Timeline();
    for (let at = 0; at <= 10; at++) write(timeline, at, at);
    for (const at of [3, 5, 9]) timeline.addFlush(generation(at));
    timeline.drop(generation(5));
    expect(timeline.flushFromEnd(2, generation(100))).toBe(5);
    expect(timeline.flushFromEnd(3, generation(100))).toBeUndefined();
  });
});

describe('the horizon', () => {
  it('stays as the first point', () => {
    const timeline = new Timeline();
    for (let at = 0; at <= 5000; at++) write(timeline, at, at);
    timeline.drop(generation(4000));
    expect(timeline.first?.generation).toBe(4000);
    expect(atElapsed(timeline, 3999)).toBeUndefined();
    expect(atElapsed(timeline, 4000)).toBe(4000);
    timeline.check();
  });

  it('gets a point of its own when it fell inside one, and never a moment before itself', () => {
    const timeline = new Timeline();
    write(timeline, 0, 0);
    write(timeline, 10, 100);
    write(timeline, 20, 200);
    timeline.drop(generation(15));
    expect(timeline.first?.generation).toBe(15);
    expect(atElapsed(timeline, 150)).toBeUndefined();
    expect(atElapsed(timeline, 200)).toBe(20);
    write(timeline, 21, 200.001);
    expect(timeline.first?.generation).toBe(15);
    timeline.check();
  });
});

describe('history', () => {
  it('splits a span into equal intervals with what happened in each', () => {
    const timeline = new Timeline();
    for (let at = 0; at <= 100; at++) write(timeline, at, at);
    for (const at of [5, 15, 16]) timeline.addFlush(generation(at));
    const intervals = timeline.intervals({
      fromWallUs: micros(1000 * SECOND),
      toWallUs: micros(1040 * SECOND),
      count: 4,
    });
    expect(intervals.map(({ generation: newest }) => newest)).toEqual([10, 20, 30, 40]);
    expect(intervals.map(({ writes }) => writes)).toEqual([8, 8, 8, 8]);
    expect(intervals.map(({ bytes }) => bytes)).toEqual([32_768, 32_768, 32_768, 32_768]);
    expect(intervals.map(({ trims }) => trims)).toEqual([2, 2, 2, 2]);
    expect(intervals.map((interval) => interval.trimmedBytes)).toEqual([
      16_384, 16_384, 16_384, 16_384,
    ]);
    expect(intervals.map(({ flushes }) => flushes)).toEqual([1, 2, 0, 0]);
    expect(intervals[3]?.toWallUs).toBe(1040 * SECOND);
  });

  it('has nothing to tell before the window, and the head after it', () => {
    const timeline = new Timeline();
    for (let at = 50; at <= 60; at++) write(timeline, at, at);
    const intervals = timeline.intervals({
      fromWallUs: micros(1000 * SECOND),
      toWallUs: micros(1100 * SECOND),
      count: 2,
    });
    expect(intervals.map(({ generation: newest }) => newest)).toEqual([50, 60]);
    expect(intervals.map(({ writes }) => writes)).toEqual([0, 8]);
    expect(intervals.map(({ trims }) => trims)).toEqual([0, 2]);
    expect(
      new Timeline().intervals({ fromWallUs: micros(0), toWallUs: micros(1), count: 3 }),
    ).toEqual([]);
  });
});
