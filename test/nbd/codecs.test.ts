/** The codecs: what is written is read back, and what is no message is an error of the protocol. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as options from '../../src/nbd/options.ts';
import { NBD_STRING_BYTES_MAX } from '../../src/nbd/protocol.ts';
import { decodeRequest, encodeRequest } from '../../src/nbd/request.ts';
import { decodeString, encodeText, putUint64, uint64 } from '../../src/nbd/wire.ts';
import { isZero } from '../../src/nbd/zeros.ts';

const text = fc.string({ unit: 'grapheme', maxLength: 200 }).map((s) => s.replaceAll('\0', ''));

describe('64-bit fields', () => {
  it('hold every safe integer', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), (value) => {
        const bytes = Buffer.alloc(8);
        putUint64(bytes, 0, value);
        expect(bytes.readBigUInt64BE()).toBe(BigInt(value));
        expect(uint64(bytes, 0)).toBe(value);
      }),
    );
  });

  it('are never rounded', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 2n ** 53n, max: 2n ** 64n - 1n }), (value) => {
        const bytes = Buffer.alloc(8);
        bytes.writeBigUInt64BE(value);
        expect(uint64(bytes, 0)).toBeUndefined();
      }),
    );
  });
});

describe('strings', () => {
  it('are cut between characters', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), fc.nat(60), (s, most) => {
        const bytes = encodeText(s, most);
        expect(bytes.length).toBeLessThanOrEqual(most);
        expect(s.replaceAll('\0', ' ').startsWith(decodeString(bytes, 'a text'))).toBe(true);
      }),
    );
  });

  it('keep a byte order mark, and have at most 4096 bytes', () => {
    expect(decodeString(Buffer.from('\ufeffdisk'), 'x')).toBe('\ufeffdisk');
    expect(() => decodeString(Buffer.alloc(NBD_STRING_BYTES_MAX + 1, 'a'), 'x')).toThrow('4097');
  });
});

describe('options', () => {
  it('survive a round trip', () => {
    const infos = fc.uniqueArray(fc.nat(65535), { maxLength: 20 }).map((list) => new Set(list));
    fc.assert(
      fc.property(text, infos, fc.array(text, { maxLength: 20 }), (name, set, leaves) => {
        const query = { name, infos: set };
        expect(options.decodeInfoQuery(options.encodeInfoQuery(query))).toEqual(query);
        const contexts = { name, queries: leaves.map((leaf) => `base:${leaf}`) };
        const data = options.encodeContextQuery(contexts);
        expect(options.decodeContextQuery(data)).toEqual(contexts);
      }),
    );
  });

  it('have headers that survive a round trip', () => {
    fc.assert(
      fc.property(fc.nat(2 ** 31), fc.uint8Array(), (option, data) => {
        const { length } = data;
        expect(options.decodeOptionHeader(options.encodeOption(option, data))).toEqual({
          option,
          length,
        });
        const reply = options.encodeReply(option, 2 ** 31 + 1, data);
        expect(options.decodeReplyHeader(reply)).toEqual({ option, type: 2 ** 31 + 1, length });
      }),
    );
  });
});

describe('requests', () => {
  it('survive a round trip', () => {
    const fields = fc.record({
      type: fc.nat(65535),
      flags: fc.nat(65535),
      cookie: fc.maxSafeNat(),
      offset: fc.maxSafeNat(),
      length: fc.nat(2 ** 32 - 1),
    });
    fc.assert(
      fc.property(fields, (request) => {
        const back = decodeRequest(encodeRequest(request), 0);
        expect(back).toMatchObject({
          type: request.type,
          flags: request.flags,
          offset: request.offset,
          length: request.length,
          cookieHigh: Math.floor(request.cookie / 2 ** 32),
          cookieLow: request.cookie % 2 ** 32,
        });
      }),
    );
  });
});

describe('zeros', () => {
  it('are seen wherever a byte is not', () => {
    const bytes = Buffer.alloc(200_000);
    expect(isZero(bytes, 0, bytes.length)).toBe(true);
    expect(isZero(bytes, 5, 5)).toBe(true);
    for (const at of [0, 1, 65_535, 65_536, 131_071, 199_998, 199_999]) {
      bytes[at] = 1;
      expect(isZero(bytes, 0, bytes.length)).toBe(false);
      expect(isZero(bytes, at + 1, bytes.length)).toBe(true);
      expect(isZero(bytes, 0, at)).toBe(true);
      bytes[at] = 0;
    }
  });
});
