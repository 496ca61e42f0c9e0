/** UUIDs as 16 bytes on disk and lower-case hexadecimal with dashes in text. */
import { assert } from './assert.ts';
import type { Random } from './world.ts';

export type Uuid = string;

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

export const NIL_UUID: Uuid = '00000000-0000-0000-0000-000000000000';

export function isUuid(text: string): boolean {
  return UUID.test(text);
}

/** A random (version 4) UUID. Source: RFC 9562, section 5.4. */
export function newUuid(random: Random): Uuid {
  const bytes = Uint8Array.from(random.bytes(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  return uuidText(bytes);
}

export function uuidText(bytes: Uint8Array): Uuid {
  assert(bytes.length === 16, 'a UUID has 16 bytes');
  const hex = Buffer.from(bytes.buffer, bytes.byteOffset, 16).toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

export function uuidBytes(uuid: Uuid): Uint8Array {
  assert(isUuid(uuid), 'a UUID in text is 36 characters of lower-case hexadecimal and dashes');
  return Uint8Array.from(Buffer.from(uuid.replaceAll('-', ''), 'hex'));
}
