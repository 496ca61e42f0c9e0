/**
 * The system may do a part of what it was asked: read and write less, be interrupted, say that
 * there is no more. A device does all of it or fails, and never takes a part for the whole.
 */
import fs, { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { VarveError } from '../../src/base/errors.ts';
import { byteCount, byteOffset, type ByteCount, type ByteOffset } from '../../src/base/units.ts';
import { FileDevice } from '../../src/device/file-device.ts';
import { programPlatform, type Platform } from '../../src/device/platform.ts';
import { SeededRandom } from '../sim/random.ts';
import { temporaryDirectory } from '../support/files.ts';

const SIZE = 300_000;
const ERRORS = ['EINTR', 'EAGAIN', 'EIO', 'ENOSPC'];

type Done = (error: Error | null, count: number) => void;

/** What the system does with the next call. */
class Script {
  readonly #random: SeededRandom;
  readonly #trouble: number;
  shortCounts = 0;
  failures = 0;

  constructor(random: SeededRandom, trouble: number) {
    this.#random = random;
    this.#trouble = trouble;
  }

  /** Calls `act` with how much to do of `length`, or fails; `done` later, as the system does. */
  play(length: number, done: Done, act: (count: number) => void): void {
    const random = this.#random;
    const fate = random.fraction();
    if (fate < this.#trouble) {
      this.failures += 1;
      const code = random.pick([...ERRORS, '']);
      const error = code === '' ? null : Object.assign(new Error(code), { code });
      // The empty one: nothing done, and no error either.
      setImmediate(() => done(error, 0));
      return;
    }
    const count = random.chance(0.5) ? length : random.between(1, length);
    if (count < length) this.shortCounts += 1;
    act(count);
    setImmediate(() => done(null, count));
  }
}

/**
 * The calls of node:fs that FileDevice makes, as `script` says; the bytes are in `disk`.
 * @returns puts them back
 */
function replaceSystem(script: Script, disk: Buffer): () => void {
  const read = (
    _fd: number,
    target: Uint8Array,
    from: number,
    length: number,
    position: number,
    done: Done,
  ): void => {
    script.play(Math.min(length, disk.length - position), done, (count) => {
      disk.copy(target, from, position, position + count);
    });
  };
  const writev = (_fd: number, all: readonly Uint8Array[], position: number, done: Done): void => {
    const bytes = Buffer.concat(all);
    script.play(bytes.length, done, (count) => {
      disk.set(bytes.subarray(0, count), position);
    });
  };
  const write = (
    fd: number,
    source: Uint8Array,
    from: number,
    length: number,
    position: number,
    done: Done,
  ): void => {
    writev(fd, [source.subarray(from, from + length)], position, done);
  };
  const before = { read: fs.read, write: fs.write, writev: fs.writev };
  Object.assign(fs, { read, write, writev });
  return () => {
    Object.assign(fs, before);
  };
}

/** Punches, or says that it can't, in `disk`. */
function punching(random: SeededRandom, disk: Buffer): Platform {
  return {
    ...programPlatform(),
    means: 'programs',
    punchBytesMin: 4096,
    punchHole: async (_fd: number, offset: ByteOffset, length: ByteCount) => {
      if (random.chance(0.3)) return 'unsupported';
      disk.fill(0, offset, offset + length);
      return 'punched';
    },
  };
}

function pieces(random: SeededRandom, bytes: Uint8Array): Uint8Array[] {
  const parts: Uint8Array[] = [];
  for (let at = 0; at < bytes.length;) {
    const length = random.chance(0.1) ? 0 : random.between(1, bytes.length - at);
    parts.push(bytes.subarray(at, at + length));
    at += length;
  }
  return parts;
}

/** @returns how often the system did less, and how often an operation failed */
async function live(seed: number, trouble: number) {
  const random = new SeededRandom(seed);
  using directory = temporaryDirectory();
  const disk = Buffer.from(random.bytes(SIZE));
  const model = Buffer.from(disk);
  const options = { create: true, size: byteCount(SIZE) };
  const path = join(directory.path, 'disk');
  const device = await FileDevice.openWith(punching(random.fork('punch'), disk), path, options);
  const script = new Script(random.fork('script'), trouble);
  using _ = { [Symbol.dispose]: replaceSystem(script, disk) };
  let failed = 0;
  for (let i = 0; i < 60; i += 1) {
    const length = random.below(random.pick([10, 5000, 100_000]));
    const offset = random.below(SIZE - length);
    const kind = random.below(3);
    const target = new Uint8Array(length);
    const source = random.bytes(length);
    try {
      if (kind === 0) await device.read(byteOffset(offset), target);
      else if (kind === 1) await device.write(byteOffset(offset), pieces(random, source));
      else await device.punch(byteOffset(offset), byteCount(length));
    } catch (error) {
      expect(error).toBeInstanceOf(VarveError);
      expect(['DEVICE_IO', 'DISK_FULL']).toContain(error instanceof VarveError ? error.code : '');
      failed += 1;
      // What a failed change left is anything, inside its range; a failed read changes nothing.
      if (kind !== 0) disk.copy(model, offset, offset, offset + length);
      expect(disk.equals(model)).toBe(true);
      continue;
    }
    if (kind === 1) model.set(source, offset);
    if (kind === 2) model.fill(0, offset, offset + length);
    expect(disk.equals(model)).toBe(true);
    if (kind === 0) expect(model.subarray(offset, offset + length).equals(target)).toBe(true);
  }
  await device.close();
  // The real file was never touched: all went through the script.
  expect(readFileSync(path).every((byte) => byte === 0)).toBe(true);
  return { shortCounts: script.shortCounts, failed, failures: script.failures };
}

describe('a system that does a part', () => {
  test('is asked until all is done', async () => {
    for (let seed = 1; seed <= 10; seed += 1) {
      const { shortCounts, failed } = await live(seed, 0);
      expect(shortCounts).toBeGreaterThan(5);
      expect(failed).toBe(0);
    }
  });

  test('and fails at times fails the operation, once for each time', async () => {
    for (let seed = 1; seed <= 10; seed += 1) {
      const { failed, failures } = await live(seed, 0.05);
      expect(failed).toBeGreaterThan(0);
      expect(failed).toBe(failures);
    }
  });
});
