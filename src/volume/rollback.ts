/**
 * Rolling back in place: the disk becomes again what it was at a moment, by requests of the volume's
 * own, which are history like all others. So a rollback is undone by another one.
 *
 * Invariants:
 *   - It has begun when a record says so durably, and has ended when another one does. In between
 *     nobody reads or writes the live disk, and every opening goes on with it first: after a crash
 *     the disk is what it was before, or what was asked for, and never a mixture of them.
 *   - The record of the end is put when everything before it is durable.
 *   - What comes back is pinned from before the beginning until after the end.
 *   - Nothing begins that can't be read to its end, or does not fit into the log.
 *   - While it is unfinished nobody else puts requests, so whatever is later than `bound` is its own.
 */
import { assert } from '../base/assert.ts';
import { isVarveError, VarveError } from '../base/errors.ts';
import { isUnreadable } from '../base/unreadable.ts';
import {
  BLOCK_BYTES,
  byteCount,
  generation as generationOf,
  type Generation,
} from '../base/units.ts';
import type { PinHandle } from '../../index/pins.ts';
import type { Appender } from './appender.ts';
import type { Rollback } from './catalogue-entries.ts';
import type { Core, PinReason } from './core.ts';
import type { LiveSessions } from './live-sessions.ts';
import type { Moments, ResolvedMoment } from './moments.ts';
import type { Reader } from './reader.ts';
import { eachPiece, putBack, readAll, type Span } from './put-back.ts';
import type { PointInTime, Progress, RollbackReport, Vacated } from './report.ts';
import { Estimate } from './rollback-estimate.ts';

export interface RollbackRequest {
  /** What stands behind the `@`. */
  readonly to: string;
  /** Sessions of clients are ended. */
  readonly force: boolean;
  /** Only says what would be done. */
  readonly dryRun: boolean;
}

export interface RollbackParts {
  readonly moments: Moments;
  readonly reader: Reader;
  readonly appender: Appender;
  readonly sessions: LiveSessions;
  /** A pin is gone: space may be free again. */
  readonly onUnpin: () => void;
}

/** What one rollback has on its way. */
interface Course {
  readonly target: ResolvedMoment;
  /** Where the disk was; that of the first attempt when an unfinished one is gone on with. */
  readonly before: Generation;
  readonly progress: Progress;
  readonly startUs: number;
  sessionsEnded: number;
}

export class Rollbacks {
  readonly #core: Core;
  readonly #parts: RollbackParts;
  #running: Promise<unknown> | undefined;
  /** Of what an unfinished one brings back. */
  #pin: PinHandle<PinReason> | undefined;
  /** Why the unfinished one got no further. */
  #failure: VarveError | undefined;

  constructor(core: Core, parts: RollbackParts) {
    this.#core = core;
    this.#parts = parts;
    const { unfinished } = core.catalogue;
    if (unfinished === undefined) return;
    this.#pin = core.pinRollback(unfinished.generation, core.rollbackPin);
    core.liveRefusal = this.#unfinishedError;
  }

  get failure(): VarveError | undefined {
    return this.#failure;
  }

  /** Settles when none is running. */
  async stopped(): Promise<void> {
    await Promise.allSettled([this.#running]);
  }

  /**
   * @throws VarveError MOMENT_*, CLIENTS_CONNECTED, ROLLBACK_RUNS, ROLLBACK_TOO_BIG, BLOCK_CORRUPT,
   *   DEVICE_IO and what `progress` throws: nothing was changed then; ROLLBACK_UNFINISHED when it
   *   began and can't go on. Once it has begun, what `progress` throws does not end it.
   */
  async run(request: RollbackRequest, progress: Progress): Promise<RollbackReport> {
    if (!request.dryRun) this.#core.needWritable();
    return await this.#alone(() => this.#run(request, progress));
  }

  /**
   * Goes on with one that a crash or a failure left unfinished, if there is one. Where that fails it
   * stays unfinished, and `failure` tells why.
   */
  async complete(progress: Progress): Promise<void> {
    const { unfinished } = this.#core.catalogue;
    if (unfinished === undefined) return;
    try {
      await this.#alone(() => this.#write(unfinished, { progress, dataBlocks: undefined }));
    } catch (error) {
      if (!isVarveError(error)) throw error;
    }
  }

  /**
   * For whoever is going to write over the whole disk: from here on nobody else has it open.
   * @param force - sessions of clients are ended
   * @throws VarveError CLIENTS_CONNECTED, ROLLBACK_RUNS, ROLLBACK_UNFINISHED
   */
  vacate(force: boolean): Promise<Vacated> {
    return this.#alone(async () => {
      const core = this.#core;
      const { sessions, appender } = this.#parts;
      core.needWritable();
      if (core.liveRefusal !== undefined) throw core.liveRefusal();
      const sessionsEnded = sessions.count;
      if (sessionsEnded > 0 && !force) {
        throw new VarveError('CLIENTS_CONNECTED', `${sessionsEnded} sessions`);
      }
      const why = 'sessions of clients are ended, since the disk is being written over';
      core.liveRefusal = () => new VarveError('CLOSED', why);
      try {
        await sessions.end(why);
        await appender.quiet();
      } finally {
        core.liveRefusal = undefined;
      }
      return { before: core.head, sessionsEnded };
    });
  }

