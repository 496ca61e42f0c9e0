/**
 * Bytes of structures changed where their tables say that fields lie, and sealed again, so that
 * what reads them gets beyond the checksum.
 */
import { unreachable } from '../../src/base/assert.ts';
import { crc32c } from '../../src/base/crc32c.ts';
import type { Field, RecordLayout } from '../../src/format/record.ts';
import type { SeededRandom } from '../../test/sim/random.ts';

const NUMBERS: readonly bigint[] = [
  0n,
  1n,
  2n,
  7n,
  255n,
  4095n,
  4096n,
  65_535n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 32n,
  2n ** 48n - 1n,
  2n ** 53n - 4096n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 63n,
  2n ** 64n - 1n,
];

function numberIn(bytes: Uint8Array): bigint {
  return bytes.reduceRight((value, byte) => value * 256n + BigInt(byte), 0n);
}

function putNumber(bytes: Uint8Array, value: bigint): void {
  let rest = BigInt.asUintN(8 * bytes.length, value);
  for (let at = 0; at < bytes.length; at += 1) {
    bytes[at] = Number(rest % 256n);
    rest /= 256n;
  }
}

/** Another value of the kind that finds mistakes: at limits, or next to the one that is there. */
function mutateNumber(random: SeededRandom, bytes: Uint8Array): void {
  const way = random.below(4);
  if (way === 0) putNumber(bytes, random.pick(NUMBERS));
  else if (way === 1) putNumber(bytes, numberIn(bytes) + BigInt(random.between(-2, 2)));
  else if (way === 2) putNumber(bytes, numberIn(bytes) + BigInt(4096 * random.between(-8, 8)));
  else random.fill(bytes);
}

function mutateField(random: SeededRandom, field: Field, structure: Uint8Array): void {
  const bytes = structure.subarray(field.offset, field.offset + field.size);
  switch (field.type) {
    case 'zero':
      bytes[random.below(bytes.length)] = random.below(256);
      return;
    case 'uuid':
    case 'hash':
    case 'text':
    case 'magic':
      if (random.chance(0.3)) bytes.fill(random.pick([0, 0xff]));
      else bytes[random.below(bytes.length)] = random.below(256);
      return;
    case 'u8':
    case 'u16':
    case 'u32':
    case 'u48':
    case 'u64':
      mutateNumber(random, bytes);
      return;
    default:
      unreachable(field.type);
  }
}

/** Changes up to three fields; seldom the version, which ends every look at the rest. */
export function mutateFields(random: SeededRandom, of: RecordLayout, structure: Uint8Array): void {
  const fields = of.fields.filter(({ name }) => name !== 'version' || random.chance(0.1));
  for (let left = random.between(1, 3); left > 0; left -= 1) {
    mutateField(random, random.pick(fields), structure);
  }
}

/** The checksum of the structures that have it in bytes 8 to 11, over what follows. */
export function reseal(structure: Uint8Array, used: number): void {
  const end = Math.min(used, structure.length);
  const view = new DataView(structure.buffer, structure.byteOffset, structure.byteLength);
  view.setUint32(8, crc32c(structure.subarray(12, Math.max(12, end))), true);
}
