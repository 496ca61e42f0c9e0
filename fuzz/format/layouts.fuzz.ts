/**
 * Every structure on disk, as its table says: values survive a round trip, and whatever bytes are
 * read give values or a refusal. Where they give values there is one form: the same bytes again.
 */
import fc from 'fast-check';
import { assert } from '../../src/base/assert.ts';
import { uuidText } from '../../src/base/identity.ts';
import { FORMATS } from '../../src/format/layouts.ts';
import { SEND_FORMATS } from '../../src/format/send-layouts.ts';
import { decode, encode, type Field, type RecordLayout } from '../../src/format/record.ts';
import type { Fuzzer } from '../options.ts';

/** Values that a field may hold; undefined for padding, which holds none. */
function valueOf({ type, size }: Field): fc.Arbitrary<number | string> | undefined {
  switch (type) {
    case 'u8':
    case 'u16':
    case 'u32':
    case 'u48':
      return fc.oneof(
        fc.nat({ max: 3 }),
        fc.maxSafeNat().map((n) => n % 2 ** (8 * size)),
      );
    case 'u64':
      return fc.maxSafeNat();
    case 'uuid':
      return fc.uint8Array({ minLength: 16, maxLength: 16 }).map(uuidText);
    case 'hash':
      return fc
        .uint8Array({ minLength: 32, maxLength: 32 })
        .map((bytes) => Buffer.from(bytes).toString('hex'));
    case 'text':
      // A character outside of ASCII takes up to four bytes; zeros at the end are padding.
      return fc.string({ unit: 'grapheme', maxLength: 12 }).map((text) => clip(text, size));
    case 'magic':
      return fc.constantFrom('VARVE', 'SUM').map((text) => text.slice(0, size));
    case 'zero':
      return undefined;
    default:
      return type;
  }
}

function clip(text: string, bytes: number): string {
  const plain = text.replaceAll('\0', '');
  return Buffer.byteLength(plain) <= bytes ? plain : '';
}

interface Sample {
  readonly of: RecordLayout;
  readonly values: Readonly<Record<string, number | string>>;
}

function sampleOf(of: RecordLayout): fc.Arbitrary<Sample> {
  const fields: Record<string, fc.Arbitrary<number | string>> = {};
  for (const field of of.fields) {
    const arbitrary = valueOf(field);
    if (arbitrary !== undefined) fields[field.name] = arbitrary;
  }
  return fc.record(fields, { noNullPrototype: true }).map((values) => ({ of, values }));
}

const samples = fc.oneof(...[...FORMATS, ...SEND_FORMATS].map(sampleOf));

function bytesOf({ of, values }: Sample): Uint8Array {
  // What was there before must not shine through.
  const bytes = new Uint8Array(of.size).fill(0xff);
  encode(of, values, bytes);
  return bytes;
}

function survives(sample: Sample): void {
  const back = decode(sample.of, bytesOf(sample));
  assert(back !== undefined, 'what was encoded can be decoded');
  for (const [name, value] of Object.entries(sample.values)) {
    assert(back[name] === value, `${sample.of.name}.${name} survives: ${value}, ${back[name]}`);
  }
}

/** One byte of a sound structure is changed: where, and by what. */
interface Damage {
  readonly at: number;
  readonly flip: number;
}

function isText({ fields }: RecordLayout, at: number): boolean {
  const field = fields.find(({ offset, size }) => offset <= at && at < offset + size);
  return field?.type === 'text' || field?.type === 'magic';
}

function hasOneForm(sample: Sample, damages: readonly Damage[]): void {
  const { of } = sample;
  const bytes = bytesOf(sample);
  for (const { at, flip } of damages) {
    const place = at % of.size;
    // Text that is no UTF-8 has no form of its own; its checksum is what refuses it.
    if (!isText(of, place)) bytes[place] = (bytes[place] ?? 0) ^ flip;
  }
  const values = decode(of, bytes);
  if (values === undefined) return;
  const again = new Uint8Array(of.size).fill(0xff);
  encode(of, values, again);
  assert(Buffer.compare(again, bytes) === 0, `${of.name} has one form`);
}

export const fuzzer: Fuzzer = {
  name: 'format-layouts',
  main({ seed, runs, onStep }) {
    const parameters = { seed, numRuns: runs };
    const every = fc.property(samples, (sample) => {
      onStep?.();
      survives(sample);
    });
    fc.assert(every, parameters);
    const damage = fc.record({ at: fc.nat(), flip: fc.integer({ min: 1, max: 255 }) });
    fc.assert(fc.property(samples, fc.array(damage, { maxLength: 8 }), hasOneForm), parameters);
    const noise = fc.tuple(fc.constantFrom(...FORMATS), fc.uint8Array({ maxLength: 600 }));
    fc.assert(
      fc.property(noise, ([of, bytes]) => {
        decode(of, bytes);
      }),
      parameters,
    );
  },
};
