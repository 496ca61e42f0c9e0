/** The batches that lie on a simulated log, as a tool that walks over the device would find them. */
import { uuidBytes } from '../../src/base/identity.ts';
import { BLOCK_BYTES, slot } from '../../src/base/units.ts';
import { FLAG_START, KIND_DATA, KIND_RECORD } from '../../src/format/layouts.ts';
import { decodeBatch, endOf, entryOf, type Batch } from '../../log/batch.ts';
import { slotOffset } from '../../log/geometry.ts';
import type { SimVolume } from '../sim/sim-volume.ts';

export interface PlacedBatch {
  /** Of its header. */
  readonly at: number;
  readonly batch: Batch;
}

/** A payload that is data, and which version it is. */
export interface PlacedPayload {
  readonly at: number;
  readonly block: number;
  readonly generation: number;
  /** Of its batch. */
  readonly endLsn: number;
}

export function logBlock({ log }: SimVolume, offset: number): Uint8Array {
  const bytes = new Uint8Array(BLOCK_BYTES);
  log.platter.read(offset, bytes);
  return bytes;
}

/** All of them, whatever branch they are of, by their places in the stream. */
export function batchesOn(sim: SimVolume): readonly PlacedBatch[] {
  const found: PlacedBatch[] = [];
  const uuid = uuidBytes(sim.uuid);
  const { logBytes } = sim.geometry;
  for (let at: number = slotOffset(sim.geometry, slot(0)); at < logBytes; at += BLOCK_BYTES) {
    const batch = decodeBatch(logBlock(sim, at), uuid);
    if (batch !== undefined) found.push({ at, batch });
  }
  return found.sort((one, other) => one.batch.header.lsn - other.batch.header.lsn);
}

/** Payloads that are data; those of records are read by every opening, and refuse it. */
export function dataOf({ at, batch }: PlacedBatch): readonly PlacedPayload[] {
  const data: PlacedPayload[] = [];
  const endLsn = endOf(batch);
  let place = at;
  let { generation }: { generation: number } = batch.header;
  for (let i = 0; i < batch.header.entryCount; i++) {
    const { kind, flags, block } = entryOf(batch, i);
    if ((flags & FLAG_START) !== 0) generation += 1;
    if (kind === KIND_DATA || kind === KIND_RECORD) place += BLOCK_BYTES;
    if (kind === KIND_DATA) data.push({ at: place, block, generation, endLsn });
  }
  return data;
}
