/**
 * Tables of fields: every structure on disk is one of these, and code, tests and docs/FORMAT.md
 * read the same table.
 *
 * Invariants, checked when a table is made:
 *   - Fields follow each other without gap or overlap and fill the structure.
 *   - Padding is a field of type `zero`, and decoding checks that it is zero.
 */
import { assert } from '../base/assert.ts';
import { VarveError } from '../base/errors.ts';
import { uuidBytes, uuidText, type Uuid } from '../base/identity.ts';

/** Little-endian. `text` is UTF-8 padded with zeros; `magic` is fixed ASCII; `hash`: SHA-256. */
export type FieldType =
  'u8' | 'u16' | 'u32' | 'u48' | 'u64' | 'uuid' | 'hash' | 'text' | 'magic' | 'zero';

export interface Field {
  readonly name: string;
  readonly offset: number;
  readonly size: number;
  readonly type: FieldType;
  /** What a value counts: bytes, blocks, generation, crc32c, ... */
  readonly unit: string;
  readonly note: string;
}

export interface RecordLayout {
  readonly name: string;
  readonly size: number;
  readonly note: string;
  readonly fields: readonly Field[];
}

const SIZES: Partial<Record<FieldType, number>> = {
  u8: 1,
  u16: 2,
  u32: 4,
  u48: 6,
  u64: 8,
  uuid: 16,
  hash: 32,
};

/** Values of a structure by field name: numbers, or text for uuid, hash (hexadecimal) and text. */
export type Values = Readonly<Record<string, number | string>>;

export function layout(
  name: string,
  size: number,
  note: string,
  fields: readonly Field[],
): RecordLayout {
  let end = 0;
  for (const field of fields) {
    assert(field.offset === end, `${name}.${field.name} begins where the field before it ends`);
    const size = SIZES[field.type];
    assert(size === undefined || size === field.size, `${name}.${field.name} has its type's size`);
    end += field.size;
  }
  assert(end === size, `the fields of ${name} fill it`);
  return { name, size, note, fields };
}

/** Offset of a field, for code on the hot path that reads and writes by DataView. */
export function offsetOf(of: RecordLayout, name: string): number {
  const field = of.fields.find((candidate) => candidate.name === name);
  assert(field !== undefined, `${of.name} has a field ${name}`);
  return field.offset;
}

/** 64-bit fields are narrowed here and nowhere else: above 2^53 - 1 a number silently rounds. */
export function readU64(view: DataView, at: number, field: string): number {
  const high = view.getUint32(at + 4, true);
  if (high > 0x1fffff) {
    throw new VarveError('VOLUME_CORRUPT', `${field} is beyond 2^53 - 1`);
  }
  return high * 2 ** 32 + view.getUint32(at, true);
}

export function writeU64(view: DataView, at: number, value: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, 'a 64-bit field holds a safe integer from 0');
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

export function readU48(view: DataView, at: number): number {
  return view.getUint16(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
}

export function writeU48(view: DataView, at: number, value: number): void {
  assert(value >= 0 && value < 2 ** 48, 'a 48-bit field holds an integer from 0');
  view.setUint32(at, value >>> 0, true);
  view.setUint16(at + 4, Math.floor(value / 2 ** 32), true);
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function textBytes(type: FieldType, value: string): Uint8Array {
  return Buffer.from(value, type === 'hash' ? 'hex' : 'utf8');
}

function writeField(
  target: Uint8Array,
  view: DataView,
  field: Field,
  value: number | string,
): void {
  const { offset, size, type } = field;
  if (type === 'uuid' || type === 'hash' || type === 'text' || type === 'magic') {
    assert(typeof value === 'string', `${field.name} is text`);
    const bytes = type === 'uuid' ? uuidBytes(value) : textBytes(type, value);
    assert(bytes.length <= size, `${field.name} fits its field`);
    target.fill(0, offset, offset + size);
    target.set(bytes, offset);
    return;
  }
  assert(typeof value === 'number', `${field.name} is a number`);
  if (type === 'u8') view.setUint8(offset, value);
  else if (type === 'u16') view.setUint16(offset, value, true);
  else if (type === 'u32') view.setUint32(offset, value, true);
  else if (type === 'u48') writeU48(view, offset, value);
  else writeU64(view, offset, value);
}

function readField(source: Uint8Array, view: DataView, field: Field): number | string {
  const { offset, size, type } = field;
  const bytes = source.subarray(offset, offset + size);
  if (type === 'uuid') return uuidText(bytes);
  if (type === 'hash') return Buffer.from(bytes).toString('hex');
  if (type === 'text' || type === 'magic') {
    return Buffer.from(bytes).toString('utf8').replace(/\0+$/, '');
  }
  if (type === 'u8') return view.getUint8(offset);
  if (type === 'u16') return view.getUint16(offset, true);
  if (type === 'u32') return view.getUint32(offset, true);
  if (type === 'u48') return readU48(view, offset);
  return readU64(view, offset, field.name);
}

/** Writes every field; `zero` fields are cleared; each other field needs a value. */
export function encode(of: RecordLayout, values: Values, target: Uint8Array): void {
  assert(target.length >= of.size, `${of.name} fits its target`);
  const view = viewOf(target);
  for (const field of of.fields) {
    if (field.type === 'zero') {
      target.fill(0, field.offset, field.offset + field.size);
      continue;
    }
    const value = values[field.name];
    assert(value !== undefined, `${of.name}.${field.name} has a value`);
    writeField(target, view, field, value);
  }
}

/**
 * @returns every field but padding, or undefined when padding is not zero or a number too large
 */
export function decode(of: RecordLayout, source: Uint8Array): Values | undefined {
  if (source.length < of.size) return undefined;
  const view = viewOf(source);
  const values: Record<string, number | string> = {};
  for (const field of of.fields) {
    if (field.type === 'zero') {
      for (let at = field.offset; at < field.offset + field.size; at++) {
        if (source[at] !== 0) return undefined;
      }
    } else if (
      field.type === 'u64' &&
      (source[field.offset + 7] !== 0 || view.getUint16(field.offset + 6, true) > 0x1f)
    ) {
      return undefined;
    } else {
      values[field.name] = readField(source, view, field);
    }
  }
  return values;
}

export function numberOf(values: Values, name: string): number {
  const value = values[name];
  assert(typeof value === 'number', `${name} is a number`);
  return value;
}

export function textOf(values: Values, name: string): Uuid {
  const value = values[name];
  assert(typeof value === 'string', `${name} is text`);
  return value;
}
