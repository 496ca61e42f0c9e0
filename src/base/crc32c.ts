/** CRC32C (Castagnoli), the checksum of everything on disk. Source: RFC 3720, appendix B.4. */
import { crc32c as native } from '@node-rs/crc32';
import { checksum, type Checksum } from './units.ts';

/**
 * @param bytes - borrowed; any length
 * @param initial - the CRC of the bytes before these, to go on from
 */
export function crc32c(bytes: Uint8Array, initial = 0): Checksum {
  return checksum(native(bytes, initial));
}
