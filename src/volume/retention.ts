/**
 * Automatic snapshots of an open volume: made when moments leave the window, and let go when no rule
 * needs them, or when there is no space.
 *
 * Nothing here goes by a timer. While the log covers a moment it opens anyway; so a round, before it
 * passes moments, has the last one of each hour looked at, and what the policy keeps becomes a
 * snapshot. After a crash the horizon is where it was, and the same ones are found again.
 *
 * Invariants:
 *   - A checkpoint that has the new snapshots is durable before the horizon passes their moments, and
 *     one that lacks the old ones before anything of theirs is given back.
 *   - What went for want of space is not made again, unless for another policy.
 *   - Snapshots that somebody named are never touched.
 */
import { isVarveError } from '../base/errors.ts';
import { endOfPeriod, HOUR_US, periodOf } from '../base/periods.ts';
import { Mutex } from '../base/mutex.ts';
import { byteCount, generation as generationOf, micros } from '../base/units.ts';
import type { Generation, Micros } from '../base/units.ts';
import type { HourEnd } from '../../index/timeline.ts';
import { snapshotEntry, type Snapshot } from './catalogue-entries.ts';
import type { Core } from './core.ts';
import { forecast } from './forecast.ts';
import { automaticLabel } from './moment.ts';
import type { RetentionInfo, RetentionReport } from './report.ts';
import { hasRules, keptBy, type RetentionPolicy } from './retention-policy.ts';

/** Snapshots that went, and what that gave back. */
interface Gone {
  readonly labels: readonly string[];
  readonly bytes: number;
}

export class Retention {
  readonly #core: Core;
  readonly #elapsedUs: () => Micros;
  /** Space may be free again. */
  readonly #onUnpin: () => void;
  readonly #changes = new Mutex();
  /** Moments before it were looked at. */
  #left = generationOf(0);
  #droppedEarly = 0;

  constructor(core: Core, elapsedUs: () => Micros, onUnpin: () => void) {
    this.#core = core;
    this.#elapsedUs = elapsedUs;
    this.#onUnpin = onUnpin;
  }

  /** The newest moment that is old enough to leave the window; undefined: any may. */
  get youngFrom(): Generation | undefined {
    const { retention, timeline, horizon } = this.#core;
    if (retention.everyWriteUs === 0) return undefined;
    const beginUs = Math.max(0, this.#elapsedUs() - retention.everyWriteUs);
    return timeline.newestAtElapsed(micros(beginUs)) ?? horizon.generation;
  }

  /**
   * The horizon is about to come here: what the policy keeps of the moments before it is pinned, with
   * a durable record, and what it no longer keeps is let go.
   * @returns undefined: there is nothing to do
   * @throws VarveError VOLUME_FAILED and what a checkpoint throws; made again then
   */
  leave(target: Generation): Promise<void> | undefined {
    const { retention, catalogue } = this.#core;
    if (hasRules(retention) || catalogue.hasAutomatic) return this.#leave(target);
    this.#left = target;
    return undefined;
  }

  async #leave(target: Generation): Promise<void> {
    await this.#changes.run(async () => {
      const { horizon, retention } = this.#core;
      const from = generationOf(Math.max(horizon.generation, this.#left));
      const currentWallUs = lookedUpTo(this.#core, target);
      if (this.#isOver(0)) {
        await this.#settle([], currentWallUs);
        await this.#keepLimit(noBytes);
      }
      // Where named ones alone are over the limit, there is no room for any other.
      const isAny = hasRules(retention) && from < target && !this.#isOver(0);
      await this.#settle(isAny ? this.#ends(from, target) : [], currentWallUs);
      this.#left = target;
    });
  }

  /** Last moments of hours; the mixtures inside a rollback or a receive are none. */
  #ends(from: Generation, target: Generation): readonly HourEnd[] {
    const { timeline, catalogue } = this.#core;
    const ends = new Map<Generation, Micros>();
    for (const { generation, wallUs } of timeline.hourEnds(from, target)) {
      const isWhole = catalogue.wholeAt(generation) === generation;
      if (isWhole && catalogue.rollbackAround(generation) === undefined)
        ends.set(generation, wallUs);
    }
    // The disk was as before such a mixture until it ended, maybe over the end of an hour.
    const befores = [...catalogue.rollbacks.map(({ before }) => before), ...catalogue.bases()];
    for (const before of befores) {
      if (before >= from && before < target) ends.set(before, timeline.wallAt(before));
    }
    // Nothing was ever written then.
    ends.delete(generationOf(0));
    return [...ends].map(([generation, wallUs]) => ({ generation, wallUs }));
  }

