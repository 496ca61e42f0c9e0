/** An exploration over a history in memory: what it reports, in order, interrupted, or cut off. */
import { describe, expect, it } from 'vitest';
import { VarveError } from '../../src/base/errors.ts';
import {
  block,
  blockCount,
  byteCount,
  byteOffset,
  generation,
  micros,
  type Generation,
} from '../../src/base/units.ts';
import type { Verdict } from '../../src/control/explore-report.ts';
import { explore, type ExploreOptions, type Judge } from '../../src/control/explorer.ts';
import { MomentReader } from '../../src/control/moment-reader.ts';
import type { PinnedHistory } from '../../src/control/operations.ts';
import type { BlockDevice } from '../../src/device/block-device.ts';
import { SimWorld } from '../sim/sim-world.ts';
import { MemoryDevice } from '../support/nbd-memory-device.ts';

const BLOCKS = 64;
const OPTIONS: ExploreOptions = {
  statesMax: 200,
  seed: 1,
  torn: false,
  jobs: 3,
  findingsMax: 10,
  scratchBytes: byteCount(64 * 4096),
};

/** Request n (from 1) writes n into block n, or, with a period, into one of the first blocks. */
class Past implements PinnedHistory {
  readonly size = byteCount(BLOCKS * 4096);
  readonly from = generation(0);
  readonly to: Generation;
  readonly #flushes: readonly number[];
  readonly #period: number;
  readonly devices: MemoryDevice[] = [];
  /** Undefined, or why moments can't be read any more. */
  gone: VarveError | undefined;

  constructor(count: number, flushes: readonly number[], period = BLOCKS - 1) {
    this.to = generation(count);
    this.#period = period;
    this.#flushes = flushes;
  }

