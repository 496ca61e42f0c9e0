/** What the catalogue knows, as values, and as its entries on disk say it. Pure. */
import type { Uuid } from '../base/identity.ts';
import {
  block as blockOf,
  BLOCK_BYTES,
  generation as generationOf,
  type Block,
  type Generation,
  type Micros,
} from '../base/units.ts';
import { BLANK_ENTRY, encodeCatalogueEntry, type CatalogueEntry } from '../format/catalogue.ts';
import {
  RECORD_AUTOMATIC,
  RECORD_LINEAGE,
  RECORD_RECEIVE_ABORTED,
  RECORD_RECEIVED,
  RECORD_RECEIVING,
  RECORD_SNAPSHOT,
} from '../format/layouts.ts';
import type { SentMoment, StreamPlace } from '../format/send.ts';

export interface Mark {
  readonly label: string;
  readonly generation: Generation;
  readonly lineage: Uuid;
  readonly momentWallUs: Micros;
  readonly createdWallUs: Micros;
}

export interface Snapshot extends Mark {
  /** Made by retention, which lets it go, too. */
  readonly isAutomatic: boolean;
}

/** A rollback: requests of the volume's own, which lead from one moment back to another. */
export interface Rollback {
  /** The moment that comes back. */
  readonly generation: Generation;
  readonly lineage: Uuid;
  readonly momentWallUs: Micros;
  /** When it began, or ended. */
  readonly createdWallUs: Micros;
  /** The newest generation before it: what clients saw until it ended. */
  readonly before: Generation;
  /** While it is unfinished: later generations are its own. Once it has ended: the last of those. */
  readonly bound: Generation;
}

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

/** The disk is what another volume was at a moment. */
export interface Received {
  /** The sending volume; nil: a disk that was never written, after a receive that was given up. */
  readonly volume: Uuid;
  readonly moment: SentMoment;
  readonly momentWallUs: Micros;
  readonly createdWallUs: Micros;
  /** Moments here between these two are no state of any disk. */
  readonly base: Generation;
  readonly generation: Generation;
  readonly label: string;
}

/** A receive that has begun and not ended. */
export interface Receiving {
  readonly volume: Uuid;
  /** What is being sent. */
  readonly moment: SentMoment;
  /** The moment here that it began at. */
  readonly base: Generation;
  /** All before is here, or is on its way to the device before this is. */
  readonly place: StreamPlace;
  /** What it has changed is being put back. */
  readonly isAborted: boolean;
}

export function snapshotEntry({ isAutomatic, ...snapshot }: Snapshot): CatalogueEntry {
  const type = isAutomatic ? RECORD_AUTOMATIC : RECORD_SNAPSHOT;
  return { ...BLANK_ENTRY, ...snapshot, type };
}

export function rollbackOf(entry: CatalogueEntry): Rollback {
  const { generation, lineage, momentWallUs, createdWallUs, before, bound } = entry;
  return { generation, lineage, momentWallUs, createdWallUs, before, bound };
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

function momentOf({ lineage, block }: CatalogueEntry): SentMoment {
  return { lineage, generation: generationOf(block) };
}

export function receivedOf(entry: CatalogueEntry): Received {
  const { parent, before: base, generation, momentWallUs, createdWallUs, label } = entry;
  const moment = momentOf(entry);
  return { volume: parent, moment, momentWallUs, createdWallUs, base, generation, label };
}

export function receivedEntry(received: Received): CatalogueEntry {
  const { volume, moment, momentWallUs, createdWallUs, base, generation, label } = received;
  const { lineage, generation: sent } = moment;
  const here = { before: base, generation, momentWallUs, createdWallUs, label };
  const type = RECORD_RECEIVED;
  return { ...BLANK_ENTRY, ...here, type, parent: volume, lineage, block: blockOf(sent) };
}

export function receivingOf(entry: CatalogueEntry): Receiving {
  const { type, parent, before: base, label, bound: records, nextBlock } = entry;
  const place = { records, nextBlock, digest: label };
  const isAborted = type === RECORD_RECEIVE_ABORTED;
  return { volume: parent, moment: momentOf(entry), base, place, isAborted };
}

export function receivingEntry({
  volume,
  moment,
  base,
  place,
  isAborted,
}: Receiving): CatalogueEntry {
  const { records, nextBlock, digest } = place;
  return {
    ...BLANK_ENTRY,
    type: isAborted ? RECORD_RECEIVE_ABORTED : RECORD_RECEIVING,
    parent: volume,
    lineage: moment.lineage,
    block: blockOf(moment.generation),
    before: base,
    bound: generationOf(records),
    nextBlock,
    label: digest,
  };
}

/** A record as the payload of the stream: one block. */
export function recordBlock(entry: CatalogueEntry): Uint8Array {
  const bytes = new Uint8Array(BLOCK_BYTES);
  encodeCatalogueEntry(entry, bytes);
  return bytes;
}
