/**
 * The catalogue in RAM: snapshots, marks, lineages, and the blocks that the last round wrote.
 * Its changes are records in the stream; its whole is a checkpoint. No I/O here.
 *
 * Invariants:
 *   - Applying a record twice gives what applying it once gives: a checkpoint may include records
 *     that replay meets again.
 *   - It never holds more entries than a checkpoint area.
 */
import { assert } from '../base/assert.ts';
import { VarveError } from '../base/errors.ts';
import type { Uuid } from '../base/identity.ts';
import { BLOCK_BYTES, type Block, type Generation, type Micros } from '../base/units.ts';
import { BLANK_ENTRY, encodeCatalogueEntry, type CatalogueEntry } from '../format/catalogue.ts';
import {
  RECORD_LINEAGE,
  RECORD_MARK,
  RECORD_SNAPSHOT,
  RECORD_SNAPSHOT_DELETED,
  RECORD_WITNESS,
} from '../format/layouts.ts';

export interface Snapshot {
  readonly label: string;
  readonly generation: Generation;
  readonly lineage: Uuid;
  readonly momentWallUs: Micros;
  readonly createdWallUs: Micros;
}

export type Mark = Snapshot;

/** A block that the last round wrote. */
export interface Witness {
  readonly block: Block;
  readonly generation: Generation;
}

export interface Lineage {
  readonly uuid: Uuid;
  readonly parent: Uuid;
  /** Last generation of the parent that counts; the first of this lineage is one more. */
  readonly parentGeneration: Generation;
  readonly createdWallUs: Micros;
}

export class Catalogue {
  readonly entriesMax: number;
  readonly snapshots = new Map<string, Snapshot>();
  readonly marks = new Map<string, Mark>();
  #lineages: Lineage[] = [];
  #witnesses: readonly Witness[] = [];

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

  get lineages(): readonly Lineage[] {
    return this.#lineages;
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
        this.snapshots.set(label, { label, generation, lineage, momentWallUs, createdWallUs });
        return;
      case RECORD_SNAPSHOT_DELETED:
        this.snapshots.delete(label);
        return;
      case RECORD_MARK:
        this.marks.set(label, { label, generation, lineage, momentWallUs, createdWallUs });
        return;
      default:
        throw new VarveError('VOLUME_CORRUPT', `catalogue record of unknown type ${entry.type}`);
    }
  }

  /** Half of the area is for snapshots and marks; lineages and witnesses have the rest. */
  needRoom(): void {
    const used = this.snapshots.size + this.marks.size;
    if (used >= Math.floor(this.entriesMax / 2)) {
      throw new VarveError('CATALOGUE_FULL', `${used} snapshots and marks`);
    }
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

  /** Forgets marks and lineages that no openable moment needs. */
  forgetBefore(horizon: Generation): void {
    for (const [label, mark] of this.marks) {
      if (mark.generation < horizon) this.marks.delete(label);
    }
    // The newest lineage that began at or before the horizon is the horizon's own.
    let first = 0;
    this.#lineages.forEach(({ parentGeneration }, i) => {
      if (parentGeneration < horizon) first = i;
    });
    this.#lineages = this.#lineages.slice(first);
  }

  /** The state, as a checkpoint holds it. */
  entries(): CatalogueEntry[] {
    const entries: CatalogueEntry[] = this.#lineages.map((lineage) => lineageEntry(lineage));
    for (const snapshot of this.snapshots.values()) {
      entries.push({ ...BLANK_ENTRY, ...snapshot, type: RECORD_SNAPSHOT });
    }
    for (const mark of this.marks.values()) {
      entries.push({ ...BLANK_ENTRY, ...mark, type: RECORD_MARK });
    }
    for (const witness of this.#witnesses) {
      entries.push({ ...BLANK_ENTRY, type: RECORD_WITNESS, ...witness });
    }
    assert(entries.length <= this.entriesMax, 'the catalogue fits its checkpoint area');
    return entries;
  }
}

export function lineageEntry(lineage: Lineage): CatalogueEntry {
  return {
    ...BLANK_ENTRY,
    type: RECORD_LINEAGE,
    generation: lineage.parentGeneration,
    lineage: lineage.uuid,
    parent: lineage.parent,
    createdWallUs: lineage.createdWallUs,
  };
}

/** A record as the payload of the stream: one block. */
export function recordBlock(entry: CatalogueEntry): Uint8Array {
  const bytes = new Uint8Array(BLOCK_BYTES);
  encodeCatalogueEntry(entry, bytes);
  return bytes;
}
