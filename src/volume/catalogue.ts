/**
 * The catalogue in RAM: snapshots, marks, rollbacks, lineages, and the blocks that the last round
 * wrote.
 * Its changes are records in the stream; its whole is a checkpoint. No I/O here.
 *
 * Invariants:
 *   - Applying a record twice gives what applying it once gives. Replay leaves out what the checkpoint
 *     includes all the same: automatic snapshots have no record of their own, and an old deletion of
 *     the same name would take a new one away.
 *   - It never holds more entries than a checkpoint area.
 */
import { assert } from '../base/assert.ts';
import { VarveError } from '../base/errors.ts';
import { NIL_UUID, type Uuid } from '../base/identity.ts';
import type { Generation } from '../base/units.ts';
import { BLANK_ENTRY, type CatalogueEntry } from '../format/catalogue.ts';
import {
  RECORD_AUTOMATIC,
  RECORD_LINEAGE,
  RECORD_MARK,
  RECORD_ROLLBACK,
  RECORD_ROLLED_BACK,
  RECORD_RECEIVE_ABORTED,
  RECORD_RECEIVED,
  RECORD_RECEIVING,
  RECORD_SNAPSHOT,
  RECORD_SNAPSHOT_DELETED,
  RECORD_WITNESS,
} from '../format/layouts.ts';
import {
  lineageEntry,
  receivedEntry,
  receivedOf,
  receivingEntry,
  receivingOf,
  rollbackOf,
  snapshotEntry,
  type Mark,
  type Snapshot,
  type Rollback,
  type Witness,
  type Lineage,
  type Received,
  type Receiving,
} from './catalogue-entries.ts';

/** Names that were given room and whose record is not applied yet: a rollback and its mark. */
const PENDING_MAX = 2;

export class Catalogue {
  readonly entriesMax: number;
  readonly snapshots = new Map<string, Snapshot>();
  readonly marks = new Map<string, Mark>();
  #lineages: Lineage[] = [];
  #unfinished: Rollback | undefined;
  #rollbacks: Rollback[] = [];
  #witnesses: readonly Witness[] = [];
  #received: Received[] = [];
  #receiving: Receiving | undefined;

  constructor(entriesMax: number, entries: readonly CatalogueEntry[]) {
    this.entriesMax = entriesMax;
    const witnesses: Witness[] = [];
    for (const entry of entries) {
      const { block, generation } = entry;
      if (entry.type === RECORD_WITNESS) witnesses.push({ block, generation });
      else this.apply(entry);
    }
    this.#witnesses = witnesses;
  }

