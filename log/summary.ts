/**
 * What lies at the two ends of a slot: the segment header before the first batch, and the summary
 * behind the last. Bytes in, values out.
 */
import { crc32c } from '../src/base/crc32c.ts';
import type { Uuid } from '../src/base/identity.ts';
import {
  BLOCK_BYTES,
  checksum,
  generation,
  lsn,
  segmentSequence,
  slot,
  type Checksum,
  type Generation,
  type Lsn,
  type SegmentSequence,
  type Slot,
} from '../src/base/units.ts';
import {
  COUNT_END,
  FORMAT_VERSION,
  GENERATION_END,
  SEGMENT_MAGIC,
  SUMMARY_MAGIC,
  segmentHeader,
  segmentSummary,
} from '../src/format/layouts.ts';
import {
  decode,
  encode,
  numberOf,
  textOf,
  viewOf,
  type RecordLayout,
  type Values,
} from '../src/format/record.ts';

export interface SegmentHeader {
  readonly sequence: SegmentSequence;
  readonly slot: Slot;
  /** Checksum of the last header before the segment. */
  readonly chain: Checksum;
  /** Random of the opening that began it. */
  readonly opening: number;
  readonly firstLsn: Lsn;
  readonly generation: Generation;
  readonly durableLsn: Lsn;
}

export interface ReadSegmentHeader extends SegmentHeader {
  /** Its own: the chain of its first batch. */
  readonly checksum: Checksum;
}

export interface SummaryFooter {
  readonly sequence: SegmentSequence;
  readonly endLsn: Lsn;
  readonly bodyBytes: number;
  readonly bodyChecksum: Checksum;
  readonly batchCount: number;
}

function sealed(of: RecordLayout, values: Values): Uint8Array {
  const bytes = new Uint8Array(BLOCK_BYTES);
  encode(of, { checksum: 0, version: FORMAT_VERSION, ...values }, bytes);
  viewOf(bytes).setUint32(8, crc32c(bytes.subarray(12, of.size)), true);
  return bytes;
}

function opened(
  of: RecordLayout,
  magic: string,
  volume: Uuid,
  bytes: Uint8Array,
): Values | undefined {
  if (bytes.length < of.size) return undefined;
  if (crc32c(bytes.subarray(12, of.size)) !== viewOf(bytes).getUint32(8, true)) return undefined;
  const values = decode(of, bytes);
  if (values === undefined || textOf(values, 'magic') !== magic) return undefined;
  if (numberOf(values, 'version') !== FORMAT_VERSION) return undefined;
  return textOf(values, 'volume') === volume ? values : undefined;
}

export function encodeSegmentHeader(volume: Uuid, header: SegmentHeader): Uint8Array {
  return sealed(segmentHeader, {
    magic: SEGMENT_MAGIC,
    volume,
    sequence: header.sequence,
    slot: header.slot,
    chain: header.chain,
    opening: header.opening,
    first_lsn: header.firstLsn,
    generation: header.generation,
    durable_lsn: header.durableLsn,
  });
}

/** @param bytes - what `encodeSegmentHeader` gave, or what was read */
export function segmentChecksum(bytes: Uint8Array): Checksum {
  return checksum(viewOf(bytes).getUint32(8, true));
}

export function decodeSegmentHeader(
  bytes: Uint8Array,
  volume: Uuid,
): ReadSegmentHeader | undefined {
  const values = opened(segmentHeader, SEGMENT_MAGIC, volume, bytes);
  if (values === undefined) return undefined;
  if (numberOf(values, 'generation') >= GENERATION_END) return undefined;
  const counts = ['sequence', 'first_lsn', 'durable_lsn'] as const;
  if (!counts.every((name) => numberOf(values, name) < COUNT_END)) return undefined;
  if (numberOf(values, 'first_lsn') % BLOCK_BYTES !== 0) return undefined;
  return {
    sequence: segmentSequence(numberOf(values, 'sequence')),
    slot: slot(numberOf(values, 'slot')),
    checksum: segmentChecksum(bytes),
    chain: checksum(numberOf(values, 'chain')),
    opening: numberOf(values, 'opening'),
    firstLsn: lsn(numberOf(values, 'first_lsn')),
    generation: generation(numberOf(values, 'generation')),
    durableLsn: lsn(numberOf(values, 'durable_lsn')),
  };
}

/** Body, padded to whole blocks in front, then the footer block: ends exactly at the slot's end. */
export function encodeSummary(
  volume: Uuid,
  sequence: SegmentSequence,
  endLsn: Lsn,
  headers: readonly Uint8Array[],
): Uint8Array {
  const body = Buffer.concat(headers);
  const padded = Math.ceil(body.length / BLOCK_BYTES) * BLOCK_BYTES;
  const bytes = new Uint8Array(padded + BLOCK_BYTES);
  bytes.set(body, padded - body.length);
  bytes.set(
    sealed(segmentSummary, {
      magic: SUMMARY_MAGIC,
      volume,
      sequence,
      end_lsn: endLsn,
      body_bytes: body.length,
      body_checksum: crc32c(body),
      batch_count: headers.length,
    }),
    padded,
  );
  return bytes;
}

export function decodeSummaryFooter(bytes: Uint8Array, volume: Uuid): SummaryFooter | undefined {
  const values = opened(segmentSummary, SUMMARY_MAGIC, volume, bytes);
  if (values === undefined) return undefined;
  return {
    sequence: segmentSequence(numberOf(values, 'sequence')),
    endLsn: lsn(numberOf(values, 'end_lsn')),
    bodyBytes: numberOf(values, 'body_bytes'),
    bodyChecksum: checksum(numberOf(values, 'body_checksum')),
    batchCount: numberOf(values, 'batch_count'),
  };
}
