/**
 * Every structure on disk, as tables of fields. docs/FORMAT.md is printed from `FORMATS`.
 *
 * All numbers are little-endian. Checksums are CRC32C. A structure that fails its checksum, its
 * magic, or its padding is never believed, only reported.
 */
import { layout, type Field, type FieldType, type RecordLayout } from './record.ts';
import { BLOCK_BYTES } from '../base/units.ts';

export const FORMAT_VERSION = 3;

/**
 * No volume ever gets here, so a structure that says so is not believed, and what is counted on
 * from a value that was read stays a safe integer. The sums hold generations in 48 bits.
 */
export const GENERATION_END = 2 ** 48;
/** As above: positions in the stream, times, and the numbers of what is written in turn. */
export const COUNT_END = 2 ** 52;

type Row = readonly [name: string, type: FieldType, size: number, unit: string, note: string];

/** Declares fields in order: offsets follow from the sizes, and what is left is padding. */
export function table(
  name: string,
  size: number,
  note: string,
  rows: readonly Row[],
): RecordLayout {
  let offset = 0;
  const fields: Field[] = [];
  const add = ([field, type, bytes, unit, text]: Row): void => {
    fields.push({ name: field, offset, size: bytes, type, unit, note: text });
    offset += bytes;
  };
  rows.forEach(add);
  if (offset < size)
    add(['reserved', 'zero', size - offset, 'zero', 'written and checked as zero']);
  return layout(name, size, note, fields);
}

export const SUPERBLOCK_MAGIC = 'VARVESUP';
/** Positions of the two copies on the log device, in blocks. */
export const SUPERBLOCK_BLOCKS = [0, 8] as const;

export const superblock = table(
  'superblock',
  512,
  'Two copies, in blocks 0 and 8 of the log device; the valid one with the higher sequence counts.' +
    ' Each fits one sector, so that a torn write leaves it whole or fails its checksum.',
  [
    ['magic', 'magic', 8, 'ascii', `"${SUPERBLOCK_MAGIC}"`],
    ['checksum', 'u32', 4, 'crc32c', 'of bytes 12 to 511'],
    ['version', 'u16', 2, 'version', 'another one is refused, with both numbers'],
    ['clean', 'u8', 1, 'flag', '1: closed in order, the log ends at durable_lsn'],
    ['checkpoint_area', 'u8', 1, 'area', '0 or 1: which area holds the checkpoint'],
    ['volume', 'uuid', 16, 'uuid', 'identity of the volume'],
    ['sequence', 'u64', 8, 'count', 'grows with each superblock written'],
    ['size_bytes', 'u64', 8, 'bytes', 'size of the volume'],
    ['log_bytes', 'u64', 8, 'bytes', 'size of the log device when it was formatted'],
    ['segment_bytes', 'u64', 8, 'bytes', 'size of a slot'],
    ['slot_count', 'u32', 4, 'slots', 'how many slots follow the checkpoint areas'],
    ['request_bytes_max', 'u32', 4, 'bytes', 'largest payload of one request'],
    ['checkpoint_bytes', 'u64', 8, 'bytes', 'size of each checkpoint area'],
    ['checkpoint_sequence', 'u64', 8, 'count', 'the checkpoint that counts'],
    ['tail_sequence', 'u64', 8, 'segment', 'oldest segment that replay reads'],
    ['tail_lsn', 'u64', 8, 'bytes', 'position in the stream where that segment begins'],
    ['tail_chain', 'u32', 4, 'crc32c', 'checksum of the last header before it'],
    ['horizon', 'u64', 8, 'generation', 'oldest moment that can be opened'],
    ['horizon_lineage', 'uuid', 16, 'uuid', 'lineage of the horizon'],
    ['horizon_wall_us', 'u64', 8, 'us', 'wall clock at the horizon'],
    ['horizon_elapsed_us', 'u64', 8, 'us', 'elapsed time at the horizon'],
    ['undo_slots', 'u32', 4, 'slots', 'the first so many of the undo device were ever used'],
    ['settled', 'u64', 8, 'generation', 'final storage holds everything up to here'],
    ['durable', 'u64', 8, 'generation', 'durable when this was written'],
    ['durable_lsn', 'u64', 8, 'bytes', 'the stream was durable up to here'],
    ['head_lineage', 'uuid', 16, 'uuid', 'lineage of the durable generation'],
    ['chain', 'u32', 4, 'crc32c', 'checksum of the last header before durable_lsn'],
  ],
);

