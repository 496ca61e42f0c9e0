/**
 * Numbers and strings as they stand on the wire. Pure: bytes in, value out.
 *
 * Invariants:
 *   - A 64-bit field is never rounded: one that a number can't hold reads as undefined.
 *   - A string is UTF-8 without NUL of at most 4096 bytes, or it is no string.
 */
import { assert } from '../base/assert.ts';
import { VarveError } from '../base/errors.ts';
import { NBD_STRING_BYTES_MAX } from './protocol.ts';

/** The high half of 2^53: from here on a 64-bit field does not fit a safe integer. */
const HIGH_END = 0x200000;

export function uint16(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
}

export function uint32(bytes: Uint8Array, at: number): number {
  return (
    (((bytes[at] ?? 0) << 24) |
      ((bytes[at + 1] ?? 0) << 16) |
      ((bytes[at + 2] ?? 0) << 8) |
      (bytes[at + 3] ?? 0)) >>>
    0
  );
}

/** Undefined: above 2^53 - 1. */
export function uint64(bytes: Uint8Array, at: number): number | undefined {
  const high = uint32(bytes, at);
  return high < HIGH_END ? high * 2 ** 32 + uint32(bytes, at + 4) : undefined;
}

export function putUint16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

export function putUint32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

export function putUint64(bytes: Uint8Array, at: number, value: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, 'a 64-bit field holds a safe integer');
  putUint32(bytes, at, Math.floor(value / 2 ** 32));
  putUint32(bytes, at + 4, value >>> 0);
}

export function isMagic(bytes: Uint8Array, at: number, magic: readonly [number, number]): boolean {
  return uint32(bytes, at) === magic[0] && uint32(bytes, at + 4) === magic[1];
}

export function putMagic(bytes: Uint8Array, at: number, magic: readonly [number, number]): void {
  putUint32(bytes, at, magic[0]);
  putUint32(bytes, at + 4, magic[1]);
}

export function protocolError(detail: string): VarveError {
  return new VarveError('PROTOCOL', detail);
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** @throws VarveError PROTOCOL when it is too long, not UTF-8, or has a NUL in it */
export function decodeString(bytes: Uint8Array, what: string): string {
  if (bytes.length > NBD_STRING_BYTES_MAX) {
    throw protocolError(`${what} has ${bytes.length} bytes, at most ${NBD_STRING_BYTES_MAX} go`);
  }
  if (bytes.includes(0)) throw protocolError(`${what} contains NUL`);
  try {
    return decoder.decode(bytes);
  } catch {
    throw protocolError(`${what} is not UTF-8`);
  }
}

/** A text of ours for the wire: cut, between characters, to what the protocol allows. */
export function encodeText(text: string, bytesMax = NBD_STRING_BYTES_MAX): Buffer {
  const clean = Buffer.from(text.replaceAll('\0', ' '), 'utf8');
  if (clean.length <= bytesMax) return clean;
  let end = bytesMax;
  // A byte 10xxxxxx continues a character.
  while (end > 0 && ((clean[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return clean.subarray(0, end);
}