  /** Makes and lets go what the policy asks for. */
  async #settle(ends: readonly HourEnd[], currentWallUs: Micros): Promise<Gone> {
    const { catalogue, retention } = this.#core;
    const there = catalogue.automatic();
    const candidates = new Map(ends.map((end) => [end.generation, end]));
    for (const { generation, momentWallUs: wallUs } of there) {
      candidates.set(generation, { generation, wallUs });
    }
    const all = [...candidates.values()].sort((a, b) => a.generation - b.generation);
    const kept = keptBy(retention, all, currentWallUs);
    const wanted = all.filter(({ generation }) => kept.has(generation));
    const most = wanted.slice(Math.max(0, wanted.length - catalogue.automaticMax));
    const keep = new Set(most.map(({ generation }) => generation));
    const gone = there.filter((one) => !keep.has(one.generation) && this.#core.mayGo(one));
    const known = new Set(there.map(({ generation }) => generation));
    const made = most.filter(({ generation }) => !known.has(generation));
    return await this.#change(made, gone);
  }

  async #change(made: readonly HourEnd[], gone: readonly Snapshot[]): Promise<Gone> {
    const core = this.#core;
    if (made.length === 0 && gone.length === 0) return { labels: [], bytes: 0 };
    const labels = made.map((end) => this.#make(end));
    for (const { label } of gone) core.catalogue.snapshots.delete(label);
    try {
      await core.log.publishCheckpoint(() => core.checkpoint(), {});
    } catch (error) {
      for (const label of labels) this.#unpin(label);
      // Unless somebody has deleted it meanwhile.
      const back = gone.filter(({ label }) => core.snapshotPins.has(label));
      for (const one of back) core.catalogue.apply(snapshotEntry(one));
      throw error;
    }
    const before = core.undo.held.bytes;
    for (const { label } of gone) this.#unpin(label);
    return { labels: gone.map(({ label }) => label), bytes: before - core.undo.held.bytes };
  }

