/**
 * Times to generations: which generation was the newest at a time, and the window's history.
 *
 * Invariants:
 *   - Points are in generation order; elapsed time and all that is counted never decrease along
 *     them. A point holds the values as of its generation.
 *   - Within POINT_US, by both clocks, there is one point, that of the newest generation: so times
 *     resolve to within POINT_US, always to a state that was the newest at some instant. No point
 *     holds generations of two hours.
 *   - The wall clock never decreases within a stretch; where it was set back by more than POINT_US
 *     a new stretch begins. A time may lie in several stretches.
 *   - The first point is the horizon, and is not updated.
 */
import { assert } from '../src/base/assert.ts';
import { endOfPeriod, HOUR_US, periodOf } from '../src/base/periods.ts';
import {
  byteCount,
  generation as toGeneration,
  micros,
  type ByteCount,
  type Generation,
  type Micros,
} from '../src/base/units.ts';
import { RowDeque } from './row-deque.ts';

export interface TimePoint {
  readonly generation: Generation;
  readonly wallUs: Micros;
  /** Monotonic time of the volume, which goes on across restarts. */
  readonly elapsedUs: Micros;
  /** Cumulative, since any fixed start. */
  readonly payloadBytes: ByteCount;
  /** Cumulative count of mutating requests, since any fixed start. */
  readonly requests: number;
  /** Of those, the ones that made a range zeros: trims and zeroes. */
  readonly trims: number;
  /** What these covered, cumulative. */
  readonly trimmedBytes: ByteCount;
}

export interface IntervalsAsked {
  readonly fromWallUs: Micros;
  readonly toWallUs: Micros;
  readonly count: number;
}

export interface Interval {
  readonly fromWallUs: Micros;
  readonly toWallUs: Micros;
  /** The newest at the end of the interval; the horizon when the interval ends before it. */
  readonly generation: Generation;
  readonly writes: number;
  readonly bytes: ByteCount;
  readonly trims: number;
  readonly trimmedBytes: ByteCount;
  readonly flushes: number;
}

/** Of a point: its generation, and when that was. */
export type HourEnd = Pick<TimePoint, 'generation' | 'wallUs'>;

const POINT_US = 10_000;

const GENERATION = 0;
const WALL = 1;
const ELAPSED = 2;
const BYTES = 3;
const REQUESTS = 4;
const TRIMS = 5;
const TRIMMED = 6;
const COLUMNS = 7;

export class Timeline {
  readonly #points = new RowDeque(COLUMNS);
  readonly #flushes = new RowDeque(1);
  /** Rows at which a stretch begins; the first is at or before the first point. */
  #stretches: number[] = [];
  /** Elapsed and wall time at which the last point began. */
  #beganUs = 0;
  #beganWallUs = 0;

  /** The horizon, once a point was added. */
  get first(): TimePoint | undefined {
    return this.#points.length === 0 ? undefined : this.#pointAt(this.#points.first);
  }

  get last(): TimePoint | undefined {
    return this.#points.length === 0 ? undefined : this.#pointAt(this.#points.end - 1);
  }

