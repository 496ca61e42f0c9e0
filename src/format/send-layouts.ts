/**
 * What `varve send` writes, as tables of fields: a header, then records one after the other, each
 * with its payload behind it. docs/FORMAT.md is printed from them.
 */
import { LABEL_BYTES_MAX, table } from './layouts.ts';

export const SEND_VERSION = 1;

export const SEND_MAGIC = 'VARVESND';
export const SEND_WHOLE = 1;
export const SEND_SINCE = 2;

export const sendHeader = table(
  'send_header',
  256,
  'Begins a stream, and every continuation of one. The identity of a stream is this header with all' +
    ' fields but magic, version, kind, volume, size, from and to as zero: every record is bound to it.',
  [
    ['magic', 'magic', 8, 'ascii', `"${SEND_MAGIC}"`],
    ['checksum', 'u32', 4, 'crc32c', 'of bytes 12 to 255'],
    ['version', 'u16', 2, 'version', 'another one is refused, with both numbers'],
    ['kind', 'u8', 1, 'kind', '1 a whole disk, 2 what changed since a moment'],
    ['resumed', 'u8', 1, 'flag', '1: goes on where a receiver stopped'],
    ['volume', 'uuid', 16, 'uuid', 'identity of the sending volume'],
    ['size_bytes', 'u64', 8, 'bytes', 'size of the disk'],
    ['from_lineage', 'uuid', 16, 'uuid', 'lineage of the moment since; nil for a whole disk'],
    ['from_generation', 'u64', 8, 'generation', 'the moment since; 0 for a whole disk'],
    ['to_lineage', 'uuid', 16, 'uuid', 'lineage of the moment that is sent'],
    ['to_generation', 'u64', 8, 'generation', 'the moment that is sent'],
    ['to_wall_us', 'u64', 8, 'us', 'wall clock at that moment'],
    ['data_bytes', 'u64', 8, 'bytes', 'payload of data records that follows at most'],
    ['records', 'u64', 8, 'count', 'number of the first record; 0 unless resumed'],
    ['next_block', 'u64', 8, 'block', 'what lies below was received; 0 unless resumed'],
    ['digest', 'hash', 32, 'sha-256', 'of the stream so far; zeros unless resumed'],
    ['label', 'text', LABEL_BYTES_MAX, 'utf-8', 'name of a snapshot of that moment, if it has one'],
  ],
);

export const SEND_RECORD_MAGIC = 'VREC';
export const SEND_DATA = 1;
export const SEND_HOLE = 2;
export const SEND_ALLOCATED = 3;
export const SEND_SEAL = 4;
export const SEND_END = 5;
/** Blocks of one data record. */
export const SEND_BLOCKS_MAX = 256;

export const sendRecord = table(
  'send_record',
  32,
  'Data is followed by its blocks, seal and end by a `send_seal`, the others by nothing. Blocks' +
    ' ascend from record to record, and none is named twice.',
  [
    ['magic', 'magic', 4, 'ascii', `"${SEND_RECORD_MAGIC}"`],
    [
      'checksum',
      'u32',
      4,
      'crc32c',
      'of bytes 8 to 31 and the payload, begun with the checksum of the identity',
    ],
    ['kind', 'u8', 1, 'kind', '1 data, 2 hole, 3 zeros that stay allocated, 4 seal, 5 end'],
    ['padding', 'zero', 1, 'zero', 'written and checked as zero'],
    ['block', 'u48', 6, 'block', 'the first one; seal and end: the next one that may follow'],
    ['number', 'u64', 8, 'count', 'from 0, without a gap, over all continuations'],
    ['count', 'u64', 8, 'blocks', `data: 1 to ${SEND_BLOCKS_MAX}; seal and end: 0`],
  ],
);

export const sendSeal = table(
  'send_seal',
  64,
  'What came before is whole: a receiver may keep it, and go on from here. The digest is SHA-256 over' +
    ' the digest before (first: SHA-256 of the identity) and all records since, as they were sent.',
  [
    ['digest', 'hash', 32, 'sha-256', 'of the stream so far'],
    ['data_blocks', 'u64', 8, 'blocks', 'sent as data since the header before'],
    ['hole_blocks', 'u64', 8, 'blocks', 'sent as holes since the header before'],
    ['allocated_blocks', 'u64', 8, 'blocks', 'sent as allocated zeros since the header before'],
  ],
);

export const TOKEN_MAGIC = 'VARVETOK';
export const sendToken = table(
  'send_token',
  128,
  'What a receiver has, for the sender to go on from: printed as text, base64url.',
  [
    ['magic', 'magic', 8, 'ascii', `"${TOKEN_MAGIC}"`],
    ['checksum', 'u32', 4, 'crc32c', 'of bytes 12 to 127'],
    ['version', 'u16', 2, 'version', 'of the stream'],
    ['kind', 'u8', 1, 'kind', 'as in the header'],
    ['padding', 'zero', 1, 'zero', 'written and checked as zero'],
    ['volume', 'uuid', 16, 'uuid', 'identity of the sending volume'],
    ['from_lineage', 'uuid', 16, 'uuid', 'as in the header'],
    ['from_generation', 'u64', 8, 'generation', 'as in the header'],
    ['to_lineage', 'uuid', 16, 'uuid', 'as in the header'],
    ['to_generation', 'u64', 8, 'generation', 'as in the header'],
    ['records', 'u64', 8, 'count', 'number of the record that is wanted next'],
    ['next_block', 'u64', 8, 'block', 'what lies below was received'],
    ['digest', 'hash', 32, 'sha-256', 'of the stream so far'],
  ],
);

export const SEND_FORMATS = [sendHeader, sendRecord, sendSeal, sendToken] as const;
