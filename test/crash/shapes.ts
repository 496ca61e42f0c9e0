/** What runs of power cuts are about: many small requests, or few that span many segments. */
import { byteCount, kibibytes, mebibytes } from '../../src/base/units.ts';
import type { SeededRandom } from '../sim/random.ts';
import type { SimVolumeOptions } from '../sim/sim-volume.ts';

export interface Shape {
  readonly volume: SimVolumeOptions;
  readonly lanes: number;
  /** Requests of one client in one life: so many, and fewer than `requestsMore` more. */
  readonly requests: number;
  readonly requestsMore: number;
  /** Bytes of most requests, and of some. */
  readonly shortBytes: number;
  readonly longBytes: number;
  readonly longShare: number;
  /** How often the loss comes inside a long request. */
  readonly aimShare: number;
  /** How often the process is killed, and what it wrote stays. */
  readonly killShare: number;
  /** Device operations in which the loss comes. */
  readonly operations: number;
}

/** Few slots are used again soon, and a large ring syncs seldom: both show what a sync is for. */
function small(random: SeededRandom): Shape {
  return {
    volume: {
      slots: random.pick([7, 8, 12]),
      requestBytesMax: kibibytes(48),
      ringBytes: random.pick([kibibytes(96), kibibytes(192), mebibytes(1), mebibytes(1)]),
    },
    lanes: 5,
    requests: 20,
    requestsMore: 150,
    shortBytes: 9000,
    longBytes: 48_000,
    longShare: 0.1,
    aimShare: 0,
    killShare: 0.2,
    operations: 1500,
  };
}

/** Requests of up to seven segments, or of one and a half when those are larger. */
function spanning(random: SeededRandom): Shape {
  return {
    volume: {
      size: mebibytes(1),
      slots: random.pick([24, 30, 40]),
      segmentBytes: kibibytes(random.pick([64, 64, 128, 256])),
      requestBytesMax: kibibytes(512),
      ringBytes: mebibytes(random.pick([1, 2, 4])),
    },
    lanes: 3,
    requests: 8,
    requestsMore: 30,
    shortBytes: 9000,
    longBytes: 340_000,
    longShare: 0.3,
    aimShare: 0.3,
    killShare: 0.6,
    operations: 500,
  };
}

/** Requests of several batches in each of two or three segments. */
function huge(random: SeededRandom): Shape {
  return {
    volume: {
      size: mebibytes(4),
      slots: random.pick([8, 10]),
      segmentBytes: mebibytes(2),
      requestBytesMax: mebibytes(4),
      ringBytes: mebibytes(random.pick([8, 16])),
    },
    lanes: 1,
    requests: 3,
    requestsMore: 8,
    shortBytes: 400_000,
    longBytes: byteCount(mebibytes(4) - 5000),
    longShare: 0.5,
    aimShare: 0.3,
    killShare: 0.6,
    operations: 60,
  };
}

/** @param choice - decides which shape; undefined: the first */
export function shapeOf(random: SeededRandom, choice: SeededRandom | undefined): Shape {
  const which = choice?.fraction() ?? 0;
  if (which < 0.65) return small(random);
  return which < 0.95 ? spanning(random) : huge(random);
}