export const CHECKPOINT_MAGIC = 'VARVECHK';
export const checkpointHeader = table(
  'checkpoint_header',
  512,
  'Begins a checkpoint area; the catalogue entries follow it without a gap. The area that the' +
    ' superblock does not name is written and synced before the superblock names it.',
  [
    ['magic', 'magic', 8, 'ascii', `"${CHECKPOINT_MAGIC}"`],
    ['checksum', 'u32', 4, 'crc32c', 'of bytes 12 to 511'],
    ['version', 'u16', 2, 'version', 'format version'],
    ['padding', 'zero', 2, 'zero', 'written and checked as zero'],
    ['volume', 'uuid', 16, 'uuid', 'identity of the volume'],
    ['sequence', 'u64', 8, 'count', 'as named by the superblock'],
    ['stream_lsn', 'u64', 8, 'bytes', 'records of the stream before this position are included'],
    ['entry_count', 'u32', 4, 'entries', 'catalogue entries that follow'],
    ['body_checksum', 'u32', 4, 'crc32c', 'of the entries'],
  ],
);

/** Kinds of catalogue entry. */
export const RECORD_LINEAGE = 1;
export const RECORD_SNAPSHOT = 2;
export const RECORD_SNAPSHOT_DELETED = 3;
export const RECORD_MARK = 4;
/** Only in a checkpoint: a block that the last round wrote, looked at when the image is opened. */
export const RECORD_WITNESS = 5;
/** A rollback began; no client sees the live disk until it has ended. */
export const RECORD_ROLLBACK = 6;
/** It ended. */
export const RECORD_ROLLED_BACK = 7;
/** The disk is what another volume was at a moment. */
export const RECORD_RECEIVED = 8;
/** A receive is under way: how far its stream was applied. */
export const RECORD_RECEIVING = 9;
/** A receive is being given up. */
export const RECORD_RECEIVE_ABORTED = 10;
/** A snapshot that retention made, and will let go. */
export const RECORD_AUTOMATIC = 11;
export const LABEL_BYTES_MAX = 64;

export const catalogueEntry = table(
  'catalogue_entry',
  160,
  'One change of the catalogue: in the stream as the payload of a record entry (padded with zeros' +
    ' to a block), and in a checkpoint as the state that remains.',
  [
    [
      'type',
      'u16',
      2,
      'kind',
      '1 lineage, 2 snapshot, 3 snapshot deleted, 4 mark, 5 witness, 6 rollback begun, 7 rolled back,' +
        ' 8 received, 9 receiving, 10 receive given up, 11 automatic snapshot',
    ],
    ['padding', 'zero', 6, 'zero', 'written and checked as zero'],
    [
      'generation',
      'u64',
      8,
      'generation',
      'moment; for a lineage its parent; for a witness its version; for a rollback what comes back;' +
        ' received: the moment here',
    ],
    [
      'lineage',
      'uuid',
      16,
      'uuid',
      'of the moment; for a lineage its own identity; 8 to 10: of the moment that is sent',
    ],
    ['parent', 'uuid', 16, 'uuid', 'parent of a lineage; 8 to 10: the sending volume; else nil'],
    ['moment_wall_us', 'u64', 8, 'us', 'wall clock at the moment'],
    ['created_wall_us', 'u64', 8, 'us', 'wall clock when the entry was made'],
    ['block', 'u64', 8, 'block', 'of a witness; 8 to 10: the generation that is sent; else 0'],
    [
      'label',
      'text',
      LABEL_BYTES_MAX,
      'utf-8',
      'name of a snapshot or mark; receiving: SHA-256 of the stream so far, hexadecimal',
    ],
    ['before', 'u64', 8, 'generation', '6 to 10: the newest generation before it; else 0'],
    [
      'bound',
      'u64',
      8,
      'generation',
      'of a rollback that began: later generations are its own; of one that ended: its last;' +
        ' receiving: number of the record that is next in the stream; else 0',
    ],
    ['next_block', 'u64', 8, 'block', 'receiving: all changes below it are here; else 0'],
  ],
);