  get #lineagesMax(): number {
    return Math.floor((this.entriesMax * 3) / 8);
  }

  /** How many are kept apart; where there are more, the oldest two become one. */
  get #receivedMax(): number {
    return Math.max(1, Math.floor(this.entriesMax / 16));
  }

  /** Ascending; the last one is what was received last. */
  get received(): readonly Received[] {
    return this.#received;
  }

  /** Nothing was received that a receive could be based on. */
  get isBlank(): boolean {
    return (this.#received.at(-1)?.volume ?? NIL_UUID) === NIL_UUID;
  }

  get receiving(): Receiving | undefined {
    return this.#receiving;
  }

  get lineages(): readonly Lineage[] {
    return this.#lineages;
  }

  /** The rollback that began and has not ended. */
  get unfinished(): Rollback | undefined {
    return this.#unfinished;
  }

  /** Those that ended, oldest first. */
  get rollbacks(): readonly Rollback[] {
    return this.#rollbacks;
  }

  /** The rollback between whose ends the generation lies, where the disk is a mixture. */
  rollbackAround(generation: Generation): Rollback | undefined {
    const open = this.#unfinished;
    if (open !== undefined && generation > open.before) return open;
    return this.#rollbacks.find(({ before, bound }) => generation > before && generation < bound);
  }

  get witnesses(): readonly Witness[] {
    return this.#witnesses;
  }

  set witnesses(blocks: readonly Witness[]) {
    this.#witnesses = blocks;
  }

  apply(entry: CatalogueEntry): void {
    const { label, generation, lineage, momentWallUs, createdWallUs } = entry;
    switch (entry.type) {
      case RECORD_LINEAGE: {
        const known = this.#lineages.some(({ uuid }) => uuid === lineage);
        if (known) return;
        const { parent } = entry;
        this.#lineages.push({ uuid: lineage, parent, parentGeneration: generation, createdWallUs });
        if (this.#lineages.length > this.#lineagesMax) this.#lineages.shift();
        return;
      }
      case RECORD_SNAPSHOT:
      case RECORD_AUTOMATIC: {
        const isAutomatic = entry.type === RECORD_AUTOMATIC;
        const mark = { label, generation, lineage, momentWallUs, createdWallUs };
        this.snapshots.set(label, { ...mark, isAutomatic });
        return;
      }
      case RECORD_SNAPSHOT_DELETED:
        this.snapshots.delete(label);
        return;
      case RECORD_MARK:
        this.marks.set(label, { label, generation, lineage, momentWallUs, createdWallUs });
        return;
      case RECORD_ROLLBACK:
        this.#unfinished = rollbackOf(entry);
        return;
      case RECORD_ROLLED_BACK: {
        const { before, bound } = entry;
        this.#unfinished = undefined;
        const known = this.#rollbacks.some((one) => one.bound === bound);
        // One that wrote nothing left nothing between its ends.
        if (!known && bound > before) this.#rollbacks.push(rollbackOf(entry));
        return;
      }
      case RECORD_RECEIVED:
        this.#receiving = undefined;
        this.#addReceived(receivedOf(entry));
        return;
      case RECORD_RECEIVING:
      case RECORD_RECEIVE_ABORTED:
        this.#receiving = receivingOf(entry);
        return;
      default:
        throw new VarveError('VOLUME_CORRUPT', `catalogue record of unknown type ${entry.type}`);
    }
  }

  #addReceived(received: Received): void {
    const list = this.#received;
    const same = list.findIndex(({ generation }) => generation === received.generation);
    // A stream that changed nothing: another moment of the sender is the same one here.
    const [known] = same < 0 ? [] : list.splice(same, 1);
    list.push({ ...received, base: known?.base ?? received.base });
    const [first, second] = list;
    if (list.length <= this.#receivedMax || first === undefined || second === undefined) return;
    list.splice(0, 2, { ...second, base: first.base });
  }

  /** Half of the area is for snapshots, marks, rollbacks, receives; lineages, witnesses have the rest. */
  needRoom(count = 1): void {
    if (count > this.#roomMax - this.#used) {
      throw new VarveError('CATALOGUE_FULL', `${this.#used} snapshots, marks and rollbacks`);
    }
  }

  get #roomMax(): number {
    return Math.floor(this.entriesMax / 2) - this.#receivedMax - 1;
  }

  get #used(): number {
    const rollbacks = this.#rollbacks.length + (this.#unfinished === undefined ? 0 : 1);
    return this.snapshots.size + this.marks.size + rollbacks;
  }

  /** What a name is that of. */
  named(label: string): Snapshot | Mark | undefined {
    return this.snapshots.get(label) ?? this.marks.get(label);
  }

  get hasAutomatic(): boolean {
    for (const { isAutomatic } of this.snapshots.values()) if (isAutomatic) return true;
    return false;
  }

  /** Ascending by generation. */
  automatic(): readonly Snapshot[] {
    return [...this.snapshots.values()]
      .filter(({ isAutomatic }) => isAutomatic)
      .sort((one, other) => one.generation - other.generation);
  }

  /**
   * So many automatic snapshots there may be: half of what names have, where others leave it. What is
   * being named has its room by then, and is not here yet.
   */
  get automaticMax(): number {
    const others = this.#used - this.automatic().length + PENDING_MAX;
    return Math.max(0, Math.min(Math.floor(this.entriesMax / 4), this.#roomMax - others));
  }

  get witnessesMax(): number {
    return Math.min(64, Math.floor(this.entriesMax / 8));
  }

  /** The lineage that a generation belongs to. */
  lineageOf(generation: Generation, oldest: Uuid): Uuid {
    let found = oldest;
    for (const { uuid, parentGeneration } of this.#lineages) {
      if (parentGeneration < generation) found = uuid;
    }
    return found;
  }

  /** Forgets marks, rollbacks and lineages that no openable moment needs. */
  forgetBefore(horizon: Generation): void {
    for (const [label, mark] of this.marks) {
      if (mark.generation < horizon) this.marks.delete(label);
    }
    this.#rollbacks = this.#rollbacks.filter(({ bound }) => bound > horizon);
    // The newest lineage that began at or before the horizon is the horizon's own.
    let first = 0;
    this.#lineages.forEach(({ parentGeneration }, i) => {
      if (parentGeneration < horizon) first = i;
    });
    this.#lineages = this.#lineages.slice(first);
    const last = this.#received.at(-1);
    this.#received = this.#received.filter((one) => one === last || one.generation > horizon);
  }

  /** The newest moment up to this one that is a state of a disk; mostly itself. */
  wholeAt(generation: Generation): Generation {
    const { receiving } = this;
    if (receiving !== undefined && generation > receiving.base) return receiving.base;
    const inside = this.#received.find(
      (one) => generation > one.base && generation < one.generation,
    );
    return inside?.base ?? generation;
  }

  /** The moments before what was or is being received. */
  bases(): readonly Generation[] {
    const { receiving } = this;
    const received = this.#received.map(({ base }) => base);
    return receiving === undefined ? received : [...received, receiving.base];
  }

  /** The state, as a checkpoint holds it. */
  entries(): CatalogueEntry[] {
    const entries: CatalogueEntry[] = this.#lineages.map((lineage) => lineageEntry(lineage));
    for (const snapshot of this.snapshots.values()) entries.push(snapshotEntry(snapshot));
    for (const mark of this.marks.values()) {
      entries.push({ ...BLANK_ENTRY, ...mark, type: RECORD_MARK });
    }
    for (const rollback of this.#rollbacks) {
      entries.push({ ...BLANK_ENTRY, ...rollback, type: RECORD_ROLLED_BACK });
    }
    // Behind those that ended: an end is what finishes one.
    if (this.#unfinished !== undefined) {
      entries.push({ ...BLANK_ENTRY, ...this.#unfinished, type: RECORD_ROLLBACK });
    }
    for (const received of this.#received) entries.push(receivedEntry(received));
    if (this.#receiving !== undefined) entries.push(receivingEntry(this.#receiving));
    for (const witness of this.#witnesses) {
      entries.push({ ...BLANK_ENTRY, type: RECORD_WITNESS, ...witness });
    }
    assert(entries.length <= this.entriesMax, 'the catalogue fits its checkpoint area');
    return entries;
  }
}
