/** A disposable disk against a plain array: the same answers, and nothing reaches what is below. */
import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { byteCount, byteOffset } from '../../src/base/units.ts';
import { ScratchDevice } from '../../src/device/scratch-device.ts';
import { MemoryDevice } from '../support/nbd-memory-device.ts';

const SIZE = 9 * 4096 + 512;

function filled(): MemoryDevice {
  const device = new MemoryDevice(SIZE);
  for (let at = 0; at < SIZE; at++) device.bytes[at] = (at * 7 + (at >> 8)) & 0xff;
  return device;
}

const ranges = fc
  .tuple(fc.nat(SIZE), fc.nat(3 * 4096))
  .map(([offset, length]) => ({ offset, length: Math.min(length, SIZE - offset) }));
const aligned = fc.tuple(fc.nat(9), fc.nat(9)).map(([start, count]) => ({
  offset: Math.min(SIZE, start * 4096),
  length: Math.max(0, Math.min(SIZE, (start + count) * 4096) - Math.min(SIZE, start * 4096)),
}));
const operations = fc.array(
  fc.record({
    kind: fc.constantFrom('write', 'write', 'zero', 'trim', 'read'),
    range: fc.oneof(ranges, aligned),
    byte: fc.integer({ min: 1, max: 255 }),
  }),
  { maxLength: 30 },
);

function apply(
  model: Buffer,
  kind: string,
  { offset, length }: { readonly offset: number; readonly length: number },
  byte: number,
): void {
  if (kind === 'write') model.fill(byte, offset, offset + length);
  if (kind === 'zero') model.fill(0, offset, offset + length);
  if (kind !== 'trim') return;
  const start = Math.ceil(offset / 4096) * 4096;
  const end = offset + length === SIZE ? SIZE : Math.floor((offset + length) / 4096) * 4096;
  if (end > start) model.fill(0, start, end);
}

describe('a disposable disk', () => {
  it('answers as an array does, and leaves what is below as it was', async () => {
    await fc.assert(
      fc.asyncProperty(operations, async (list) => {
        const below = filled();
        const device = new ScratchDevice(below, { bytesMax: byteCount(1 << 20) });
        const model = Buffer.from(below.bytes);
        for (const { kind, range, byte } of list) {
          const [offset, length] = [byteOffset(range.offset), byteCount(range.length)];
          if (kind === 'write') await device.write(offset, Buffer.alloc(length, byte));
          if (kind === 'zero') await device.zero(offset, length);
          if (kind === 'trim') await device.trim(offset, length);
          apply(model, kind, range, byte);
          const part = Buffer.alloc(length);
          await device.read(offset, part);
          expect(part.equals(model.subarray(offset, offset + length))).toBe(true);
        }
        const whole = Buffer.alloc(SIZE);
        await device.read(byteOffset(0), whole);
        expect(whole.equals(model)).toBe(true);
        expect(below.bytes.equals(filled().bytes)).toBe(true);
      }),
      { numRuns: 300 },
    );
  });

  it('loses no sector when two parts of a block are written at once', async () => {
    const below = filled();
    below.before = async () => {
      await setImmediate();
    };
    const device = new ScratchDevice(below, { bytesMax: byteCount(1 << 20) });
    const model = Buffer.from(below.bytes);
    const writes = Array.from({ length: 8 }, (_, sector) => {
      model.fill(sector + 1, 4096 + sector * 512, 4096 + (sector + 1) * 512);
      return device.write(byteOffset(4096 + sector * 512), Buffer.alloc(512, sector + 1));
    });
    const all = device.write(byteOffset(8192), Buffer.alloc(4096, 99));
    model.fill(99, 8192, 8192 + 4096);
    await Promise.all([...writes, all]);
    const whole = Buffer.alloc(SIZE);
    await device.read(byteOffset(0), whole);
    expect(whole.equals(model)).toBe(true);
  });

  it('refuses what it can not hold, with nothing of it applied', async () => {
    const device = new ScratchDevice(filled(), { bytesMax: byteCount(3 * 4096) });
    await device.write(byteOffset(0), Buffer.alloc(2 * 4096, 1));
    expect(device.wasFull).toBe(false);
    const before = Buffer.alloc(SIZE);
    await device.read(byteOffset(0), before);
    await expect(device.write(byteOffset(4096), Buffer.alloc(3 * 4096, 2))).rejects.toMatchObject({
      code: 'DISK_FULL',
    });
    const after = Buffer.alloc(SIZE);
    await device.read(byteOffset(0), after);
    expect(after.equals(before)).toBe(true);
    expect(device.wasFull).toBe(true);
    // What is zeroed is not held any more.
    await device.trim(byteOffset(0), byteCount(SIZE));
    expect(device.heldBytes).toBe(0);
    await device.write(byteOffset(4096), Buffer.alloc(3 * 4096, 2));
    await expect(device.write(byteOffset(SIZE), Buffer.alloc(1))).rejects.toMatchObject({
      code: 'REQUEST_BAD',
    });
  });
});
