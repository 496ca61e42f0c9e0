/**
 * From the ring into the slots: one write of sealed batches at a time, with the segment's header
 * before its first one and its summary behind its last.
 */
import { assert } from '../src/base/assert.ts';
import type { Uuid } from '../src/base/identity.ts';
import { BLOCK_BYTES, byteOffset, lsn, mebibytes, type Lsn } from '../src/base/units.ts';
import type { LowerDevice } from '../src/device/lower-device.ts';
import { slotOffset } from './geometry.ts';
import type { Ring } from './ring.ts';
import type { Segment, SegmentTable } from './segments.ts';
import type { SealedBatch } from './stream.ts';
import { encodeSummary } from './summary.ts';

const WRITE_BYTES_MAX = mebibytes(8);

export interface SegmentWriterOptions {
  readonly volume: Uuid;
  readonly device: LowerDevice;
  readonly ring: Ring;
  readonly segments: SegmentTable;
}

export class SegmentWriter {
  readonly #options: SegmentWriterOptions;
  bytesWritten = 0;
  /** Behind it nothing was handed to the device, whole or in part. */
  touched: Lsn;

  constructor(options: SegmentWriterOptions, written: Lsn) {
    this.#options = options;
    this.touched = written;
  }

  /**
   * Writes from `from` on: to the segment's end, or to `sealedLsn`, or as much as one write takes.
   * @param sealed - the batches behind `from`, oldest first
   * @returns where it ended
   */
  async write(from: Lsn, sealedLsn: Lsn, sealed: readonly SealedBatch[]): Promise<Lsn> {
    const { device, ring, segments } = this.#options;
    const segment = segments.find(from);
    const end = segment.endLsn ?? sealedLsn;
    const to = wholeBatches(from, lsn(Math.min(sealedLsn, end)), sealed);
    const sources = ring.slices(from, to);
    let at = segments.place(segment, from);
    if (from === segment.firstLsn && segment.header !== undefined) {
      sources.unshift(segment.header);
      segment.header = undefined;
      at = byteOffset(at - BLOCK_BYTES);
    }
    if (to > this.touched) this.touched = to;
    await device.write(at, sources);
    this.bytesWritten += to - from;
    if (segment.endLsn === to) await this.#writeSummary(segment);
    return to;
  }

  async #writeSummary(segment: Segment): Promise<void> {
    const headers = segment.summary;
    segment.summary = undefined;
    if (headers === undefined || segment.endLsn === undefined) return;
    const { device, segments, volume } = this.#options;
    const bytes = encodeSummary(volume, segment.sequence, segment.endLsn, headers);
    const slotEnd = slotOffset(segments.geometry, segment.slot) + segments.geometry.segmentBytes;
    const used = segments.place(segment, lsn(segment.endLsn - BLOCK_BYTES)) + BLOCK_BYTES;
    assert(slotEnd - bytes.length >= used, 'a summary never overlaps its batches');
    await device.write(byteOffset(slotEnd - bytes.length), [bytes]);
    this.bytesWritten += bytes.length;
  }
}

/**
 * Where one write ends: at a batch's end, because what is written may be stated durable, and half
 * a batch that is stated durable would be taken for damage after a cut.
 */
function wholeBatches(from: Lsn, end: Lsn, sealed: readonly SealedBatch[]): Lsn {
  if (end - from <= WRITE_BYTES_MAX) return end;
  let to = from;
  for (const { endLsn } of sealed) {
    if (endLsn > from + WRITE_BYTES_MAX) break;
    if (endLsn > to) to = endLsn;
  }
  assert(to > from, 'a batch fits one write');
  return to;
}
