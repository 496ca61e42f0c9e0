/** Rolling back in place: what it does, what it refuses, and what is left when it can't go on. */
import { describe, expect, it } from 'vitest';
import { VarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount, byteOffset, generation, kibibytes } from '../../src/base/units.ts';
import { BLANK_ENTRY } from '../../src/format/catalogue.ts';
import { RECORD_ROLLBACK, RECORD_ROLLED_BACK } from '../../src/format/layouts.ts';
import { Catalogue } from '../../src/volume/catalogue.ts';
import type { RollbackReport } from '../../src/volume/report.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { Bench, blocksOf, get, holds, pushRounds, put, unreadable } from '../crash/bench.ts';

const OLD = blocksOf(1, 8);
const NEW = blocksOf(2, 8);
const LARGE = { slots: 40, requestBytesMax: kibibytes(64) };

function rolledBack(volume: Volume, to: string, force = false): Promise<RollbackReport> {
  return volume.rollback({ to, force, dryRun: false }, () => undefined);
}

/** Old content, the snapshot `old`, then new content in its place, a trim and a write beside it. */
async function change(volume: Volume): Promise<void> {
  await put(volume, 0, OLD);
  await put(volume, 20, OLD);
  await volume.live().zero(byteOffset(40 * BLOCK_BYTES), byteCount(4 * BLOCK_BYTES), {
    fua: false,
    allocate: true,
  });
  await volume.createSnapshot('old');
  await put(volume, 0, NEW);
  await volume.live().trim(byteOffset(20 * BLOCK_BYTES), byteCount(8 * BLOCK_BYTES), { fua: true });
  await put(volume, 40, NEW);
  await put(volume, 60, NEW);
}

async function whole(volume: Volume): Promise<Uint8Array> {
  const content = new Uint8Array(volume.size);
  await volume.live().read(byteOffset(0), content);
  return content;
}

async function flags(volume: Volume): Promise<readonly number[]> {
  const runs = await volume.live().status('base:allocation', byteOffset(0), volume.size, 1000);
  return runs.flatMap((run) => Array.from({ length: run.length / BLOCK_BYTES }, () => run.flags));
}