  async requests(after: Generation): Promise<Awaited<ReturnType<PinnedHistory['requests']>>> {
    const end = Math.min(this.to, after + 3);
    const requests = Array.from({ length: end - after }, (_, i) => ({
      generation: generation(after + i + 1),
      wallUs: micros(1_795_273_585_000_000 + i),
      fua: false,
      parts: [
        { start: block(this.#blockOf(after + i + 1)), count: blockCount(1), crcs: [after + i + 1] },
      ],
    }));
    const flushes = this.#flushes.filter((at) => at > after && at <= end).map(generation);
    return { requests, flushes, isEnd: end === this.to };
  }

  async open(at: Generation): Promise<BlockDevice> {
    const device = new MemoryDevice(this.size);
    device.openCount = 1;
    this.devices.push(device);
    for (let n = 1; n <= at; n++) {
      const start = this.#blockOf(n) * 4096;
      device.bytes.fill(n, start, start + 4096);
    }
    device.before = () => {
      if (this.gone !== undefined) throw this.gone;
      return undefined;
    };
    return device;
  }

  #blockOf(n: number): number {
    return 1 + ((n - 1) % this.#period);
  }
}

const GOOD: Verdict = { isGood: true, exitCode: 0, isLate: false, output: '' };
const BAD: Verdict = { isGood: false, exitCode: 1, isLate: false, output: 'bad' };

async function hasBlock(device: BlockDevice, n: number): Promise<boolean> {
  const content = Buffer.alloc(4096);
  await device.read(byteOffset(n * 4096), content);
  return content.every((byte) => byte === n);
}

/** Fails where the later one is there, and the earlier is not; with delays that differ. */
function orderJudge(earlier: number, later: number, world: SimWorld): Judge {
  let count = 0;
  return {
    check: async (device) => {
      count = (count * 7 + 3) % 11;
      await new Promise<void>((resume) => {
        world.timers.after(count, resume);
      });
      await device.write(byteOffset(0), Buffer.alloc(4096, 1), { fua: false });
      return (await hasBlock(device, later)) && !(await hasBlock(device, earlier)) ? BAD : GOOD;
    },
  };
}

async function explored(
  past: Past,
  judge: (world: SimWorld) => Judge,
  options: Partial<ExploreOptions> = {},
  controller = new AbortController(),
): ReturnType<typeof explore> {
  const world = new SimWorld(5);
  const { clock } = world;
  const { signal } = controller;
  const around = { judge: judge(world), clock, progress: () => undefined, signal };
  return await world.run(() => explore(past, { ...OPTIONS, ...options }, around));
}

describe('an exploration', () => {
  it('explains a planted bug, the same with one job as with many', async () => {
    const reports = [];
    for (const jobs of [1, 2, 7]) {
      const past = new Past(20, [6, 14]);
      const { report, error } = await explored(past, (world) => orderJudge(8, 11, world), { jobs });
      expect(error).toBeUndefined();
      reports.push({ ...report, tookMs: 0, statesPerSecond: 0, checksMore: 0 });
    }
    const [first, ...others] = reports;
    expect(first).toMatchObject({ isComplete: false, planned: 200, checked: 200, flushes: 2 });
    expect(first?.findings).toHaveLength(1);
    const [found] = first?.findings ?? [];
    expect(found).toMatchObject({ kind: 'missing', flushed: 6, states: first?.failed });
    expect(found?.missing.map((one) => one.generation)).toEqual([8]);
    expect(found?.present.map((one) => one.generation)).toEqual([11]);
    expect(found?.present[0]?.ranges).toEqual([{ kind: 'write', offset: 11 * 4096, length: 4096 }]);
    for (const other of others) expect(other).toEqual(first);
  });

  it('tells a check that changes its mind from a finding', async () => {
    let isFirst = true;
    const judge: Judge = {
      check: async (device) => {
        const isWanted = (await hasBlock(device, 2)) && !(await hasBlock(device, 1));
        if (!isWanted || !isFirst) return GOOD;
        isFirst = false;
        return BAD;
      },
    };
    const { report } = await explored(new Past(4, []), () => judge);
    expect(report.findings.map(({ kind }) => kind)).toEqual(['unstable']);
    expect(report.failed).toBe(1);
  });

  it('gives what it has when a person ends it', async () => {
    const controller = new AbortController();
    let count = 0;
    const judge = (world: SimWorld): Judge => {
      const order = orderJudge(1, 2, world);
      return {
        check: async (device, signal) => {
          const verdict = await order.check(device, signal);
          if (++count === 30) controller.abort();
          return verdict;
        },
      };
    };
    const { report, error } = await explored(new Past(12, []), judge, {}, controller);
    expect(error).toBeUndefined();
    expect(report).toMatchObject({ isInterrupted: true, isComplete: false });
    expect(report.checked).toBeLessThan(31);
    expect(report.failed).toBeGreaterThan(0);
    expect(report.findings[0]?.kind).toBe('unminimised');
  });

  it('judges nothing by a disk that can not be read any more', async () => {
    const past = new Past(12, [], 3);
    let count = 0;
    const judge: Judge = {
      check: async (device) => {
        if (++count === 8) past.gone = new VarveError('MOMENT_GONE', 'generation 3');
        try {
          await device.read(byteOffset(0), Buffer.alloc(BLOCKS * 4096));
          return GOOD;
        } catch {
          return BAD;
        }
      },
    };
    const { report, error } = await explored(past, () => judge, { jobs: 1 });
    expect(error?.code).toBe('MOMENT_GONE');
    expect(report).toMatchObject({ failed: 0, findings: [] });
    expect(report.checked).toBe(7);
  });

  it('judges nothing by a disk that was full', async () => {
    const judge: Judge = {
      check: async (device) => {
        if (!(await hasBlock(device, 1))) return GOOD;
        const write = device.write(byteOffset(0), Buffer.alloc(BLOCKS * 4096), { fua: false });
        return (await Promise.resolve(write).then(
          () => true,
          () => false,
        ))
          ? GOOD
          : BAD;
      },
    };
    const scratchBytes = byteCount(8 * 4096);
    const run = explored(new Past(3, []), () => judge, { scratchBytes });
    const { error, report } = await run;
    expect(error?.code).toBe('CHECK_BAD');
    expect(report.failed).toBe(0);
  });

  it('refuses to begin where the check fails already', async () => {
    const run = explored(new Past(3, []), () => ({ check: async () => BAD }));
    await expect(run).rejects.toMatchObject({ code: 'CHECK_BAD' });
  });
});

describe('reads of many moments', () => {
  it('open few at a time, and close all of them', async () => {
    const past = new Past(50, []);
    const reader = new MomentReader(past);
    const target = Buffer.alloc(3 * 4096 + 100);
    await Promise.all(
      Array.from({ length: 200 }, async (_, i) => {
        const at = generation(1 + (i % 50));
        const own = Buffer.alloc(4096);
        await reader.read(at, byteOffset(at * 4096), own);
        expect(own.every((byte) => byte === at)).toBe(true);
      }),
    );
    for (let at = 50; at > 0; at--) await reader.read(generation(at), byteOffset(0), target);
    await reader.close();
    expect(past.devices.length).toBeGreaterThan(49);
    for (const { openCount } of past.devices) expect(openCount).toBe(0);
    // Across chunks of 64 KiB.
    const whole = Buffer.alloc(BLOCKS * 4096 - 5);
    await reader.read(generation(40), byteOffset(5), whole);
    expect(whole[40 * 4096 - 5]).toBe(40);
    expect(whole[17 * 4096 - 6]).toBe(16);
    await reader.close();
  });
});
