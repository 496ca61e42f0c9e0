/**
 * Moments of an open volume: resolving names, snapshots, marks, and the pins that keep them.
 *
 * Invariants:
 *   - What resolves lies in the window, or the error names the window.
 *   - A snapshot's pin is there before its record is, and its record is durable before the answer.
 */
import { assert, unreachable } from '../base/assert.ts';
import { isVarveError, VarveError } from '../base/errors.ts';
import type { Uuid } from '../base/identity.ts';
import { Mutex } from '../base/mutex.ts';
import { lsn, micros, type Generation, type Lsn, type Micros } from '../base/units.ts';
import { BLANK_ENTRY, type CatalogueEntry } from '../format/catalogue.ts';
import {
  RECORD_MARK,
  RECORD_ROLLBACK,
  RECORD_ROLLED_BACK,
  RECORD_SNAPSHOT,
  RECORD_SNAPSHOT_DELETED,
} from '../format/layouts.ts';
import { recordBlock, type Rollback } from './catalogue-entries.ts';
import type { Core } from './core.ts';
import { checkLabel, parseMoment, timeText, type Moment } from './moment.ts';
import type { MarkInfo, RollbackInfo, SnapshotInfo } from './report.ts';
import { newSnapshotInfo, snapshotInfos } from './snapshot-info.ts';

/** Labels in one message. */
const NAMED_MAX = 8;
/** What the newest moment before a rollback is called; then with a number. */
const BEFORE_ROLLBACK = 'before-rollback';

export interface ResolvedMoment {
  readonly generation: Generation;
  readonly lineage: Uuid;
  readonly wallUs: Micros;
  /** The same text gives the same moment on every connection. */
  readonly stable: boolean;
}

export interface MomentHooks {
  /** Space may be free again. */
  readonly onUnpin: () => void;
  /** Calls `put` when so many records have room, in their turn among the writes. */
  readonly record: (put: () => void, count: number) => Promise<void>;
}

export class Moments {
  readonly #core: Core;
  readonly #elapsedUs: () => Micros;
  readonly #hooks: MomentHooks;
  /** Changes of the catalogue come one after the other, so that names and room stay checked. */
  readonly #changes = new Mutex();

  constructor(core: Core, elapsedUs: () => Micros, hooks: MomentHooks) {
    this.#core = core;
    this.#elapsedUs = elapsedUs;
    this.#hooks = hooks;
  }

  /** @throws VarveError MOMENT_BAD, _UNKNOWN, _OUTSIDE, _FUTURE, _AMBIGUOUS */
  resolve(text: string): ResolvedMoment {
    const moment = parseMoment(text);
    const generation = this.#openableAt(moment, text);
    const snapshot = moment.kind === 'label' && this.#core.catalogue.snapshots.has(moment.label);
    return {
      generation,
      ...this.#placeOf(generation),
      stable: snapshot || moment.kind === 'generation',
    };
  }

  /**
   * Where `resolve` finds a generation, that alone. It takes no look at the other names, so it costs
   * the same however many there are.
   */
  find(text: string): Generation | undefined {
    try {
      const moment = parseMoment(text);
      // The refusal would tell which names there are.
      if (moment.kind === 'label' && this.#core.catalogue.named(moment.label) === undefined) return;
      return this.#openableAt(moment, text);
    } catch (error) {
      if (isVarveError(error)) return undefined;
      throw error;
    }
  }

  #openableAt(moment: Moment, text: string): Generation {
    const core = this.#core;
    // What is accepted has its time once its batch is sealed.
    core.log.stream.seal();
    const found = this.#wholeAt(this.#generationOf(moment, text), moment);
    const generation = this.#asClientsSaw(moment, found);
    if (!core.isOpenable(generation)) throw this.#outside(text, generation);
    return generation;
  }