describe('a rollback', () => {
  it('brings back bytes and allocation, and another one brings back what was before', async () => {
    const bench = await Bench.create(1, LARGE);
    await bench.use(async (volume) => {
      await change(volume);
      const before = await whole(volume);
      const flagsBefore = await flags(volume);
      const report = await rolledBack(volume, 'old');
      expect(await holds(volume.live(), 0, [OLD])).toBe(0);
      expect(await holds(volume.live(), 20, [OLD])).toBe(0);
      expect((await flags(volume)).slice(40, 44)).toEqual([2, 2, 2, 2]);
      expect((await flags(volume))[60]).toBe(3);
      expect(report).toMatchObject({ undo: 'before-rollback', dataBytes: 16 * BLOCK_BYTES });
      const again = await rolledBack(volume, 'before-rollback');
      expect(again.undo).toBe('before-rollback-2');
      expect(Buffer.compare(await whole(volume), before)).toBe(0);
      expect(await flags(volume)).toEqual(flagsBefore);
    });
    await bench.use(async (volume) => {
      expect((await volume.info()).rollbacks).toHaveLength(2);
      await rolledBack(volume, 'before-rollback-2');
      expect(await holds(volume.live(), 0, [OLD])).toBe(0);
    });
  });

  it('is seen in the history, and its own generations are no moments', async () => {
    const bench = await Bench.create(2, LARGE);
    await bench.use(async (volume) => {
      await change(volume);
      const { before, after, target } = await rolledBack(volume, 'old');
      expect(after.generation).toBeGreaterThan(before.generation + 1);
      const inside = `gen=${before.generation + 1}`;
      await expect(volume.resolve(inside)).rejects.toMatchObject({ code: 'MOMENT_BETWEEN' });
      expect(() => volume.openMoment({ generation: generation(before.generation + 1) })).toThrow(
        /gen=\d+ on, to gen=\d+/,
      );
      await expect(volume.resolve(`gen=${after.generation}`)).resolves.toBeDefined();
      const told = volume.history({ intervals: 4 }).flatMap(({ rollbacks }) => rollbacks);
      expect(told).toMatchObject([
        { target: target.generation, before: before.generation, after: after.generation },
      ]);
    });
  });

  it('does nothing where nothing differs, and says what it would do', async () => {
    const bench = await Bench.create(3, LARGE);
    await bench.use(async (volume) => {
      await change(volume);
      const { head } = volume.core;
      const dry = { to: 'old', force: false, dryRun: true };
      const report = await volume.rollback(dry, () => undefined);
      expect(report).toMatchObject({ dataBytes: 16 * BLOCK_BYTES, undo: undefined });
      expect(report.zeroBytes).toBe(16 * BLOCK_BYTES);
      const none = await rolledBack(volume, `gen=${head}`);
      expect(none).toMatchObject({ undo: undefined, dataBytes: 0, logBytes: 0 });
      expect(volume.core.head).toBe(head);
      expect((await volume.info()).marks).toEqual([]);
    });
  });

  it('is refused while a client has the disk open, and ends its session when forced', async () => {
    const bench = await Bench.create(4, LARGE);
    await bench.use(async (volume) => {
      await change(volume);
      const session = volume.openLive();
      await expect(rolledBack(volume, 'old')).rejects.toMatchObject({ code: 'CLIENTS_CONNECTED' });
      expect((await volume.info()).liveSessions).toBe(1);
      let why = '';
      session.onRevoke((told) => {
        why = told;
        expect(() => volume.openLive()).toThrow(VarveError);
        void session.device.close();
      });
      const report = await rolledBack(volume, 'old', true);
      expect(why).toContain('rolled back');
      expect(report.sessionsEnded).toBe(1);
      expect(await holds(volume.live(), 0, [OLD])).toBe(0);
    });
  });

  it('is not the only one that may send clients away', async () => {
    const bench = await Bench.create(6, LARGE);
    await bench.use(async (volume) => {
      await change(volume);
      const { head } = volume.core;
      const session = volume.openLive();
      await expect(volume.vacate(false)).rejects.toMatchObject({ code: 'CLIENTS_CONNECTED' });
      session.onRevoke(() => {
        expect(() => volume.openLive()).toThrow(VarveError);
        void session.device.close();
      });
      const sent = volume.vacate(true);
      await expect(rolledBack(volume, 'old')).rejects.toMatchObject({ code: 'ROLLBACK_RUNS' });
      expect(await sent).toEqual({ before: head, sessionsEnded: 1 });
      await volume.openLive().device.close();
    });
  });

  it('tells a client who was still shaking hands when the others were told', async () => {
    const bench = await Bench.create(5, LARGE);
    await bench.use(async (volume) => {
      await change(volume);
      const session = volume.openLive();
      const rolling = rolledBack(volume, 'old', true);
      await bench.world.sleep(500);
      session.onRevoke(() => void session.device.close());
      expect((await rolling).sessionsEnded).toBe(1);
    });
  });
});