  #unpin(label: string): void {
    const { snapshotPins, catalogue } = this.#core;
    const pin = snapshotPins.get(label);
    snapshotPins.delete(label);
    catalogue.snapshots.delete(label);
    if (pin !== undefined) this.#core.unpin(pin);
  }

  #make({ generation, wallUs }: HourEnd): string {
    const { catalogue, horizon, world } = this.#core;
    const label = this.#label(wallUs);
    const snapshot: Snapshot = {
      label,
      generation,
      lineage: catalogue.lineageOf(generation, horizon.lineage),
      momentWallUs: wallUs,
      createdWallUs: world.clock.wallUs(),
      isAutomatic: true,
    };
    const pin = this.#core.pin(generation, { kind: 'snapshot', label });
    this.#core.snapshotPins.set(label, pin);
    catalogue.apply(snapshotEntry(snapshot));
    return label;
  }

  /** By the end of its hour; the clock may have been set back over one that has its snapshot. */
  #label(wallUs: Micros): string {
    const plain = automaticLabel(endOfPeriod(periodOf(wallUs, HOUR_US), HOUR_US));
    let label = plain;
    for (let number = 2; this.#core.snapshotPins.has(label); number++) label = `${plain}-${number}`;
    return label;
  }

  /** The oldest one whose end may give something back; of others somebody named the moment, too. */
  #oldest(): Snapshot | undefined {
    const { catalogue, pins } = this.#core;
    return catalogue.automatic().find((one) => {
      const reasons = pins.at(one.generation)?.reasons ?? [];
      return reasons.filter(({ kind }) => kind === 'snapshot').length <= 1 && this.#core.mayGo(one);
    });
  }

  /** Whether there is one to go for want of space. */
  get mayDrop(): boolean {
    return this.#oldest() !== undefined;
  }

  /**
   * Lets the oldest automatic snapshot go.
   * @returns false when there is none
   */
  async dropOldest(): Promise<boolean> {
    return await this.#changes.run(async () => (await this.#dropOldest()) !== undefined);
  }

  async #dropOldest(): Promise<Gone | undefined> {
    const oldest = this.#oldest();
    if (oldest === undefined) return undefined;
    const gone = await this.#change([], [oldest]);
    this.#droppedEarly += 1;
    return gone;
  }

  /**
   * More is about to be held: the oldest automatic snapshots go where it is too much.
   * @param bytes - how much, as far as the pins that are left need it
   */
  async makeRoom(bytes: () => number): Promise<void> {
    if (this.#core.retention.maxBytes === 0 || !this.#isOver(bytes())) return;
    await this.#changes.run(() => this.#keepLimit(bytes));
  }

  /** What is under way has ended, before the log is closed. */
  async stopped(): Promise<void> {
    await this.#changes.run(() => Promise.resolve());
  }

  /**
   * Somebody's snapshot has gone: an automatic one of the same moment was kept beside it, and is one
   * like the others now.
   */
  async deleted(): Promise<void> {
    try {
      if (!this.#core.closed) await this.makeRoom(noBytes);
    } catch (error) {
      // The deletion was done; this is tried again by the next round.
      if (!isVarveError(error)) throw error;
    }
  }

  #isOver(bytes: number): boolean {
    const { retention, undo } = this.#core;
    return retention.maxBytes > 0 && undo.held.bytes + bytes > retention.maxBytes;
  }

  async #keepLimit(bytes: () => number): Promise<readonly Gone[]> {
    const dropped: Gone[] = [];
    while (this.#isOver(bytes())) {
      const oldest = await this.#dropOldest();
      // Named ones hold it all: they stay, and so do the writes.
      if (oldest === undefined) break;
      dropped.push(oldest);
    }
    return dropped;
  }

  /**
   * From now on this holds; what it does not keep goes at once.
   * @throws VarveError READ_ONLY, CLOSED, VOLUME_FAILED; the policy counts all the same
   */
  async setPolicy(policy: RetentionPolicy): Promise<RetentionReport> {
    const core = this.#core;
    const gone = await this.#changes.run(async () => {
      core.needWritable();
      core.retention = policy;
      const thinned = await this.#settle([], lookedUpTo(core, this.#left));
      // A round that got no further has let moments be that are wanted now, and are still there.
      this.#left = core.horizon.generation;
      return [thinned, ...(await this.#keepLimit(noBytes))];
    });
    const deleted = gone.flatMap(({ labels }) => labels);
    if (deleted.length > 0) this.#onUnpin();
    return {
      policy,
      deleted,
      freedBytes: byteCount(gone.reduce((sum, { bytes }) => sum + bytes, 0)),
    };
  }

  /**
   * What the policy does not keep goes: of a volume that was opened to be served, where a crash may have
   * come between a change of its policy and that. Where it can't be now, the next round does it.
   */
  async apply(): Promise<void> {
    const { retention, catalogue } = this.#core;
    if (!catalogue.hasAutomatic) return;
    try {
      await this.setPolicy(retention);
    } catch (error) {
      if (!isVarveError(error)) throw error;
    }
  }

  info(): RetentionInfo {
    const core = this.#core;
    const { retention: policy, undo, catalogue, timeline, horizon } = core;
    const nowUs = this.#elapsedUs();
    const windowUs = micros(Math.max(0, nowUs - timeline.elapsedAt(horizon.generation)));
    const named = core.pins
      .list()
      .filter(({ reasons }) => reasons.some((reason) => !this.#isAutomatic(reason)))
      .map(({ generation }) => generation);
    return {
      policy,
      windowUs,
      isEveryWriteKept: horizon.generation === 0 || windowUs >= policy.everyWriteUs,
      forecast: forecast(core, nowUs),
      automatic: catalogue.automatic().length,
      automaticMax: catalogue.automaticMax,
      heldBytes: byteCount(undo.held.bytes),
      namedBytes: byteCount(undo.heldBy(named).bytes),
      droppedEarly: this.#droppedEarly,
    };
  }

  #isAutomatic(reason: { readonly kind: string; readonly label?: string }): boolean {
    if (reason.kind !== 'snapshot' || reason.label === undefined) return false;
    return this.#core.catalogue.snapshots.get(reason.label)?.isAutomatic === true;
  }
}

const noBytes = (): number => 0;

/**
 * When the oldest moment was that no automatic snapshot was looked for yet: a round that got no further,
 * before a crash too, has left snapshots ahead of the horizon.
 */
export function lookedUpTo(core: Core, left = generationOf(0)): Micros {
  const newest = core.catalogue.automatic().at(-1)?.generation ?? -1;
  const at = Math.max(core.horizon.generation, left, newest + 1);
  return core.momentFrom(generationOf(Math.min(at, core.head))).wallUs;
}