  /** Below the horizon only snapshots know where they lie. */
  #placeOf(generation: Generation): Pick<ResolvedMoment, 'lineage' | 'wallUs'> {
    const { catalogue, horizon, timeline } = this.#core;
    if (generation < horizon.generation) {
      for (const snapshot of catalogue.snapshots.values()) {
        if (snapshot.generation !== generation) continue;
        return { lineage: snapshot.lineage, wallUs: snapshot.momentWallUs };
      }
    }
    return {
      lineage: catalogue.lineageOf(generation, horizon.lineage),
      wallUs: timeline.wallAt(generation),
    };
  }

  /** What a time, an age or a flush means where a stream was being received: the disk before it. */
  #wholeAt(generation: Generation, { kind }: Moment): Generation {
    const { catalogue, head } = this.#core;
    const isNamed = (): boolean =>
      [...catalogue.snapshots.values()].some((one) => one.generation === generation);
    const whole = catalogue.wholeAt(generation);
    if (whole === generation || generation > head || kind === 'label' || isNamed()) {
      return generation;
    }
    if (kind !== 'generation') return whole;
    const after = catalogue.received.find((one) => one.generation > generation)?.generation;
    const next = after === undefined ? 'the rest is not here yet' : `the one after is gen=${after}`;
    const both = `the moment before is gen=${whole}, ${next}`;
    throw new VarveError('MOMENT_MIXED', `generation ${generation}; ${both}`);
  }

  #generationOf(moment: Moment, text: string): Generation {
    const { catalogue, timeline, head, world } = this.#core;
    switch (moment.kind) {
      case 'generation':
        return moment.generation;
      case 'label': {
        const found = catalogue.named(moment.label);
        if (found === undefined) throw this.#unknown(moment.label);
        return found.generation;
      }
      case 'ago': {
        const at = this.#elapsedUs() - moment.agoUs;
        const found = at < 0 ? undefined : timeline.newestAtElapsed(micros(at));
        if (found === undefined) throw this.#outside(text);
        return found;
      }
      case 'time': {
        if (moment.wallUs > world.clock.wallUs()) throw new VarveError('MOMENT_FUTURE', text);
        const found = timeline.newestAtWall(moment.wallUs);
        if (found.length > 1) {
          throw new VarveError('MOMENT_AMBIGUOUS', `${text} fits generations ${found.join(', ')}`);
        }
        if (found[0] === undefined) throw this.#outside(text);
        return found[0];
      }
      case 'flush': {
        const found = timeline.flushFromEnd(moment.fromEnd, head);
        if (found === undefined) throw this.#outside(text);
        return found;
      }
      default:
        return unreachable(moment);
    }
  }

  /** While a rollback ran, clients saw what was before; a generation of its own is no moment. */
  #asClientsSaw({ kind }: Moment, generation: Generation): Generation {
    const around = this.#core.catalogue.rollbackAround(generation);
    if (around === undefined) return generation;
    if (kind === 'ago' || kind === 'time' || kind === 'flush') return around.before;
    throw betweenError(around, generation, this.#core.catalogue.unfinished === around);
  }

  #unknown(label: string): VarveError {
    const { snapshots, marks } = this.#core.catalogue;
    const known = [...snapshots.keys(), ...marks.keys()];
    const shown = known.slice(-NAMED_MAX).join(', ');
    const more = known.length > NAMED_MAX ? ` and ${known.length - NAMED_MAX} more` : '';
    const have = known.length === 0 ? 'there are none' : `there are ${shown}${more}`;
    return new VarveError('MOMENT_UNKNOWN', `"${label}"; ${have}`);
  }

  #outside(text: string, generation?: Generation): VarveError {
    const { oldestMoment: horizon, head, timeline } = this.#core;
    const which = generation === undefined ? '' : ` (generation ${generation})`;
    return new VarveError(
      'MOMENT_OUTSIDE',
      `${text}${which}; the window is gen=${horizon.generation} (${timeText(horizon.wallUs)})` +
        ` to gen=${head} (${timeText(timeline.wallAt(head))})`,
    );
  }

  /** @param at - a moment's text; default: now */
  createSnapshot(label: string, at?: string): Promise<SnapshotInfo> {
    return this.#changes.run(() => this.#createSnapshot(label, at));
  }

  /**
   * There is a snapshot of a moment: one that stays when deletions under way have ended, or a new one.
   * @throws VarveError as `createSnapshot`
   */
  ensureSnapshotAt(generation: Generation, label: string): Promise<void> {
    return this.#changes.run(() => this.#ensureSnapshotAt(generation, label));
  }

  deleteSnapshot(label: string): Promise<void> {
    return this.#changes.run(() => this.#deleteSnapshot(label));
  }

  /** A name for the newest generation that pins nothing. */
  mark(label: string): Promise<MarkInfo> {
    return this.#changes.run(() => this.#mark(label));
  }

  /** Another record of the catalogue: durable and applied when it is done. */
  record(entry: CatalogueEntry): Promise<void> {
    return this.#changes.run(() => this.#record(entry));
  }

  async #createSnapshot(label: string, at?: string): Promise<SnapshotInfo> {
    const core = this.#core;
    core.needWritable();
    this.#needFree(label);
    const moment = this.resolve(at ?? `gen=${core.shown}`);
    const entry: CatalogueEntry = {
      ...BLANK_ENTRY,
      type: RECORD_SNAPSHOT,
      label,
      generation: moment.generation,
      lineage: moment.lineage,
      momentWallUs: moment.wallUs,
      createdWallUs: core.world.clock.wallUs(),
    };
    const { generation } = moment;
    core.snapshotPins.set(label, core.pin(generation, { kind: 'snapshot', label }));
    try {
      await this.#record(entry);
    } catch (error) {
      this.#unpin(label);
      throw error;
    }
    return newSnapshotInfo(core, { ...entry, isAutomatic: false });
  }

  async #ensureSnapshotAt(generation: Generation, label: string): Promise<void> {
    const all = [...this.#core.catalogue.snapshots.values()];
    // Automatic ones go by themselves.
    if (all.some((one) => one.generation === generation && !one.isAutomatic)) return;
    await this.#createSnapshot(label, `gen=${generation}`);
  }

  async #deleteSnapshot(label: string): Promise<void> {
    const core = this.#core;
    core.needWritable();
    const snapshot = core.catalogue.snapshots.get(label);
    if (snapshot === undefined) {
      if (!core.catalogue.marks.has(label)) throw new VarveError('SNAPSHOT_UNKNOWN', `"${label}"`);
      const next = 'nothing has to be done: a mark keeps nothing, and goes with the window';
      throw new VarveError('SNAPSHOT_UNKNOWN', `"${label}" is a mark`, { next });
    }
    const based = core.basedOn(snapshot);
    if (based > 0) throw new VarveError('SNAPSHOT_IN_USE', `"${label}": ${based} open disks`);
    if (core.receiving?.base === snapshot.generation) {
      core.needNoReceive(`snapshot "${label}" keeps what it goes on from`);
    }
    const entry = {
      ...BLANK_ENTRY,
      type: RECORD_SNAPSHOT_DELETED,
      label,
      generation: snapshot.generation,
      lineage: snapshot.lineage,
    };
    core.ending.add(label);
    try {
      await this.#recordAtOnce(entry);
      this.#unpin(label);
    } finally {
      core.ending.delete(label);
    }
  }

  async #mark(label: string): Promise<MarkInfo> {
    const core = this.#core;
    core.needWritable();
    this.#needFree(label);
    const moment = this.resolve(`gen=${core.shown}`);
    const { generation, lineage } = moment;
    const wallUs = core.world.clock.wallUs();
    await this.#record({
      ...BLANK_ENTRY,
      type: RECORD_MARK,
      label,
      generation,
      lineage,
      momentWallUs: wallUs,
      createdWallUs: wallUs,
    });
    return { label, generation, wallUs };
  }

  /**
   * The rollback to a moment has begun, durably; it is gone on with at any opening from now on. What
   * is newest before the first attempt is marked.
   * @throws VarveError CATALOGUE_FULL, LOG_FULL, VOLUME_FAILED; READ_ONLY, CLOSED
   */
  beginRollback(target: ResolvedMoment): Promise<void> {
    return this.#changes.run(() => this.#beginRollback(target));
  }

  /** Everything that was put is durable, and then that the rollback has ended. */
  endRollback(): Promise<void> {
    return this.#changes.run(() => this.#endRollback());
  }

  /** The name of a mark or snapshot that names this generation. */
  markAt(generation: Generation): string | undefined {
    const { marks, snapshots } = this.#core.catalogue;
    // Automatic ones go by themselves.
    const kept = [...snapshots.values()].filter(({ isAutomatic }) => !isAutomatic);
    const named = [...marks.values(), ...kept];
    return named.findLast((one) => one.generation === generation)?.label;
  }

  async #beginRollback(target: ResolvedMoment): Promise<void> {
    const core = this.#core;
    core.needWritable();
    const { unfinished } = core.catalogue;
    core.catalogue.needRoom(2);
    let put: readonly { readonly entry: CatalogueEntry; readonly position: Lsn }[] = [];
    await this.#hooks.record(() => {
      const { head } = core;
      const wallUs = core.world.clock.wallUs();
      const { generation, lineage, wallUs: momentWallUs } = target;
      const begun: CatalogueEntry = {
        ...BLANK_ENTRY,
        type: RECORD_ROLLBACK,
        generation,
        lineage,
        momentWallUs,
        createdWallUs: wallUs,
        before: unfinished?.before ?? head,
        bound: head,
      };
      const mark: CatalogueEntry = {
        ...BLANK_ENTRY,
        type: RECORD_MARK,
        label: this.#freeLabel(BEFORE_ROLLBACK),
        generation: head,
        lineage: core.lineage,
        momentWallUs: wallUs,
        createdWallUs: wallUs,
      };
      const entries = unfinished === undefined ? [mark, begun] : [begun];
      put = entries.map((entry) => ({ entry, position: this.#put(entry) }));
    }, 2);
    await Promise.all(put.map(({ entry, position }) => this.#applied(entry, position)));
  }

  async #endRollback(): Promise<void> {
    const core = this.#core;
    const { unfinished } = core.catalogue;
    assert(unfinished !== undefined, 'what ends has begun');
    const { writer } = core.log;
    // A checkpoint may be what says that it ended, and that does not wait for the stream.
    await writer.waitDurable(writer.contentEnd);
    const createdWallUs = core.world.clock.wallUs();
    const bound = core.head;
    await this.#recordAtOnce({
      ...BLANK_ENTRY,
      ...unfinished,
      type: RECORD_ROLLED_BACK,
      createdWallUs,
      bound,
    });
  }

  /** The label, or with the first number that makes it new. */
  #freeLabel(label: string): string {
    const { snapshots, marks } = this.#core.catalogue;
    const isTaken = (one: string): boolean =>
      snapshots.has(one) || marks.has(one) || this.#core.snapshotPins.has(one);
    if (!isTaken(label)) return label;
    let number = 2;
    while (isTaken(`${label}-${number}`)) number += 1;
    return `${label}-${number}`;
  }

  /** Oldest first; the unfinished one last. */
  rollbacks(failure?: string): readonly RollbackInfo[] {
    const { catalogue, timeline } = this.#core;
    const { rollbacks, unfinished } = catalogue;
    const ended = rollbacks.map(({ generation: target, before, bound }) => {
      const wallUs = timeline.wallAt(bound);
      return { target, before, after: bound, wallUs, failure: undefined };
    });
    if (unfinished === undefined) return ended;
    const { generation: target, before, createdWallUs: wallUs } = unfinished;
    return [...ended, { target, before, after: undefined, wallUs, failure }];
  }

  snapshots(): readonly SnapshotInfo[] {
    return snapshotInfos(this.#core);
  }

  marks(): readonly MarkInfo[] {
    return [...this.#core.catalogue.marks.values()]
      .filter(({ generation }) => generation >= this.#core.horizon.generation)
      .map(({ label, generation, momentWallUs }) => ({ label, generation, wallUs: momentWallUs }));
  }

  #needFree(label: string): void {
    const { catalogue, snapshotPins } = this.#core;
    checkLabel(label);
    if (catalogue.marks.has(label)) {
      const next = 'choose another label: a mark can not be deleted, it goes with the window';
      throw new VarveError('SNAPSHOT_EXISTS', `"${label}" is a mark`, { next });
    }
    if (catalogue.snapshots.has(label) || snapshotPins.has(label)) {
      throw new VarveError('SNAPSHOT_EXISTS', `"${label}"`);
    }
    catalogue.needRoom();
  }

  #unpin(label: string): void {
    const handle = this.#core.snapshotPins.get(label);
    this.#core.snapshotPins.delete(label);
    if (handle !== undefined) this.#core.unpin(handle);
    this.#hooks.onUnpin();
  }

  /** A change of the catalogue: applied when its record is durable. */
  async #record(entry: CatalogueEntry): Promise<void> {
    const put = { position: lsn(0) };
    await this.#hooks.record(() => {
      put.position = this.#put(entry);
    }, 1);
    await this.#applied(entry, put.position);
  }

  /**
   * A change that frees space: it does not wait with those who need some, may use the slot kept
   * back, and has another way when even that is full: a checkpoint.
   */
  async #recordAtOnce(entry: CatalogueEntry): Promise<void> {
    const { log, catalogue } = this.#core;
    let room = log.stream.room(1, 1, true);
    while (room === 'ring') {
      await log.writer.waitDurable(log.stream.nextLsn);
      room = log.stream.room(1, 1, true);
    }
    if (room === 'log') {
      catalogue.apply(entry);
      await log.publishCheckpoint(() => this.#core.checkpoint(), {});
      return;
    }
    await this.#applied(entry, this.#put(entry));
  }

  #put(entry: CatalogueEntry): Lsn {
    const { log, pendingRecords } = this.#core;
    const position = log.stream.putRecord(recordBlock(entry));
    pendingRecords.add(position);
    return position;
  }

  async #applied(entry: CatalogueEntry, position: Lsn): Promise<void> {
    const { log, catalogue, pendingRecords } = this.#core;
    try {
      await log.writer.waitDurable(log.stream.nextLsn);
      catalogue.apply(entry);
      // Before anybody is woken: who then finds the pin is told that it stops recycling.
      if (entry.type === RECORD_SNAPSHOT_DELETED) this.#unpin(entry.label);
    } finally {
      pendingRecords.delete(position);
      // A round may have waited for it.
      this.#hooks.onUnpin();
    }
  }
}

/** @returns why a generation inside a rollback is no moment */
export function betweenError(
  { before, bound, generation: target }: Rollback,
  generation: Generation,
  isUnfinished: boolean,
): VarveError {
  const end = isUnfinished ? 'which has not ended' : `to gen=${bound}`;
  const what = `the rollback to gen=${target} from gen=${before} on, ${end}`;
  return new VarveError('MOMENT_BETWEEN', `gen=${generation}: ${what}`);
}