export const SEGMENT_MAGIC = 'VARVESEG';
export const segmentHeader = table(
  'segment_header',
  512,
  'First block of a slot (the rest of the block is zero); written together with the first batch,' +
    ' which is chained to it. So what an earlier life left in the slot is never taken up again.',
  [
    ['magic', 'magic', 8, 'ascii', `"${SEGMENT_MAGIC}"`],
    ['checksum', 'u32', 4, 'crc32c', 'of bytes 12 to 511'],
    ['version', 'u16', 2, 'version', 'format version'],
    ['padding', 'zero', 2, 'zero', 'written and checked as zero'],
    ['volume', 'uuid', 16, 'uuid', 'identity of the volume'],
    [
      'sequence',
      'u64',
      8,
      'segment',
      'grows, never used twice; of two that go on from the same place the higher one counts',
    ],
    ['slot', 'u32', 4, 'slot', 'where it lies; another place is misdirected'],
    ['chain', 'u32', 4, 'crc32c', 'checksum of the last header of the segment before'],
    ['opening', 'u64', 8, 'random', 'of the opening that began it: no two segments are alike'],
    ['first_lsn', 'u64', 8, 'bytes', 'position of its first batch in the stream'],
    ['generation', 'u64', 8, 'generation', 'newest request that began before this segment'],
    ['durable_lsn', 'u64', 8, 'bytes', 'the stream was known durable up to here'],
  ],
);

export const BATCH_MAGIC = 'VARVEBAT';
export const BATCH_PREFIX_BYTES = 128;
export const ENTRY_BYTES = 16;
/** Entries of one batch: the header block is full with them. */
export const ENTRIES_MAX = (BLOCK_BYTES - BATCH_PREFIX_BYTES) / ENTRY_BYTES;

export const batchHeader = table(
  'batch_header',
  BATCH_PREFIX_BYTES,
  'One block: these fields, then `entry_count` entries, then zeros. The payload blocks of its' +
    ' data and record entries follow in entry order.',
  [
    ['magic', 'magic', 8, 'ascii', `"${BATCH_MAGIC}"`],
    ['checksum', 'u32', 4, 'crc32c', 'of byte 12 up to the last entry'],
    ['version', 'u16', 2, 'version', 'format version'],
    ['entry_count', 'u16', 2, 'entries', `0 to ${ENTRIES_MAX}`],
    ['volume', 'uuid', 16, 'uuid', 'identity of the volume'],
    [
      'lineage',
      'uuid',
      16,
      'uuid',
      'lineage of its generations; on the undo device the `opening` of its segment, as the last 8' +
        ' bytes with the highest first, or nil of early versions',
    ],
    ['segment', 'u64', 8, 'segment', 'sequence of the segment that holds it'],
    ['lsn', 'u64', 8, 'bytes', 'its own position in the stream'],
    ['generation', 'u64', 8, 'generation', 'newest request that began before this batch'],
    ['wall_us', 'u64', 8, 'us', 'wall clock since 1970, as read'],
    ['elapsed_us', 'u64', 8, 'us', 'elapsed time of the volume; never goes back'],
    ['durable', 'u64', 8, 'generation', 'durable generation known when it was sealed'],
    ['durable_lsn', 'u64', 8, 'bytes', 'the stream was known durable up to here'],
    [
      'chain',
      'u32',
      4,
      'crc32c',
      'checksum of the header before this one: of a batch, or of the segment',
    ],
    ['payload_blocks', 'u16', 2, 'blocks', 'payload blocks that follow the header'],
  ],
);

export const KIND_DATA = 1;
export const KIND_TRIM = 2;
export const KIND_ZERO = 3;
export const KIND_ALLOCATE = 4;
export const KIND_FLUSH = 5;
export const KIND_RECORD = 6;
/** The following are of the undo device alone. */
export const KIND_BEFORE_DATA = 7;
export const KIND_BEFORE_ZERO = 8;
export const KIND_SPAN = 9;
export const KIND_JOINED = 10;
export const FLAG_START = 1;
export const FLAG_END = 2;
export const FLAG_FUA = 4;