  get bytes(): ByteCount {
    return byteCount(this.#points.bytes + this.#flushes.bytes + this.#stretches.length * 8);
  }

  /** The first call gives the horizon; each later one a generation that was accepted. */
  add(point: TimePoint): void {
    const points = this.#points;
    if (points.length === 0) {
      this.#push(point, point.wallUs);
      this.#stretches = [points.first];
      return;
    }
    const row = points.end - 1;
    assert(point.generation >= points.get(row, GENERATION), 'generations do not decrease');
    assert(point.elapsedUs >= points.get(row, ELAPSED), 'elapsed time does not decrease');
    assert(point.payloadBytes >= points.get(row, BYTES), 'payload is cumulative');
    assert(point.requests >= points.get(row, REQUESTS), 'requests are cumulative');
    assert(point.trims >= points.get(row, TRIMS), 'trims are cumulative');
    assert(point.trimmedBytes >= points.get(row, TRIMMED), 'trimmed bytes are cumulative');
    const wallLast = points.get(row, WALL);
    const isSetBack = point.wallUs < wallLast - POINT_US;
    const wallUs = isSetBack ? point.wallUs : micros(Math.max(point.wallUs, wallLast));
    if (isSetBack) this.#stretches.push(points.end);
    const spanUs = Math.max(point.elapsedUs - this.#beganUs, wallUs - this.#beganWallUs);
    const isNew = isSetBack || spanUs >= POINT_US || points.length === 1;
    if (isNew || hourOf(wallUs) !== hourOf(wallLast)) this.#push(point, wallUs);
    else this.#write(row, point, wallUs);
  }

  /**
   * A client's flush covers everything up to this generation. Two flushes with nothing written
   * between them are one: they are the same moment.
   */
  addFlush(generation: Generation): void {
    const flushes = this.#flushes;
    if (flushes.length > 0) {
      const last = flushes.get(flushes.end - 1, 0);
      assert(generation >= last, 'flushes come in generation order');
      if (generation === last) return;
    }
    flushes.set(flushes.push(), 0, generation);
  }

  /** @returns undefined when the time is before the window */
  newestAtElapsed(elapsedUs: Micros): Generation | undefined {
    const row = this.#points.firstAbove(ELAPSED, elapsedUs) - 1;
    return row < this.#points.first ? undefined : this.#generationAt(row);
  }

  /**
   * The newest generation at a wall time, in each stretch that the time lies in, oldest first. None
   * when the time is before the window, several when the clock was set back over it. A time after
   * the last point is the last point's: the caller refuses what is not yet past.
   */
  newestAtWall(wallUs: Micros): Generation[] {
    const found: Generation[] = [];
    for (const row of this.#rowsAtWall(wallUs)) {
      const generation = this.#generationAt(row);
      if (found[found.length - 1] !== generation) found.push(generation);
    }
    return found;
  }

  /**
   * The newest generations of the hours that end, by the wall clock, from one generation on and before
   * another: after each there is one of another hour, or the clock was set back.
   */
  hourEnds(from: Generation, before: Generation): readonly HourEnd[] {
    const points = this.#points;
    const found: HourEnd[] = [];
    let row = points.firstAbove(GENERATION, from - 1);
    while (row < points.end) {
      const begin = row;
      const stretchEnd = this.#stretches.find((stretch) => stretch > begin) ?? points.end;
      const boundaryUs = endOfPeriod(hourOf(points.get(row, WALL)), HOUR_US);
      row = points.firstAbove(WALL, boundaryUs, row, stretchEnd);
      const { generation, wallUs } = this.#pointAt(row - 1);
      if (row >= points.end || generation >= before) break;
      found.push({ generation, wallUs });
    }
    return found;
  }

  /** What was written since a time of the window, or since its beginning where that is later. */
  writtenSince(elapsedUs: Micros): Pick<TimePoint, 'elapsedUs' | 'payloadBytes'> {
    const points = this.#points;
    const row = Math.max(points.firstAbove(ELAPSED, elapsedUs) - 1, points.first);
    const [from, to] = [this.#pointAt(row), this.#pointAt(points.end - 1)];
    return {
      elapsedUs: micros(Math.max(from.elapsedUs, elapsedUs)),
      payloadBytes: byteCount(to.payloadBytes - from.payloadBytes),
    };
  }

  /** @param n - 1 is the last flush at or before `upTo` */
  flushFromEnd(n: number, upTo: Generation): Generation | undefined {
    assert(n >= 1, 'flushes are counted from 1');
    const row = this.#flushes.firstAbove(0, upTo) - n;
    return row < this.#flushes.first ? undefined : toGeneration(this.#flushes.get(row, 0));
  }

  /** When this generation was accepted, to within POINT_US; the window's ends, outside of it. */
  wallAt(generation: Generation): Micros {
    return micros(this.#points.get(this.#rowOf(generation), WALL));
  }

  elapsedAt(generation: Generation): Micros {
    return micros(this.#points.get(this.#rowOf(generation), ELAPSED));
  }

  /** Equal parts of [fromWallUs, toWallUs]; where the clock was set back, the later stretch counts. */
  intervals({ fromWallUs, toWallUs, count }: IntervalsAsked): Interval[] {
    assert(count >= 1 && toWallUs >= fromWallUs, 'a history has at least one interval');
    const intervals: Interval[] = [];
    const edge = (part: number): Micros => {
      return micros(Math.round(fromWallUs + ((toWallUs - fromWallUs) * part) / count));
    };
    if (this.#points.length === 0) return intervals;
    let before = this.#rowAtWall(fromWallUs);
    for (let part = 0; part < count; part++) {
      const row = this.#rowAtWall(edge(part + 1));
      const grown = (column: number): number =>
        this.#points.get(row, column) - this.#points.get(before, column);
      intervals.push({
        fromWallUs: edge(part),
        toWallUs: edge(part + 1),
        generation: this.#generationAt(row),
        writes: grown(REQUESTS) - grown(TRIMS),
        bytes: byteCount(grown(BYTES)),
        trims: grown(TRIMS),
        // Trims of a huge disk may add up to more than a number holds.
        trimmedBytes: byteCount(Math.min(grown(TRIMMED), Number.MAX_SAFE_INTEGER)),
        flushes:
          this.#flushes.firstAbove(0, this.#generationAt(row)) -
          this.#flushes.firstAbove(0, this.#generationAt(before)),
      });
      before = row;
    }
    return intervals;
  }

  /** Forgets what is before the horizon; the horizon itself keeps a point and its flush. */
  drop(horizon: Generation): void {
    const points = this.#points;
    if (points.length === 0) return;
    const above = points.firstAbove(GENERATION, horizon);
    const row = Math.max(above - 1, points.first);
    // The horizon fell inside a later point: it takes that point's time, and its own counts stay.
    if (points.get(row, GENERATION) < horizon && above < points.end) {
      points.set(row, GENERATION, horizon);
      points.set(row, WALL, points.get(above, WALL));
      points.set(row, ELAPSED, points.get(above, ELAPSED));
      if (this.#stretches.includes(above)) {
        this.#stretches = this.#stretches.filter((stretch) => stretch !== above);
        this.#stretches.push(row);
        this.#stretches.sort((left, right) => left - right);
      }
    }
    points.dropBefore(row);
    const stretch = this.#stretches.findLastIndex((begin) => begin <= row);
    this.#stretches.splice(0, Math.max(stretch, 0));
    this.#flushes.dropBefore(
      this.#flushes.firstAbove(0, horizon - 1, this.#flushes.first, this.#flushes.end),
    );
  }

  check(): void {
    const points = this.#points;
    for (let row = points.first + 1; row < points.end; row++) {
      for (const column of [GENERATION, ELAPSED, BYTES, REQUESTS, TRIMS, TRIMMED]) {
        assert(points.get(row, column) >= points.get(row - 1, column), 'points are in order');
      }
      if (!this.#stretches.includes(row)) {
        assert(points.get(row, WALL) >= points.get(row - 1, WALL), 'a stretch goes forward');
      }
    }
    for (let row = this.#flushes.first + 1; row < this.#flushes.end; row++) {
      assert(this.#flushes.get(row, 0) > this.#flushes.get(row - 1, 0), 'flushes are in order');
    }
  }

  #rowsAtWall(wallUs: Micros): number[] {
    const points = this.#points;
    const rows: number[] = [];
    for (const [position, begin] of this.#stretches.entries()) {
      const from = Math.max(begin, points.first);
      const next = this.#stretches[position + 1];
      const end = next ?? points.end;
      const row = points.firstAbove(WALL, wallUs, from, end) - 1;
      // The newest stretch goes on; an older one ended with its last point.
      if (row < from || (next !== undefined && wallUs > points.get(end - 1, WALL))) continue;
      rows.push(row);
    }
    return rows;
  }

  #rowAtWall(wallUs: Micros): number {
    return this.#rowsAtWall(wallUs).pop() ?? this.#points.first;
  }

  /** The point that a generation is part of. */
  #rowOf(generation: Generation): number {
    const points = this.#points;
    assert(points.length > 0, 'the horizon has a point');
    return Math.min(points.firstAbove(GENERATION, generation - 1), points.end - 1);
  }

  #generationAt(row: number): Generation {
    return toGeneration(this.#points.get(row, GENERATION));
  }

  #pointAt(row: number): TimePoint {
    return {
      generation: this.#generationAt(row),
      wallUs: micros(this.#points.get(row, WALL)),
      elapsedUs: micros(this.#points.get(row, ELAPSED)),
      payloadBytes: byteCount(this.#points.get(row, BYTES)),
      requests: this.#points.get(row, REQUESTS),
      trims: this.#points.get(row, TRIMS),
      trimmedBytes: byteCount(this.#points.get(row, TRIMMED)),
    };
  }

  #push(point: TimePoint, wallUs: Micros): void {
    this.#beganUs = point.elapsedUs;
    this.#beganWallUs = wallUs;
    this.#write(this.#points.push(), point, wallUs);
  }

  #write(row: number, point: TimePoint, wallUs: Micros): void {
    this.#points.set(row, GENERATION, point.generation);
    this.#points.set(row, WALL, wallUs);
    this.#points.set(row, ELAPSED, point.elapsedUs);
    this.#points.set(row, BYTES, point.payloadBytes);
    this.#points.set(row, REQUESTS, point.requests);
    this.#points.set(row, TRIMS, point.trims);
    this.#points.set(row, TRIMMED, point.trimmedBytes);
  }
}

function hourOf(wallUs: number): number {
  return periodOf(micros(wallUs), HOUR_US);
}