describe('a rollback is refused, and nothing is changed,', () => {
  it('when it does not fit into the log', async () => {
    const bench = await Bench.create(6, { slots: 12 });
    await bench.use(async (volume) => {
      await put(volume, 0, blocksOf(1, 16));
      await put(volume, 16, blocksOf(2, 16));
      await put(volume, 32, blocksOf(3, 16));
      await put(volume, 48, blocksOf(4, 16));
      await volume.createSnapshot('old');
      for (const at of [0, 16, 32, 48]) await put(volume, at, blocksOf(9, 16));
      const { head } = volume.core;
      const refused = await rolledBack(volume, 'old').catch((error: unknown) => error);
      expect(refused).toMatchObject({ code: 'ROLLBACK_TOO_BIG', errno: 'ENOSPC' });
      expect(String(refused)).toMatch(/\d+ bytes of log are needed, \d+ are free/);
      expect(volume.core.head).toBe(head);
      await put(volume, 0, NEW);
      expect(await holds(volume.live(), 0, [NEW])).toBe(0);
    });
  });

  it('when the moment can not be read whole', async () => {
    const bench = await Bench.create(7, LARGE);
    await bench.use(change);
    await bench.use(async (volume) => {
      const mend = bench.sim.log.failRead({ offset: 0, length: bench.sim.log.size });
      await expect(rolledBack(volume, 'old')).rejects.toThrow('nothing was rolled back');
      mend();
      expect((await volume.info()).rollbacks).toEqual([]);
      expect(await holds(volume.live(), 0, [NEW])).toBe(0);
      await rolledBack(volume, 'old');
      expect(await holds(volume.live(), 0, [OLD])).toBe(0);
    });
  });

  // The block was EIO, and its page of checksums had lost its write: zeros were put for what was never
  // written, and the error was gone.
  it.each(['written', 'trimmed'])('when only its checksums say zeros (%s since)', async (how) => {
    const bench = await Bench.create(7, { ...LARGE, size: byteCount(600 * BLOCK_BYTES) });
    await bench.use(async (volume) => {
      await put(volume, 2, OLD, true);
      await pushRounds(volume, 8, 260, 40);
    });
    bench.sim.sums.corrupt(0, new Uint8Array(BLOCK_BYTES));
    await bench.use(async (volume) => {
      const { head } = volume.core;
      expect((await unreadable(volume.live(), 0, 16)).size).toBe(8);
      const range = [byteOffset(2 * BLOCK_BYTES), byteCount(OLD.length)] as const;
      if (how === 'written') await put(volume, 2, NEW, true);
      else await volume.live().trim(...range, { fua: true });
      const now = await whole(volume);
      await expect(rolledBack(volume, `gen=${head}`)).rejects.toMatchObject({
        code: 'BLOCK_CORRUPT',
        detail: expect.stringMatching(/^block 2 of .*; nothing was rolled back$/) as unknown,
      });
      expect(Buffer.compare(await whole(volume), now)).toBe(0);
    });
  });

  it('when the volume is open for reading only', async () => {
    const bench = await Bench.create(8, LARGE);
    await bench.use(change);
    await bench.world.run(async () => {
      const volume = await bench.sim.open(bench.power.life, { readOnly: true });
      await expect(rolledBack(volume, 'old')).rejects.toMatchObject({ code: 'READ_ONLY' });
      const dry = { to: 'old', force: false, dryRun: true };
      expect((await volume.rollback(dry, () => undefined)).dataBytes).toBe(16 * BLOCK_BYTES);
      await volume.close();
    });
  });

  it('when whoever asked for it goes before it has begun', async () => {
    const bench = await Bench.create(9, LARGE);
    await bench.use(async (volume) => {
      await change(volume);
      const gone = new VarveError('CLOSED', 'gone');
      const asked = { to: 'old', force: false, dryRun: false };
      const rolling = volume.rollback(asked, () => {
        throw gone;
      });
      await expect(rolling).rejects.toBe(gone);
      expect((await volume.info()).rollbacks).toEqual([]);
      expect(await holds(volume.live(), 0, [NEW])).toBe(0);
    });
  });
});

/** Begins, and then the log can't be read any more. @returns what mends it */
async function failHalfWay(bench: Bench, volume: Volume): Promise<() => void> {
  let mend: (() => void) | undefined;
  const asked = { to: 'old', force: false, dryRun: false };
  const rolling = volume.rollback(asked, (done, total) => {
    if (2 * done < total) return;
    mend ??= bench.sim.log.failRead({ offset: 0, length: bench.sim.log.size });
  });
  await expect(rolling).rejects.toMatchObject({ code: 'ROLLBACK_UNFINISHED' });
  return mend ?? ((): void => undefined);
}

const COLD = { cacheBytes: byteCount(BLOCK_BYTES) };

async function useCold(bench: Bench, work: (volume: Volume) => Promise<void>): Promise<void> {
  await bench.world.run(async () => {
    const volume = await bench.sim.open(bench.power.life, COLD);
    await work(volume);
    await volume.close();
  });
}