export const batchEntry = table(
  'batch_entry',
  ENTRY_BYTES,
  'A request is the entries from one with the start flag to one with the end flag, over as many' +
    ' batches as it takes; each start raises the generation by one.',
  [
    [
      'block',
      'u48',
      6,
      'block',
      'block, or first block of a range; 0 for flush and record; span: generation of the image;' +
        ' joined: sequence of the segment',
    ],
    [
      'kind',
      'u8',
      1,
      'kind',
      '1 data, 2 trim, 3 zero, 4 zero and stay allocated, 5 flush, 6 record; on the undo device' +
        ' 7 before-image with data, 8 with zeros, each followed by 9 its span; 10 first in a segment,' +
        ' for each one that was joined into it, and last once it is whole',
    ],
    ['flags', 'u8', 1, 'bits', '1 the request starts here, 2 it ends here, 4 FUA'],
    [
      'value',
      'u32',
      4,
      'crc32c or count',
      'data and record: checksum of the payload; range: low half of the count; span: low half of' +
        ' the generation that replaced the image',
    ],
    ['extra', 'u32', 4, 'blocks', 'range and span: high half of that; else 0'],
  ],
);

export const SUMMARY_MAGIC = 'VARVESUM';
export const segmentSummary = table(
  'segment_summary',
  512,
  'Last block of a closed slot (the rest of the block is zero). The body lies in the blocks before' +
    ' it: the used part of every batch header of the segment, one after the other. Derived: without' +
    ' it, the headers are read.',
  [
    ['magic', 'magic', 8, 'ascii', `"${SUMMARY_MAGIC}"`],
    ['checksum', 'u32', 4, 'crc32c', 'of bytes 12 to 511'],
    ['version', 'u16', 2, 'version', 'format version'],
    ['padding', 'zero', 2, 'zero', 'written and checked as zero'],
    ['volume', 'uuid', 16, 'uuid', 'identity of the volume'],
    ['sequence', 'u64', 8, 'segment', 'sequence of the segment'],
    ['end_lsn', 'u64', 8, 'bytes', 'position in the stream where the segment ends'],
    ['body_bytes', 'u32', 4, 'bytes', 'length of the body'],
    ['body_checksum', 'u32', 4, 'crc32c', 'of the body'],
    ['batch_count', 'u32', 4, 'batches', 'headers in the body'],
  ],
);

export const SUMS_MAGIC = 'VSUM';
export const SUMS_SECTOR_BYTES = 512;
export const SUMS_ENTRY_BYTES = 16;
export const SUMS_ENTRIES = 31;
export const sumsHeader = table(
  'sums_sector_header',
  16,
  'Begins each 512-byte sector of final.sums; 31 entries follow. One sector, because a torn write' +
    ' leaves sectors whole: the checksums of neighbours survive it. Eight of them are one page of' +
    ' 4 KiB, which is written whole. A page of zeros: never written; a sector of zeros beside others:' +
    ' damage, unless all those are of a round that is made again, which may have torn the page.',
  [
    ['magic', 'magic', 4, 'ascii', `"${SUMS_MAGIC}"`],
    ['checksum', 'u32', 4, 'crc32c', 'of bytes 8 to 511, XOR a mix of volume and sector number'],
    ['since', 'u48', 6, 'generation', 'where the round ended that wrote the page first'],
    ['version', 'u16', 2, 'version', 'format version'],
  ],
);

export const SUM_NEVER = 0;
export const SUM_ZERO = 1;
export const SUM_DATA = 2;
export const SUM_LOST = 3;
/** What begins a lost block in final storage that would be zeros: those would look never written. */
export const LOST_TEXT = 'VARVE: this block was lost\n';
/** Zeros that stay allocated. */
export const SUM_ALLOCATED = 4;
export const sumsEntry = table(
  'sums_entry',
  SUMS_ENTRY_BYTES,
  'What final storage holds at one block. Entry i of sector s is block 31 s + i. A lost block that' +
    ` would be all zeros begins with "${LOST_TEXT.trimEnd()}" and a line feed, so that it does not` +
    ' pass for never written when its sector becomes zeros.',
  [
    ['kind', 'u8', 1, 'kind', '0 never written, 1 zero, 2 data, 3 lost, 4 zero and allocated'],
    ['padding', 'zero', 1, 'zero', 'written and checked as zero'],
    ['generation', 'u48', 6, 'generation', 'the request whose content it is'],
    ['checksum', 'u32', 4, 'crc32c', 'data: of the block, as in the log; else 0'],
  ],
);

export const FORMATS = [
  superblock,
  checkpointHeader,
  catalogueEntry,
  segmentHeader,
  batchHeader,
  batchEntry,
  segmentSummary,
  sumsHeader,
  sumsEntry,
] as const;
