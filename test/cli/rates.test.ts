/** What `varve top` makes of two looks at a volume. */
import { describe, expect, it } from 'vitest';
import { byteCount, generation, micros } from '../../src/base/units.ts';
import { spanText } from '../../src/cli/numbers.ts';
import { loadCells, loadOf, rateText, type Look } from '../../src/cli/rates.ts';
import type { VolumeCounters, VolumeInfo } from '../../src/volume/report.ts';
import { NO_RETENTION } from '../../src/volume/retention-policy.ts';

const COUNTERS: VolumeCounters = {
  reads: 100,
  readBytes: 409_600,
  writes: 10,
  writeBytes: 40_960,
  trims: 1,
  zeroes: 1,
  flushes: 5,
  logBytes: 0,
  logSyncs: 0,
  logFaults: 0,
  rounds: 0,
  settledBlocks: 0,
  readErrors: 0,
  readRescues: 0,
  repairs: 0,
};

const INFO: VolumeInfo = {
  uuid: '261b3707-d2e2-49e0-918d-bf4417c86e9b',
  size: byteCount(2 ** 20),
  base: undefined,
  writeMode: 'back',
  readOnly: false,
  failure: undefined,
  logFault: undefined,
  lineage: '261b3707-d2e2-49e0-918d-bf4417c86e9b',
  head: { generation: generation(77), wallUs: micros(5e6) },
  durable: { generation: generation(77), wallUs: micros(5e6) },
  horizon: { generation: generation(7), wallUs: micros(1e6) },
  settled: { generation: generation(7), wallUs: micros(1e6) },
  uncommittedBytes: byteCount(0),
  ring: { usedBytes: byteCount(1), sizeBytes: byteCount(4) },
  log: { usedBytes: byteCount(9), sizeBytes: byteCount(10) },
  final: { usedBytes: byteCount(0), sizeBytes: byteCount(0) },
  undo: { usedBytes: byteCount(0), sizeBytes: byteCount(10) },
  versions: 0,
  indexBytes: byteCount(0),
  snapshots: [],
  retention: {
    policy: NO_RETENTION,
    windowUs: micros(4e6),
    isEveryWriteKept: true,
    forecast: {
      bytesPerSecond: 0,
      overUs: micros(1e6),
      windowUs: undefined,
      logBytesNeeded: byteCount(0),
    },
    automatic: 0,
    automaticMax: 24,
    heldBytes: byteCount(0),
    namedBytes: byteCount(0),
    droppedEarly: 0,
  },
  marks: [],
  rollbacks: [],
  liveSessions: 0,
  openMoments: 0,
  counters: COUNTERS,
  receive: { received: undefined, unfinished: undefined },
  recovery: {
    clean: true,
    segments: 0,
    batches: 0,
    requests: 0,
    verifiedBatches: 0,
    cut: undefined,
    tookMs: 0,
  },
};

const SNAPSHOT = {
  label: 'old',
  generation: generation(5),
  lineage: INFO.lineage,
  momentWallUs: micros(1e6),
  createdWallUs: micros(2e6),
  isAutomatic: false,
  keptFor: [],
  sharedBytes: byteCount(0),
  exclusiveBytes: byteCount(0),
};

function look(atUs: number, more: Partial<VolumeInfo> = {}): Look {
  return { name: 'disk', atUs, wallUs: 100e6 + atUs, info: { ...INFO, ...more } };
}

describe('a load', () => {
  it('is what the counters grew by in a second', () => {
    const counters = {
      ...COUNTERS,
      reads: 101,
      writes: 510,
      writeBytes: 2_088_960,
      trims: 4,
      zeroes: 3,
    };
    const load = loadOf(look(0), look(2e6, { counters }));
    expect(load.perSecond).toEqual({
      reads: 0.5,
      readBytes: 0,
      writes: 250,
      writeBytes: 1_024_000,
      trims: 2.5,
      flushes: 0,
    });
    expect(load).toMatchObject({ generation: 77, windowUs: 101e6, trouble: undefined });
    expect(loadCells(load).join('  ')).toBe(
      'disk  0.5  0 bytes  250  1000 KiB  2.5  0  90 %  25 %  1m 41s  77',
    );
  });

  it('of a server that began anew is nothing, not less', () => {
    const counters = { ...COUNTERS, reads: 0, writes: 0 };
    expect(loadOf(look(0), look(1e6, { counters })).perSecond).toMatchObject({
      reads: 0,
      writes: 0,
    });
    expect(loadOf(look(0), look(0)).perSecond).toMatchObject({ reads: 0, writes: 0 });
  });

  it('tells what stops writes', () => {
    const snapshots = [SNAPSHOT];
    const undo = { usedBytes: byteCount(8), sizeBytes: byteCount(10) };
    const told = loadOf(look(0), look(1e6, { snapshots, undo }));
    expect(told.trouble).toContain('fills 80 % of the undo device');
    expect(loadOf(look(0), look(1e6, { snapshots })).trouble).toBeUndefined();
    expect(loadOf(look(0), look(1e6, { failure: 'it broke' })).trouble).toBe('it broke');
  });
});

describe('texts', () => {
  it('are short', () => {
    expect([0, 0.04, 1, 9.94, 10, 1234.5].map(rateText)).toEqual([
      '0',
      '0.0',
      '1.0',
      '9.9',
      '10',
      '1235',
    ]);
    const spans = [0, 4500, 59e6, 61e6, 3600e6, 7_260e6, 86_400e6 * 3 + 3601e6].map(spanText);
    expect(spans).toEqual(['0s', '5ms', '59s', '1m 1s', '1h', '2h 1m', '3d 1h']);
  });
});
