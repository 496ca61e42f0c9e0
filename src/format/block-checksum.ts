/**
 * The checksum of one block: CRC32C of its data XOR a mix of volume, block and generation, so that
 * a block of another volume, place or time is found as surely as a flipped bit.
 *
 * The data part can be computed as bytes arrive, before the generation is known; the rest is a few
 * integer operations. The mix is a bijection of its inputs' 32-bit halves (finalisers of
 * MurmurHash3), so neighbours in block or generation never share a value by structure.
 */
import { crc32c } from '../base/crc32c.ts';
import { uuidBytes, type Uuid } from '../base/identity.ts';
import { scramble } from '../base/mix.ts';
import { checksum, type Checksum } from '../base/units.ts';

/** 32 bits of the volume's identity, computed once. */
export function volumeSeed(volume: Uuid): number {
  return crc32c(uuidBytes(volume));
}

/**
 * @param dataCrc - CRC32C of the 4096 bytes
 * @param place - block number, or LSN / 4096 for a catalogue record
 */
export function bindChecksum(
  dataCrc: number,
  seed: number,
  place: number,
  generation: number,
): Checksum {
  let mixed = scramble(seed ^ (place | 0));
  mixed = scramble(mixed + Math.floor(place / 2 ** 32) + 0x9e3779b9);
  mixed = scramble(mixed ^ (generation | 0));
  mixed = scramble(mixed + Math.floor(generation / 2 ** 32) + 0x7f4a7c15);
  return checksum(dataCrc ^ mixed);
}