  async #alone<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running !== undefined) throw new VarveError('ROLLBACK_RUNS', 'another one');
    const running = work();
    this.#running = running;
    try {
      return await running;
    } finally {
      this.#running = undefined;
    }
  }

  async #run(request: RollbackRequest, progress: Progress): Promise<RollbackReport> {
    const core = this.#core;
    const { moments, onUnpin } = this.#parts;
    core.needNoReceive('it can not be rolled back');
    const target = moments.resolve(request.to);
    const { unfinished } = core.catalogue;
    const before = unfinished?.before ?? core.head;
    const startUs = core.world.clock.monotonicUs();
    const course: Course = { target, before, progress, startUs, sessionsEnded: 0 };
    const pin = core.pinRollback(target.generation);
    try {
      if (request.dryRun) return this.#report(course, await this.#estimate(target.generation));
      return await this.#undo(course, request);
    } finally {
      core.unpin(pin);
      onUnpin();
    }
  }

  async #undo(course: Course, { force }: RollbackRequest): Promise<RollbackReport> {
    const core = this.#core;
    const { sessions, appender } = this.#parts;
    const { target, progress } = course;
    const told = `${sessions.count} sessions`;
    if (sessions.count > 0 && !force) throw new VarveError('CLIENTS_CONNECTED', told);
    const refusal = core.liveRefusal;
    // It fitted when it began, and an estimate of its rest may be larger than the rest.
    const goesOn = core.catalogue.unfinished?.generation === target.generation;
    let estimate: Estimate;
    let verified: Generation | undefined;
    try {
      if (sessions.count > 0) {
        // What is refused is refused before anybody is sent away.
        verified = core.head;
        const first = await this.#estimate(target.generation);
        if (!goesOn) first.needRoom(core, target.generation);
        await this.#verify(target.generation, first, progress);
      }
      core.liveRefusal = () =>
        new VarveError('ROLLBACK_RUNS', `to generation ${target.generation}`);
      core.needNoReceive('it can not be rolled back');
      course.sessionsEnded = sessions.count;
      await sessions.end(`the disk is rolled back to generation ${target.generation}`);
      await appender.quiet();
      estimate = await this.#estimate(target.generation);
      if (!goesOn) estimate.needRoom(core, target.generation);
      if (verified !== core.head) await this.#verify(target.generation, estimate, progress);
      if (estimate.isNothing && core.catalogue.unfinished === undefined) {
        core.liveRefusal = refusal;
        return this.#report({ ...course, before: core.head }, estimate);
      }
      progress(estimate.dataBlocks, 2 * estimate.dataBlocks);
      await this.#begin(target);
    } catch (error) {
      core.liveRefusal = refusal;
      throw error;
    }
    const { unfinished } = core.catalogue;
    assert(unfinished !== undefined, 'what has begun is unfinished');
    const { dataBlocks } = estimate;
    await this.#write(unfinished, { progress, dataBlocks });
    return this.#report({ ...course, before: unfinished.before }, estimate);
  }

  /** Durable when it settles. The same moment as that of an unfinished one: that one goes on. */
  async #begin(target: ResolvedMoment): Promise<void> {
    const core = this.#core;
    if (core.catalogue.unfinished?.generation === target.generation) return;
    const pin = core.pinRollback(target.generation);
    try {
      await this.#parts.moments.beginRollback(target);
    } catch (error) {
      core.unpin(pin);
      throw error;
    }
    if (this.#pin !== undefined) core.unpin(this.#pin);
    this.#pin = pin;
  }

  /** From the beginning, which is durable, to the end, which is durable too. */
  async #write(
    rollback: Rollback,
    { progress, dataBlocks }: { progress: Progress; dataBlocks: number | undefined },
  ): Promise<void> {
    const core = this.#core;
    core.liveRefusal = () =>
      new VarveError('ROLLBACK_RUNS', `to generation ${rollback.generation}`);
    try {
      const total = dataBlocks ?? (await this.#estimate(rollback.generation)).dataBlocks;
      // At an opening nothing is verified beforehand: that is over, and it has to go on.
      const already = dataBlocks === undefined ? 0 : total;
      const { reader, appender } = this.#parts;
      const { generation: target, bound } = rollback;
      await putBack(core, { reader, appender, by: 'rollback' }, { target, bound }, (done) =>
        tell(progress, already + done, already + total),
      );
      await this.#parts.moments.endRollback();
    } catch (error) {
      if (!isVarveError(error)) throw error;
      this.#failure = error;
      core.liveRefusal = this.#unfinishedError;
      if (core.closed) throw new VarveError('CLOSED', 'the rollback goes on at the next opening');
      throw this.#unfinishedError();
    }
    this.#failure = undefined;
    core.liveRefusal = undefined;
    if (this.#pin !== undefined) core.unpin(this.#pin);
    this.#pin = undefined;
    this.#parts.onUnpin();
  }

  /** Reads all that is to be put: what could not be read to its end is not begun. */
  async #verify(target: Generation, { dataBlocks }: Estimate, progress: Progress): Promise<void> {
    const told = (done: number): void => progress(Math.min(done, dataBlocks), 2 * dataBlocks);
    try {
      await readAll(this.#core, this.#parts.reader, this.#span(target), told);
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      throw new VarveError(error.code, `${error.detail}; nothing was rolled back`, {
        cause: error,
      });
    }
  }

  async #estimate(target: Generation): Promise<Estimate> {
    const estimate = new Estimate();
    await eachPiece(
      this.#core,
      { ...this.#span(target), zerosBy: 'sums' },
      () => undefined,
      async (piece) => {
        estimate.add(piece);
      },
    );
    estimate.measure(this.#core, target);
    return estimate;
  }

  /** What an attempt that begins now has to undo, or what the unfinished one has left. */
  #span(target: Generation): Span {
    const { unfinished } = this.#core.catalogue;
    const isSame = unfinished?.generation === target;
    return { target, bound: isSame ? unfinished.bound : this.#core.head };
  }

  #report(course: Course, estimate: Estimate): RollbackReport {
    const core = this.#core;
    const { target, before, startUs, sessionsEnded } = course;
    core.log.stream.seal();
    const at = (generation: Generation): PointInTime => ({
      generation,
      wallUs: core.timeline.wallAt(generation),
    });
    return {
      target: at(target.generation),
      before: at(before),
      after: at(core.head),
      undo: core.head > before ? this.#parts.moments.markAt(before) : undefined,
      dataBytes: byteCount(estimate.dataBlocks * BLOCK_BYTES),
      zeroBytes: byteCount(estimate.zeroBlocks * BLOCK_BYTES),
      logBytes: estimate.logBytes,
      freeBytes: estimate.freeBytes,
      sessionsEnded,
      tookMs: (core.world.clock.monotonicUs() - startUs) / 1000,
    };
  }

  readonly #unfinishedError = (): VarveError => {
    const { unfinished } = this.#core.catalogue;
    const to = `to generation ${unfinished?.generation ?? generationOf(0)}`;
    const why = this.#failure?.message ?? 'the volume is open for reading only';
    return new VarveError('ROLLBACK_UNFINISHED', `${to}: ${why}`);
  };
}

/** Who asked for it may have gone: it goes on all the same. */
function tell(progress: Progress, done: number, total: number): void {
  try {
    progress(Math.min(done, total), total);
  } catch (error) {
    if (!isVarveError(error)) throw error;
  }
}
