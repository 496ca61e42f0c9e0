/** Lines of the control protocol: bytes cut anywhere give the same lines, and never more memory. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { LineSplitter, type Line } from '../../src/control/control-lines.ts';

const BYTES_MAX = 100_000;

function split(bytes: Uint8Array, cuts: readonly number[]): Line[] {
  const splitter = new LineSplitter(BYTES_MAX);
  const lines: Line[] = [];
  let from = 0;
  for (const cut of [...cuts, bytes.length].sort((a, b) => a - b)) {
    lines.push(...splitter.push(bytes.subarray(from, cut)));
    from = cut;
  }
  return lines;
}

describe('lines of the control protocol', () => {
  test('are the same however their bytes are cut', () => {
    const texts = fc.array(fc.string({ unit: 'grapheme' }).filter((text) => !text.includes('\n')));
    fc.assert(
      fc.property(texts, fc.array(fc.nat()), (list, cuts) => {
        const bytes = Buffer.from(list.map((text) => `${text}\n`).join(''));
        const places = cuts.map((cut) => cut % (bytes.length + 1));
        const found = split(bytes, places);
        expect(found).toEqual(list.map((text) => ({ kind: 'text', text })));
      }),
    );
  });

  test('that are too long are said to be so once, and the next one is read', () => {
    const long = Buffer.alloc(3 * BYTES_MAX, 'x');
    const found = split(Buffer.concat([long, Buffer.from('\nnext\n')]), [10, BYTES_MAX + 5]);
    expect(found.map(({ kind }) => kind)).toEqual(['bad', 'text']);
    expect(found[1]).toEqual({ kind: 'text', text: 'next' });
  });

  test('that are no UTF-8 are said to be so', () => {
    const found = split(Buffer.from([0xff, 0xfe, 0x0a, 0x61, 0x0a]), []);
    expect(found.map(({ kind }) => kind)).toEqual(['bad', 'text']);
  });
});
