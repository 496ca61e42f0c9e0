/** Chunks of a read in any order, and from servers that say the same twice. */
import { describe, expect, test } from 'vitest';
import { isVarveError } from '../../src/base/errors.ts';
import type { Pending } from '../../src/nbd/client-replies.ts';
import { ReplyReader } from '../../src/nbd/client-replies.ts';
import { Coverage } from '../../src/nbd/coverage.ts';
import { putOffsetData, putOffsetHole } from '../../src/nbd/replies.ts';
import { SeededRandom } from '../sim/random.ts';

describe('coverage', () => {
  test('counts each byte once, in any order', () => {
    for (let seed = 0; seed < 30; seed += 1) {
      const random = new SeededRandom(seed);
      const coverage = new Coverage();
      const came = new Uint8Array(200);
      for (let i = 0; i < 100; i += 1) {
        const start = random.below(195);
        const end = start + random.between(1, 5);
        const isNew = came.subarray(start, end).every((byte) => byte === 0);
        if (!isNew) {
          expect(coverage.add(start, end)).toBe(false);
          continue;
        }
        expect(coverage.add(start, end)).toBe(true);
        came.fill(1, start, end);
      }
      expect(coverage.bytes).toBe(came.reduce((sum, byte) => sum + byte, 0));
    }
  });

  test('does not follow a server that leaves gaps without end', () => {
    const coverage = new Coverage();
    let parts = 0;
    while (coverage.add(parts * 2, parts * 2 + 1)) parts += 1;
    expect(parts).toBe(4096);
  });
});

describe('a read in chunks', () => {
  const COOKIE = { cookieHigh: 0, cookieLow: 1 };

  function read(chunks: readonly (readonly [offset: number, length: number, isHole: boolean])[]) {
    let isFinished = false;
    const pending: Pending = {
      offset: 0,
      length: 300,
      target: Buffer.alloc(300, 0xa5),
      coverage: new Coverage(),
      error: undefined,
      came: undefined,
      placed: undefined,
      status: undefined,
      finish: () => {
        isFinished = true;
      },
    };
    const reader = new ReplyReader(new Map([[1, pending]]));
    for (const [i, [offset, length, isHole]] of chunks.entries()) {
      const done = i === chunks.length - 1;
      const bytes = Buffer.alloc(isHole ? 32 : 28 + length, 1);
      if (isHole) putOffsetHole(bytes, 0, COOKIE, { offset, length, done });
      else putOffsetData(bytes, 0, COOKIE, { offset, length, done });
      reader.data(bytes);
    }
    return isFinished;
  }

  test('is finished when all of it came', () => {
    expect(
      read([
        [200, 100, false],
        [0, 200, true],
      ]),
    ).toBe(true);
  });

  // Found by nbd-client-bytes: lengths were added up, and a byte that never came was given out.
  test.each([
    ['data', false],
    ['a hole', true],
  ])('is not finished by %s that came twice', (_, isHole) => {
    const broken = (): unknown =>
      read([
        [0, 150, isHole],
        [0, 150, isHole],
      ]);
    expect(broken).toThrow(expect.objectContaining({ code: 'PROTOCOL' }));
  });

  test('has no content without a length', () => {
    try {
      read([[0, 0, true]]);
      expect.unreachable();
    } catch (error) {
      expect(isVarveError(error, 'PROTOCOL')).toBe(true);
    }
  });
});
