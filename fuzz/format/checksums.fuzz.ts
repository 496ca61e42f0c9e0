/**
 * The checksum of a block covers data, volume, place and generation: whatever one of them is
 * changed to, the checksum is another. (The mix is a bijection of each 32-bit half, so this holds
 * always when one half changes, not only nearly always.)
 */
import fc from 'fast-check';
import { assert } from '../../src/base/assert.ts';
import { bindChecksum } from '../../src/format/block-checksum.ts';
import type { Fuzzer } from '../options.ts';

const word = fc.nat({ max: 2 ** 32 - 1 });
/** Two values that differ in one half only. */
const pair = fc.oneof(
  fc.record({ left: word, flip: fc.integer({ min: 0, max: 31 }) }).map(({ left, flip }) => {
    return { left, right: (left ^ (1 << flip)) >>> 0 };
  }),
  fc
    .record({ low: word, high: fc.nat({ max: 2 ** 15 }), more: fc.integer({ min: 1, max: 99 }) })
    .map(({ low, high, more }) => {
      return { left: high * 2 ** 32 + low, right: (high + more) * 2 ** 32 + low };
    }),
);

export const fuzzer: Fuzzer = {
  name: 'format-checksums',
  main({ seed, runs, onStep }) {
    const property = fc.property(word, word, pair, pair, (crc, volume, place, generation) => {
      onStep?.();
      const sum = bindChecksum(crc, volume, place.left, generation.left);
      assert(sum >= 0 && sum < 2 ** 32, 'a checksum has 32 bits');
      const ofPlace = bindChecksum(crc, volume, place.right, generation.left);
      assert(sum !== ofPlace, 'a block of another place has another checksum');
      const ofGeneration = bindChecksum(crc, volume, place.left, generation.right);
      assert(sum !== ofGeneration, 'another generation has another checksum');
      const ofVolume = bindChecksum(crc, (volume ^ 1) >>> 0, place.left, generation.left);
      assert(sum !== ofVolume, 'another volume has another checksum');
      const ofData = bindChecksum((crc ^ 1) >>> 0, volume, place.left, generation.left);
      assert(sum !== ofData, 'other data have another checksum');
    });
    fc.assert(property, { seed, numRuns: runs });
  },
};
