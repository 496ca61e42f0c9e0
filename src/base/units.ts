/**
 * Units as types: a bare number does not cross a module boundary of the data path.
 *
 * Every cast from number to unit stands in this file. The constructors check nothing that costs:
 * what comes from outside is validated where it enters (`src/format`, `src/cli`).
 */
declare const unit: unique symbol;
type Unit<Name extends string> = number & { readonly [unit]: Name };

/** Position of a 4096-byte block on a volume, from 0. */
export type Block = Unit<'Block'>;
/** How many blocks. */
export type BlockCount = Unit<'BlockCount'>;
/** Byte position on a device, from 0. */
export type ByteOffset = Unit<'ByteOffset'>;
/** How many bytes. */
export type ByteCount = Unit<'ByteCount'>;
/** Number of a mutating request; 0 is the empty volume. */
export type Generation = Unit<'Generation'>;
/** Log sequence number: byte position in the endless stream, always a multiple of 4096. */
export type Lsn = Unit<'Lsn'>;
/** Microseconds: of the wall clock since 1970, or elapsed. */
export type Micros = Unit<'Micros'>;
/** Number of a segment in the stream, from 1. */
export type SegmentSequence = Unit<'SegmentSequence'>;
/** Place of a segment on the log device, from 0. */
export type Slot = Unit<'Slot'>;
/** CRC32C, an unsigned 32-bit number. */
export type Checksum = Unit<'Checksum'>;

export const block = (value: number): Block => value as Block;
export const blockCount = (value: number): BlockCount => value as BlockCount;
export const byteOffset = (value: number): ByteOffset => value as ByteOffset;
export const byteCount = (value: number): ByteCount => value as ByteCount;
export const generation = (value: number): Generation => value as Generation;
export const lsn = (value: number): Lsn => value as Lsn;
export const micros = (value: number): Micros => value as Micros;
export const segmentSequence = (value: number): SegmentSequence => value as SegmentSequence;
export const slot = (value: number): Slot => value as Slot;
export const checksum = (value: number): Checksum => (value >>> 0) as Checksum;

export const BLOCK_BYTES = 4096;
export const kibibytes = (count: number): ByteCount => byteCount(count * 1024);
export const mebibytes = (count: number): ByteCount => byteCount(count * 1024 ** 2);
export const gibibytes = (count: number): ByteCount => byteCount(count * 1024 ** 3);