describe('a rollback that can not go on', () => {
  it('shows nobody the mixture, and goes on when it is asked for again', async () => {
    const bench = await Bench.create(10, LARGE);
    await bench.use(change);
    await useCold(bench, async (volume) => {
      const before = volume.core.head;
      const mend = await failHalfWay(bench, volume);
      const refusal = { code: 'ROLLBACK_UNFINISHED', errno: 'EIO' };
      expect(() => volume.openLive()).toThrow(expect.objectContaining(refusal));
      await expect(get(volume.live(), 0).catch((e: unknown) => e)).resolves.toMatchObject(refusal);
      await expect(put(volume, 0, NEW)).rejects.toMatchObject(refusal);
      await expect(volume.mark('here').catch((e: unknown) => e)).resolves.toBeDefined();
      mend();
      const [told] = (await volume.info()).rollbacks;
      expect(told).toMatchObject({ before, after: undefined });
      expect(told?.failure).toContain('device');
      const moment = volume.openMoment(await volume.resolve(`gen=${before}`));
      expect(await holds(moment, 0, [NEW])).toBe(0);
      await moment.close();
      expect(volume.past.window().head.generation).toBe(before);
      const report = await rolledBack(volume, 'old');
      expect(report.before.generation).toBe(before);
      expect(await holds(volume.live(), 0, [OLD])).toBe(0);
      expect(await holds(volume.live(), 20, [OLD])).toBe(0);
    });
  });

  it('is given up by rolling back to what was before', async () => {
    const bench = await Bench.create(11, LARGE);
    await bench.use(change);
    const before = await bench.use(whole);
    await useCold(bench, async (volume) => {
      const { head } = volume.core;
      // Something of it was put already.
      await put(volume, 70, NEW);
      const mend = await failHalfWay(bench, volume);
      mend();
      await rolledBack(volume, 'before-rollback');
      const expected = before.slice();
      expected.set(NEW, 70 * BLOCK_BYTES);
      expect(Buffer.compare(await whole(volume), expected)).toBe(0);
      expect((await volume.info()).rollbacks.every(({ after }) => after !== undefined)).toBe(true);
      expect(volume.core.head).toBeGreaterThan(head);
    });
    const after = (await bench.use(whole)).subarray(0, 8 * BLOCK_BYTES);
    expect(Buffer.compare(after, NEW)).toBe(0);
  });

  it('goes on at the next opening, which tells so; a read-only opening refuses the disk', async () => {
    const bench = await Bench.create(12, LARGE);
    await bench.use(change);
    await bench.world.run(async () => {
      const volume = await bench.sim.open(bench.power.life, COLD);
      (await failHalfWay(bench, volume))();
    });
    bench.power.kill();
    bench.power.restore();
    await bench.world.run(async () => {
      const volume = await bench.sim.open(bench.power.life, { readOnly: true });
      const refusal = { code: 'ROLLBACK_UNFINISHED' };
      expect(() => volume.openLive()).toThrow(expect.objectContaining(refusal));
      expect(volume.past.point()).toBeDefined();
      expect((await volume.info()).rollbacks[0]?.after).toBeUndefined();
      await volume.close();
      const told: (readonly [number, number])[] = [];
      const onRollback = (done: number, total: number): void => {
        told.push([done, total]);
      };
      const next = await bench.sim.open(bench.power.life, { onRollback });
      expect(told.length).toBeGreaterThan(0);
      expect(await holds(next.live(), 0, [OLD])).toBe(0);
      expect(await holds(next.live(), 20, [OLD])).toBe(0);
      await next.close();
    });
  });

  it('ends with its volume, and goes on at the next opening', async () => {
    const bench = await Bench.create(13, LARGE);
    await bench.use(change);
    await bench.world.run(async () => {
      const volume = await bench.sim.open(bench.power.life);
      let closing: Promise<void> | undefined;
      const asked = { to: 'old', force: false, dryRun: false };
      const rolling = volume.rollback(asked, (done, total) => {
        if (2 * done > total) closing ??= volume.close();
      });
      await expect(rolling).rejects.toMatchObject({ code: 'CLOSED' });
      await closing;
    });
    await bench.use(async (volume) => {
      expect(await holds(volume.live(), 0, [OLD])).toBe(0);
    });
  });
});

describe('the catalogue', () => {
  const begun = {
    ...BLANK_ENTRY,
    type: RECORD_ROLLBACK,
    generation: generation(5),
    before: generation(9),
    bound: generation(9),
  };
  const ended = { ...begun, type: RECORD_ROLLED_BACK, bound: generation(14) };

  it('keeps a rollback that has not ended, and one that has while a moment lies in it', () => {
    const catalogue = new Catalogue(64, []);
    catalogue.apply(begun);
    expect(new Catalogue(64, catalogue.entries()).unfinished).toMatchObject({ before: 9 });
    expect(catalogue.rollbackAround(generation(9))).toBeUndefined();
    expect(catalogue.rollbackAround(generation(10))).toBeDefined();
    catalogue.apply(ended);
    catalogue.apply(ended);
    const again = new Catalogue(64, catalogue.entries());
    expect(again.unfinished).toBeUndefined();
    expect(again.rollbacks).toMatchObject([{ before: 9, bound: 14 }]);
    expect(again.rollbackAround(generation(13))).toBeDefined();
    expect(again.rollbackAround(generation(14))).toBeUndefined();
    again.forgetBefore(generation(13));
    expect(again.rollbacks).toHaveLength(1);
    again.forgetBefore(generation(14));
    expect(again.rollbacks).toHaveLength(0);
  });
});
