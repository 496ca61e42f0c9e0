/** Catalogue entries: bytes in, values out. The same codec serves records of the stream and checkpoints. */
import { NIL_UUID, type Uuid } from '../base/identity.ts';
import {
  block,
  generation,
  micros,
  type Block,
  type Generation,
  type Micros,
} from '../base/units.ts';
import { catalogueEntry as shape } from './layouts.ts';
import { decode, encode, numberOf, textOf } from './record.ts';

export interface CatalogueEntry {
  /** RECORD_* of layouts.ts. */
  readonly type: number;
  readonly generation: Generation;
  readonly lineage: Uuid;
  readonly parent: Uuid;
  readonly momentWallUs: Micros;
  readonly createdWallUs: Micros;
  readonly block: Block;
  readonly label: string;
  readonly before: Generation;
  readonly bound: Generation;
  readonly nextBlock: Block;
}

export const BLANK_ENTRY: CatalogueEntry = {
  type: 0,
  generation: generation(0),
  lineage: NIL_UUID,
  parent: NIL_UUID,
  momentWallUs: micros(0),
  createdWallUs: micros(0),
  block: block(0),
  label: '',
  before: generation(0),
  bound: generation(0),
  nextBlock: block(0),
};

export function encodeCatalogueEntry(entry: CatalogueEntry, target: Uint8Array): void {
  encode(
    shape,
    {
      type: entry.type,
      generation: entry.generation,
      lineage: entry.lineage,
      parent: entry.parent,
      moment_wall_us: entry.momentWallUs,
      created_wall_us: entry.createdWallUs,
      block: entry.block,
      label: entry.label,
      before: entry.before,
      bound: entry.bound,
      next_block: entry.nextBlock,
    },
    target,
  );
}

/** @returns undefined when padding is not zero or a number too large */
export function decodeCatalogueEntry(bytes: Uint8Array): CatalogueEntry | undefined {
  const values = decode(shape, bytes);
  if (values === undefined) return undefined;
  return {
    type: numberOf(values, 'type'),
    generation: generation(numberOf(values, 'generation')),
    lineage: textOf(values, 'lineage'),
    parent: textOf(values, 'parent'),
    momentWallUs: micros(numberOf(values, 'moment_wall_us')),
    createdWallUs: micros(numberOf(values, 'created_wall_us')),
    block: block(numberOf(values, 'block')),
    label: textOf(values, 'label'),
    before: generation(numberOf(values, 'before')),
    bound: generation(numberOf(values, 'bound')),
    nextBlock: block(numberOf(values, 'next_block')),
  };
}
