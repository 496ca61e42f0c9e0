/**
 * Checkpoints of the catalogue: written whole into the area that the superblock does not name,
 * synced, and only then named.
 */
import { assert } from '../src/base/assert.ts';
import { crc32c } from '../src/base/crc32c.ts';
import { isVarveError, VarveError } from '../src/base/errors.ts';
import type { Uuid } from '../src/base/identity.ts';
import { BLOCK_BYTES, byteOffset, lsn, type Lsn } from '../src/base/units.ts';
import type { LowerDevice } from '../src/device/lower-device.ts';
import {
  decodeCatalogueEntry,
  encodeCatalogueEntry,
  type CatalogueEntry,
} from '../src/format/catalogue.ts';
import {
  CHECKPOINT_MAGIC,
  FORMAT_VERSION,
  catalogueEntry,
  checkpointHeader as shape,
} from '../src/format/layouts.ts';
import { decode, encode, numberOf, textOf, viewOf } from '../src/format/record.ts';
import { catalogueEntriesMax, checkpointOffset, type LogGeometry } from './geometry.ts';

export interface Checkpoint {
  readonly sequence: number;
  /** Records of the stream before this position are included. */
  readonly streamLsn: Lsn;
  readonly entries: readonly CatalogueEntry[];
}

export interface CheckpointPlace {
  readonly volume: Uuid;
  readonly geometry: LogGeometry;
  readonly area: 0 | 1;
}

/** The caller syncs. */
export async function writeCheckpoint(
  device: LowerDevice,
  place: CheckpointPlace,
  checkpoint: Checkpoint,
): Promise<void> {
  const { entries } = checkpoint;
  assert(entries.length <= catalogueEntriesMax(place.geometry), 'a checkpoint fits its area');
  const used = shape.size + entries.length * catalogueEntry.size;
  const bytes = new Uint8Array(Math.ceil(used / BLOCK_BYTES) * BLOCK_BYTES);
  entries.forEach((entry, i) => {
    encodeCatalogueEntry(entry, bytes.subarray(shape.size + i * catalogueEntry.size));
  });
  encode(
    shape,
    {
      magic: CHECKPOINT_MAGIC,
      checksum: 0,
      version: FORMAT_VERSION,
      volume: place.volume,
      sequence: checkpoint.sequence,
      stream_lsn: checkpoint.streamLsn,
      entry_count: entries.length,
      body_checksum: crc32c(bytes.subarray(shape.size, used)),
    },
    bytes,
  );
  viewOf(bytes).setUint32(8, crc32c(bytes.subarray(12, shape.size)), true);
  await device.write(checkpointOffset(place.geometry, place.area), [bytes]);
}

/**
 * Read a second time before it is called damaged: a device may have answered with what lies elsewhere.
 * @throws VarveError VOLUME_CORRUPT when the area does not hold the checkpoint that is named
 */
export async function readCheckpoint(
  device: LowerDevice,
  place: CheckpointPlace,
  sequence: number,
): Promise<Checkpoint> {
  try {
    return await readOnce(device, place, sequence);
  } catch (error) {
    if (!isVarveError(error, 'VOLUME_CORRUPT')) throw error;
    return await readOnce(device, place, sequence);
  }
}

async function readOnce(
  device: LowerDevice,
  place: CheckpointPlace,
  sequence: number,
): Promise<Checkpoint> {
  const at = checkpointOffset(place.geometry, place.area);
  const damaged = (what: string): VarveError =>
    new VarveError('VOLUME_CORRUPT', `checkpoint ${sequence} in area ${place.area}: ${what}`);
  const header = new Uint8Array(BLOCK_BYTES);
  await device.read(at, header);
  const stored = viewOf(header).getUint32(8, true);
  if (crc32c(header.subarray(12, shape.size)) !== stored) throw damaged('bad header checksum');
  const values = decode(shape, header);
  if (values === undefined || textOf(values, 'magic') !== CHECKPOINT_MAGIC) {
    throw damaged('bad header');
  }
  if (numberOf(values, 'sequence') !== sequence) {
    throw damaged(`got sequence ${numberOf(values, 'sequence')}`);
  }
  if (textOf(values, 'volume') !== place.volume) throw damaged('of another volume');
  const count = numberOf(values, 'entry_count');
  if (count > catalogueEntriesMax(place.geometry)) throw damaged(`${count} entries`);
  const body = new Uint8Array(count * catalogueEntry.size);
  await device.read(byteOffset(at + shape.size), body);
  if (crc32c(body) !== numberOf(values, 'body_checksum')) throw damaged('bad body checksum');
  const entries: CatalogueEntry[] = [];
  for (let i = 0; i < count; i++) {
    const entry = decodeCatalogueEntry(body.subarray(i * catalogueEntry.size));
    if (entry === undefined) throw damaged(`entry ${i} is malformed`);
    entries.push(entry);
  }
  return { sequence, streamLsn: lsn(numberOf(values, 'stream_lsn')), entries };
}
